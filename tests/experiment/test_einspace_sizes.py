import pytest

from elenas_jax.experiment.einspace_sizes import (
    PUBLISHED,
    SHARE_COLUMNS,
    SIZE_COLUMNS,
    draw_architectures,
    share_rows,
    size_rows,
)
from elenas_jax.spaces.einspace_statistics import distribution_of, size_of


def drawn(num=100, **settings):
    settings = {"rules": "strict", "seed": 0} | settings
    return list(draw_architectures(0.7, num, (3, 16, 16), **settings))


def test_a_seed_gives_its_architectures_again():
    first, again, other = drawn(), drawn(), drawn(seed=1)
    assert first == again != other
    assert drawn(num=40) == first[:40]


def test_the_limit_of_nodes_is_kept():
    assert max(size_of(typed).depth for typed in drawn(max_nodes=9)) <= 4
    assert max(size_of(typed).terminals for typed in drawn()) > 20


def test_published_sizes_stand_below_those_drawn():
    found = distribution_of(drawn(rules="compat"))
    rows = size_rows([(0.7, found), (0.75, found)])
    assert [row[:2] for row in rows] == [("0.7", "drawn"), ("0.7", "published"), ("0.75", "drawn")]
    assert rows[1][2:4] == ("6.72", "4") and rows[0][2] == f"{found.mean_terminals:,.2f}"
    assert rows[0][-1] == f"{found.invalid:.1%}"
    assert {len(row) for row in rows} == {len(SIZE_COLUMNS)}
    (row,) = share_rows([(0.7, found)])
    assert len(row) == len(SHARE_COLUMNS)
    roots = sum(float(row[SHARE_COLUMNS.index(name)][:-1]) for name in ("branching", "routing"))
    assert roots + float(row[8][:-1]) == pytest.approx(100, abs=0.3)


def test_published_rows_are_those_of_the_table():
    assert sorted(PUBLISHED) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
