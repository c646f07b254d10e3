"""Metrics against slow references, and what they make of NaN."""

import numpy as np
import pytest

from elenas_jax.tasks.metrics import (
    METRICS,
    accuracy,
    macro_f1,
    mean_average_precision,
    one_minus_relative_l2,
    perplexity,
    pixel_r2,
    pixel_roc_auc,
    r2,
    roc_auc,
)

NAN = float("nan")


def pairwise_auc(scores, labels):
    """The chance that a positive is above a negative: every pair, ties count half."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


@pytest.mark.parametrize("num_levels", [2, 5, 1000])
def test_roc_auc_is_that_of_all_pairs(num_levels):
    rng = np.random.default_rng(num_levels)
    outputs = rng.integers(num_levels, size=(40, 4)).astype(np.float32)
    targets = rng.integers(2, size=(40, 4)).astype(np.float32)
    targets[rng.random((40, 4)) < 0.3] = NAN
    expected = np.mean([pairwise_auc(outputs[:, column], targets[:, column]) for column in range(4)])
    np.testing.assert_allclose(roc_auc(outputs, targets), expected, rtol=1e-12)


def test_roc_auc_by_hand():
    outputs = np.array([[0.1], [0.4], [0.35], [0.8]])
    targets = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert roc_auc(outputs, targets) == 0.75
    assert roc_auc(-outputs, targets) == 0.25
    assert roc_auc(np.zeros((4, 1)), targets) == 0.5


def test_roc_auc_leaves_out_columns_without_both_classes():
    outputs = np.array([[1.0, 1.0, 5.0], [0.0, 2.0, 6.0], [3.0, 0.0, 7.0]])
    targets = np.array([[1.0, 1.0, NAN], [0.0, 1.0, NAN], [NAN, NAN, NAN]])
    assert roc_auc(outputs, targets) == 1.0  # of the first column alone
    assert np.isnan(roc_auc(outputs[:, 1:], targets[:, 1:]))


def test_roc_auc_ignores_outputs_where_nothing_was_measured():
    targets = np.array([[1.0], [0.0], [NAN]])
    assert roc_auc(np.array([[2.0], [1.0], [NAN]]), targets) == 1.0
    assert roc_auc(np.array([[2.0], [NAN], [1.0]]), targets) == 0.0


def test_pixels_are_ranked_together():
    outputs = np.array([[0.1, 0.4], [0.35, 0.8]])
    assert pixel_roc_auc(outputs, np.array([[0.0, 0.0], [1.0, 1.0]])) == 0.75
    assert np.isnan(pixel_roc_auc(outputs, np.ones((2, 2))))


@pytest.mark.parametrize("num_levels", [2, 5, 1000])
def test_average_precision_is_that_of_all_positives(num_levels):
    rng = np.random.default_rng(num_levels)
    outputs = rng.integers(num_levels, size=(40, 3)).astype(np.float32)
    targets = (rng.random((40, 3)) < 0.3).astype(np.float64)
    precisions = [
        [targets[outputs[:, c] >= score, c].mean() for score in outputs[targets[:, c] == 1, c]]
        for c in range(3)
    ]
    expected = np.mean([np.mean(each) for each in precisions])
    np.testing.assert_allclose(mean_average_precision(outputs, targets), expected, rtol=1e-12)
    # A column without a positive does not count.
    wider = np.c_[outputs, outputs[:, :1]], np.c_[targets, np.zeros(40)]
    np.testing.assert_allclose(mean_average_precision(*wider), expected, rtol=1e-12)
    assert np.isnan(mean_average_precision(outputs, np.zeros((40, 3))))


def test_average_precision_by_hand():
    outputs = np.array([[0.1], [0.4], [0.35], [0.8]])
    targets = np.array([[0.0], [0.0], [1.0], [1.0]])
    np.testing.assert_allclose(mean_average_precision(outputs, targets), (1 + 2 / 3) / 2)


def test_f1_by_hand():
    targets = np.eye(4)[[0, 0, 1, 2, 2]]  # the class 3 is nowhere
    outputs = np.eye(4)[[0, 1, 1, 1, 2]]
    outputs[4] = NAN
    # 0: one of one predicted, of two. 1: one of three, of one. 2: none predicted, of two.
    np.testing.assert_allclose(macro_f1(outputs, targets), (2 / 3 + 2 / 4 + 0) / 3)
    assert macro_f1(targets, targets) == 1.0


def test_relative_l2_by_hand():
    targets = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])  # the last has no size
    outputs = np.array([[3.0, 3.0], [0.0, 2.0], [9.0, 9.0]])
    np.testing.assert_allclose(one_minus_relative_l2(outputs, targets), 1 - (1 / 5 + 0) / 2)
    assert one_minus_relative_l2(np.zeros((3, 2)), targets) == 0.0
    assert np.isnan(one_minus_relative_l2(outputs[2:], targets[2:]))


def test_pixel_r2_falls_with_the_squared_error():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(5, 12)) + 3.0
    for scale in (0.1, 0.5):
        outputs = targets + scale * rng.normal(size=targets.shape)
        expected = 1 - np.square(outputs - targets).mean() / targets.var()
        np.testing.assert_allclose(pixel_r2(outputs, targets), expected)
    assert abs(pixel_r2(np.full((5, 12), targets.mean()), targets)) < 1e-12
    assert pixel_r2(np.full((5, 12), NAN), targets) == float("-inf")


def test_accuracy():
    targets = np.eye(3)[[0, 1, 2, 2]]
    outputs = np.array([[2.0, 1, 0], [0, 1, 2], [-3, -2, -1], [NAN, 0, 1]])
    assert accuracy(outputs, targets) == 0.5


def test_perplexity():
    np.testing.assert_allclose(perplexity(np.full(7, np.log(50.0))), 50.0)
    np.testing.assert_allclose(perplexity(np.log([2.0, 8.0])), 4.0)
    assert perplexity(np.array(NAN)) == perplexity(np.array(1e6)) == float("inf")


def test_r2():
    targets = np.array([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]])  # the second column is constant
    assert r2(targets, targets) == 1.0
    assert r2(np.full((3, 2), 2.0), targets) == 0.0
    np.testing.assert_allclose(r2(targets[::-1], targets), -3.0)
    assert r2(np.full((3, 2), NAN), targets) == float("-inf")
    assert np.isnan(r2(targets[:, 1:], targets[:, 1:]))


def test_r2_does_not_depend_on_units():
    rng = np.random.default_rng(0)
    targets, noise = rng.normal(size=(2, 30, 2))
    expected = r2(targets + noise, targets)
    scaled = np.array([1e3, 1e-3])
    np.testing.assert_allclose(r2((targets + noise) * scaled + 5, targets * scaled + 5), expected)


@pytest.mark.parametrize("name", METRICS)
def test_better_is_the_side_that_the_table_says(name):
    targets = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    good, bad = (np.array(0.1), np.array(9.0)) if name == "perplexity" else (targets, 1 - targets)
    metric = METRICS[name]
    assert (metric.fn(good, targets) > metric.fn(bad, targets)) == metric.higher_is_better
    nan = metric.fn(np.full((3, 2), NAN), targets)
    assert (nan <= metric.fn(bad, targets)) if metric.higher_is_better else (nan >= metric.fn(bad, targets))
