"""Ragged series to arrays: scale, padding, cutting, holding out, classes."""

import numpy as np
import pytest

from elenas_jax.tasks.records import DataError
from elenas_jax.tasks.sequences import (
    LARGEST,
    Scale,
    check_classes,
    hold_out,
    measure_scale,
    one_hot,
    stack,
    standardise,
)

NAN = float("nan")


def test_scale_is_over_all_steps_and_leaves_nan_out():
    series = [np.array([[1.0, 5.0], [3.0, NAN]]), np.array([[5.0, 9.0]])]
    scale = measure_scale(series)
    np.testing.assert_allclose(scale.mean, [3.0, 7.0])
    np.testing.assert_allclose(scale.deviation, [np.sqrt(8 / 3), 2.0])


def test_constant_and_missing_features_become_zero():
    series = [np.full((5, 2), 0.1)]
    series[0][:, 1] = NAN
    assert not stack(series, 5, measure_scale(series)).any()


def test_standardised_values_are_finite():
    scale = Scale(np.array([1.0]), np.array([0.5]))
    values = standardise(np.array([[2.0], [NAN], [3e38], [-3e38]]), scale)
    np.testing.assert_allclose(values, [[2.0], [0.0], [LARGEST], [-LARGEST]], rtol=1e-6)
    assert values.dtype == np.float32


def test_stack_pads_at_the_front_and_keeps_the_last_steps():
    scale = measure_scale([np.array([[1.0], [3.0]])])  # mean 2, deviation 1
    values = stack([np.array([[4.0]]), np.array([[7.0], [8.0], [9.0], [NAN]])], 3, scale)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[..., 0], [[0, 0, 2], [6, 7, 0]])


def test_hold_out_is_stratified_and_the_same_again():
    classes = np.array(["a"] * 20 + ["b"] * 10 + ["c"] * 2 + ["d"])
    held_out = hold_out(classes, 0.2)
    assert {name: int(held_out[classes == name].sum()) for name in "abcd"} == {"a": 4, "b": 2, "c": 1, "d": 0}
    np.testing.assert_array_equal(held_out, hold_out(classes, 0.2))
    assert not hold_out(np.array([0]), 0.2).any()


def test_hold_out_leaves_one_of_each_class():
    assert hold_out(np.zeros(3, int), 0.99).sum() == 2


def test_one_hot():
    np.testing.assert_array_equal(one_hot(["b", "a"], ["a", "b", "c"]), [[0, 1, 0], [1, 0, 0]])


def test_classes_are_checked():
    check_classes("f", ["a", "b"], {"valid": ["b"]})
    with pytest.raises(DataError, match=r"^f: label 'x' is in valid, but not in train\.$"):
        check_classes("f", ["a", "b"], {"train": ["a"], "valid": ["a", "x"]})
    with pytest.raises(DataError, match=r"^f: all labels of train are 'a'; there must be two classes\.$"):
        check_classes("f", ["a"], {})
