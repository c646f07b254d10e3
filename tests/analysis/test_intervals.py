import numpy as np
import pytest

from elenas_jax.analysis.intervals import half_width


def test_intervals_of_few_seeds_are_wide():
    # Quantiles of Student's t at 97.5% with 1, 4 and 49 degrees of freedom.
    for values, quantile in (([1.0, 3.0], 12.7062), (range(5), 2.7764), (range(50), 2.0096)):
        array = np.array(values, float)
        expected = quantile * array.std(ddof=1) / np.sqrt(len(array))
        assert half_width(array) == pytest.approx(expected, rel=1e-4)
    assert half_width(np.ones((3, 2))).tolist() == [0.0, 0.0]


def test_so_many_intervals_hold_the_mean():
    draws = np.random.default_rng(0).normal(size=(5, 20_000))
    assert np.mean(np.abs(draws.mean(axis=0)) <= half_width(draws)) == pytest.approx(0.95, abs=0.01)
