"""Losses against formulas, and what counts as right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.tasks import LOSSES

NAN = float("nan")


def test_binary():
    logits, targets = jnp.array([[2.0], [-1.0], [0.5]]), jnp.array([[1.0], [1.0], [0.0]])
    chance = 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))
    expected = -np.log([chance[0], chance[1], 1 - chance[2]])
    np.testing.assert_allclose(LOSSES["binary"].loss_fn(logits, targets), expected, rtol=1e-5)
    np.testing.assert_array_equal(LOSSES["binary"].right_fn(logits, targets), [True, False, False])


def test_a_constant_logit_is_right_for_one_class():
    targets = jnp.array([[1.0], [0.0]])
    for constant in (-1.0, 0.0, 1.0):
        assert np.sum(LOSSES["binary"].right_fn(jnp.full((2, 1), constant), targets)) == 1


def test_squared():
    outputs, targets = jnp.array([[0.5], [0.5], [0.5]]), jnp.array([[0.53], [0.55], [0.46]])
    np.testing.assert_allclose(
        LOSSES["squared"].loss_fn(outputs, targets), [0.0009, 0.0025, 0.0016], rtol=1e-3
    )
    np.testing.assert_array_equal(LOSSES["squared"].right_fn(outputs, targets)[:2], [True, False])


def test_categorical():
    logits, targets = jnp.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]]), jnp.array([[0.0, 1, 0], [1, 0, 0]])
    expected = np.log(np.exp([1.0, 2.0, 0.0]).sum()) - np.array([2.0, 1.0])
    np.testing.assert_allclose(LOSSES["categorical"].loss_fn(logits, targets), expected, rtol=1e-5)
    np.testing.assert_array_equal(LOSSES["categorical"].right_fn(logits, targets), [True, False])


def test_a_hundred_classes():
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(scale=3.0, size=(8, 100)), rng.integers(100, size=8)
    targets = np.eye(100, dtype=np.float32)[classes]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(8), classes]
    np.testing.assert_allclose(LOSSES["categorical"].loss_fn(logits, targets), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        LOSSES["categorical"].right_fn(logits, targets), logits.argmax(1) == classes
    )


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_and_nan(name):
    outputs, targets = jnp.full((4, 2), NAN), jnp.array([[1.0, 0.0]] * 4)
    assert LOSSES[name].loss_fn(outputs, targets).shape == (4,)
    right = LOSSES[name].right_fn(outputs, targets)
    assert right.shape == (4,) and right.dtype == bool and not right.any()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_hand_are_those_of_the_loss(name):
    rng = np.random.default_rng(0)
    outputs = rng.normal(scale=4.0, size=(16, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[rng.integers(3, size=16)]
    loss = LOSSES[name]
    expected = jax.grad(lambda outputs: jnp.sum(loss.loss_fn(outputs, targets)))(outputs)
    np.testing.assert_allclose(loss.gradient_fn(outputs, targets), expected, rtol=1e-5, atol=1e-6)


def test_binary_is_stable_far_from_zero():
    logits, targets = jnp.array([[90.0], [-90.0], [90.0]]), jnp.array([[1.0], [0.0], [0.0]])
    np.testing.assert_allclose(LOSSES["binary"].loss_fn(logits, targets), [0, 0, 90.0], atol=1e-6)
    np.testing.assert_allclose(LOSSES["binary"].gradient_fn(logits, targets)[:, 0], [0, 0, 1.0], atol=1e-6)
