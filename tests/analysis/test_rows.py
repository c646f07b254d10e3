import pytest

from elenas_jax.analysis.rows import break_rows, series_parts

CHAIN = [(0, 1), (1, 2), (2, 3)]
DIAMOND = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]


def test_a_chain_is_broken_at_each_edge():
    assert series_parts(4, CHAIN, 0, 3) == [[0], [1], [2], [3]]


def test_parallel_ways_stay_together():
    assert series_parts(6, DIAMOND, 0, 5) == [[0], [1, 2, 3, 4], [5]]


@pytest.mark.parametrize("more", ([(3, 1)], [(1, 3)], [(2, 3)]), ids=("back", "across", "twice"))
def test_an_edge_that_has_company_is_no_place_to_break(more):
    parts = series_parts(4, CHAIN + more, 0, 3)
    assert all(({source, target} <= set(part)) for source, target in more for part in parts if target in part)
    assert [node for part in parts for node in part] == [0, 1, 2, 3]


def test_what_hangs_on_a_part_and_what_hangs_on_nothing_are_kept():
    edges = [*CHAIN, (4, 2), (2, 2), (5, 6)]
    assert series_parts(7, edges, 0, 3) == [[0, 5, 6], [1], [2, 4], [3]]


def test_without_a_way_from_input_to_output_there_is_one_part():
    assert series_parts(3, [(0, 1)], 0, 2) == [[0, 1, 2]]
    assert series_parts(1, [], 0, 0) == [[0]]


def test_an_edge_against_the_flow_is_no_place_to_break():
    assert series_parts(3, [(0, 1), (2, 1)], 0, 2) == [[0], [1, 2]]


def test_rows_are_filled_up_to_their_width():
    def width(part):
        return 10.0 * len(part)

    assert break_rows(4, CHAIN, 0, 3, width, 20.0) == [[0, 1], [2, 3]]
    assert break_rows(4, CHAIN, 0, 3, width, 100.0) == [[0, 1, 2, 3]]
    assert break_rows(6, DIAMOND, 0, 5, width, 15.0) == [[0], [1, 2, 3, 4], [5]]
