import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenas_jax.analysis.layout import Layout, Size, layered_layout


@st.composite
def graphs(draw):
    num = draw(st.integers(1, 40))
    nodes = st.integers(0, num - 1)
    edges = draw(st.lists(st.tuples(nodes, nodes), max_size=2 * num))
    delayed = draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))
    numbers = random.Random(draw(st.integers(0, 1000)))
    sizes = [
        Size(
            numbers.choice((30, 60, 140)),
            numbers.choice((20, 36)),
            above=numbers.choice((0, 0, 45)),
            below=numbers.choice((0, 0, 45)),
            room=numbers.choice((0, 0, 170)),
        )
        for _ in range(num)
    ]
    return sizes, edges, delayed


def inside(layout: Layout, node: int, x: float, y: float, slack: float = 0.5) -> bool:
    box = layout.boxes[node]
    return box.x + slack < x < box.x + box.width - slack and box.y + slack < y < box.y + box.height - slack


@settings(max_examples=60)
@given(graphs())
def test_boxes_and_what_hangs_on_them_never_overlap(graph):
    sizes, edges, delayed = graph
    layout = layered_layout(sizes, edges, delayed, first=[0])
    rooms = []
    for box, size in zip(layout.boxes, sizes):
        middle = box.x + box.width / 2
        half = max(size.width, size.room) / 2
        rooms.append((middle - half, box.y - size.above, middle + half, box.y + box.height + size.below))
    for (a0, b0, a1, b1), (c0, d0, c1, d1) in itertools.combinations(rooms, 2):
        assert a1 <= c0 + 1e-6 or c1 <= a0 + 1e-6 or b1 <= d0 + 1e-6 or d1 <= b0 + 1e-6
    for x0, y0, x1, y1 in rooms:
        assert x0 >= -1e-6 and y0 >= -1e-6 and x1 <= layout.width + 1e-6 and y1 <= layout.height + 1e-6


@settings(max_examples=60)
@given(graphs())
def test_every_edge_runs_from_its_source_to_its_target_and_through_no_other_box(graph):
    sizes, edges, delayed = graph
    layout = layered_layout(sizes, edges, delayed)
    assert len(layout.routes) == len(edges)
    for (source, target), route in zip(edges, layout.routes):
        if source == target:
            assert route == ()
            continue
        assert len(route) >= 4 and len(route) % 2 == 0
        for node, (x, y) in ((source, route[0]), (target, route[-1])):
            box = layout.boxes[node]
            assert x in (pytest.approx(box.x), pytest.approx(box.x + box.width))
            assert box.y < y < box.y + box.height
        for start, end in itertools.pairwise(route):  # curves stay between layers, where no boxes are
            for part in range(9):
                x = start[0] + (end[0] - start[0]) * part / 8
                y = start[1] + (end[1] - start[1]) * part / 8
                assert not any(inside(layout, node, x, y) for node in range(len(sizes)))


@settings(max_examples=40)
@given(graphs())
def test_ends_of_edges_at_a_box_are_apart(graph):
    sizes, edges, delayed = graph
    layout = layered_layout(sizes, edges, delayed)
    ends = [end for route in layout.routes if route for end in (route[0], route[-1])]
    rounded = [(round(x, 3), round(y, 3)) for x, y in ends]
    assert len(set(rounded)) == len(rounded)


def test_time_runs_to_the_right_and_memory_to_the_left():
    sizes = [Size(40, 30)] * 4
    edges = [(0, 1), (1, 2), (2, 3), (3, 1)]
    layout = layered_layout(sizes, edges, [False, False, False, True], first=[0], last=[3])
    assert layout.layers == (0, 1, 2, 3)
    assert layout.routes[3][0][0] > layout.routes[3][-1][0]


def test_a_cycle_without_a_delayed_edge_is_laid_out_too():
    layout = layered_layout([Size(40, 30)] * 3, [(0, 1), (1, 2), (2, 0)], [False] * 3)
    assert sorted(layout.layers) == [0, 1, 2]


def test_a_chain_is_straight():
    layout = layered_layout([Size(40, 30)] * 5, list(itertools.pairwise(range(5))), [False] * 4)
    assert len({round(y, 6) for route in layout.routes for _, y in route}) == 1


def test_no_nodes():
    assert layered_layout([], [], []) == Layout((), (), (), 0.0, 0.0)


def test_the_same_graph_gives_the_same_layout():
    numbers = random.Random(3)
    edges = [(numbers.randrange(30), numbers.randrange(30)) for _ in range(60)]
    first = layered_layout([Size(40, 30)] * 30, edges, [False] * 60)
    assert first == layered_layout([Size(40, 30)] * 30, edges, [False] * 60)
