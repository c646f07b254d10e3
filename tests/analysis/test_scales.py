import numpy as np
import pytest

from elenas_jax.analysis.scales import (
    Scale,
    linear_range,
    linear_ticks,
    log_range,
    log_ticks,
    tick_labels,
)


def test_scales_map_ends_to_ends():
    scale = Scale(2.0, 4.0, 100.0, 0.0)
    assert [scale(value) for value in (2, 3, 4)] == [100, 50, 0]
    scale = Scale(10.0, 1000.0, 0.0, 100.0, is_log=True)
    assert [scale(value) for value in (10, 100, 1000)] == pytest.approx([0, 50, 100])


@pytest.mark.parametrize(
    "values",
    ([], [0.0], [5.0], [-3.0, -3.0], [1e-9, 2e-9], [-2.0, 7.0], [np.nan, 1.0, np.inf], [1e15, 1e15 + 1]),
)
def test_ranges_hold_all_values_and_are_never_empty(values):
    finite = [value for value in values if np.isfinite(value)]
    for with_zero in (False, True):
        low, high = linear_range(np.array(values), with_zero)
        assert low < high and all(low <= value <= high for value in finite)
        assert not with_zero or low <= 0 <= high
        ticks = linear_ticks(low, high, 6)
        assert len(ticks) <= 6 and all(low - 1e-6 <= tick <= high * (1 + 1e-9) + 1e-6 for tick in ticks)
    low, high = log_range(np.array(values))
    assert 0 < low < high and all(low <= value <= high for value in finite if value > 0)


def test_a_range_from_zero_begins_at_zero():
    assert linear_range(np.array([0.2, 1.0]), with_zero=True)[0] == 0.0
    assert linear_range(np.array([-1.0, -0.2]), with_zero=True)[1] == 0.0


@pytest.mark.parametrize(
    ("ends", "most", "expected"),
    [
        ((0, 1), 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((0.013, 0.047), 5, [0.02, 0.03, 0.04]),
        ((-0.5, 0.5), 5, [-0.4, -0.2, 0.0, 0.2, 0.4]),
        ((3, 3), 5, [3]),
    ],
)
def test_ticks_are_round(ends, most, expected):
    assert linear_ticks(*ends, most) == pytest.approx(expected)


def test_ticks_of_generations_are_whole_numbers():
    assert linear_ticks(0, 2, 7, whole=True) == [0, 1, 2]
    assert linear_ticks(4.1, 5.9, 7, whole=True) == [5]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((900, 120_000), [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5]),
        ((1, 1e6), [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
        ((2000, 2100), [2000, 2020, 2040, 2060, 2080, 2100]),
    ],
)
def test_ticks_of_logarithms(ends, expected):
    assert log_ticks(*ends, 7) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([0.0, 0.25, 0.5], ["0", "0.25", "0.50"]),
        ([-1.0, 0.0, 1.0], ["\u22121", "0", "1"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([500, 5_000, 50_000, 1_500_000], ["500", "5k", "50k", "1.5M"]),
        ([1e-6, 2e-6], ["1e-06", "2e-06"]),
        ([], []),
    ],
)
def test_labels(ticks, expected):
    assert tick_labels(ticks) == expected
