"""Losses of tasks, and when a prediction counts as right."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

TOLERANCE = 0.04  # Aichberger and Klambauer (2023): a number within it counts as right


class Loss(NamedTuple):
    """What is minimised, and the share of examples that is reported.

    All take outputs and targets `[N, O]`. NaN is never right.
    """

    loss_fn: Callable[[jax.Array, jax.Array], jax.Array]  # -> [N] float32
    gradient_fn: Callable[[jax.Array, jax.Array], jax.Array]  # -> [N, O], of an example's loss by its outputs
    right_fn: Callable[[jax.Array, jax.Array], jax.Array]  # -> [N] bool


def _binary_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    # As optax.sigmoid_binary_cross_entropy, to 1e-7, in a third of the kernels to compile.
    softplus = jnp.maximum(logits, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(logits)))
    return jnp.mean(softplus - logits * targets, axis=-1)


def _binary_gradient(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return (jax.nn.sigmoid(logits) - targets) / logits.shape[-1]


def _binary_right(logits: jax.Array, targets: jax.Array) -> jax.Array:
    agree = ((logits > 0) == (targets > 0.5)) & ~jnp.isnan(logits)
    return jnp.all(agree, axis=-1)


def _squared_loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(outputs - targets), axis=-1)


def _squared_gradient(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return 2.0 * (outputs - targets) / outputs.shape[-1]


def _squared_right(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.all(jnp.abs(outputs - targets) <= TOLERANCE, axis=-1)


def _categorical_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy(logits, targets)


def _categorical_gradient(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits) - targets


def _categorical_right(logits: jax.Array, targets: jax.Array) -> jax.Array:
    agree = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
    return agree & ~jnp.any(jnp.isnan(logits), axis=-1)


LOSSES = {
    "binary": Loss(_binary_loss, _binary_gradient, _binary_right),  # targets 0 or 1
    "categorical": Loss(_categorical_loss, _categorical_gradient, _categorical_right),  # targets one-hot
    "squared": Loss(_squared_loss, _squared_gradient, _squared_right),
}
