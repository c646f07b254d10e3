"""Metrics against slow references, and what they make of NaN."""

import numpy as np
import pytest

from elenas_jax.tasks.metrics import METRICS, accuracy, perplexity, r2, roc_auc

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
