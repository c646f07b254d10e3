"""Heads of einspace networks: from what a backbone ends in to a task's outputs.

Source: the public code of Ericsson et al. (2024). Its head of tokens averages their features and
classifies the positions; "token_mean" averages the positions, as transformers do.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from elenas_jax.ops.fundamental_shapes import IMAGE, Shape, mode_of
from elenas_jax.spaces.einspace_layers import NOTHING, Layer, linear_initials
from elenas_jax.types import AnyArray, Array


def make_head(
    in_shape: Shape,
    shape: Shape,
    out_features: int,
    pool: Literal["published", "token_mean"],
    kind: Literal["classes", "dense"],
) -> Layer:
    """Returns the head of a backbone.

    Args:
      in_shape: of the network's input.
      shape: of the backbone's output.
      out_features, pool, kind: as of `einspace_network.make_network`.

    Raises:
      ValueError: if predictions are dense and the input is no image of `out_features` pixels.
    """
    if kind == "classes":
        return _classes(shape, out_features, pool)
    if mode_of(in_shape) != IMAGE or math.prod(in_shape[1:]) != out_features:
        raise ValueError(
            f"Dense predictions are one number for each pixel; the input is {in_shape}, "
            f"out_features is {out_features}."
        )
    return _dense(shape, in_shape[1:])


def _classes(shape: Shape, out_features: int, pool: str) -> Layer:
    """The mean over all axes but one, and a linear layer: `[N, ...] -> [N, out_features]`."""
    kept = 1 if mode_of(shape) != IMAGE and pool == "token_mean" else 0
    axes = tuple(1 + axis for axis in range(len(shape)) if axis != kept)

    def apply(params, state, values, train):
        return jnp.dot(jnp.mean(values, axes), params["kernel"]) + params["bias"], state

    return Layer(linear_initials(shape[kept], out_features), NOTHING, apply)


def _dense(shape: Shape, sizes: Shape) -> Layer:
    """A mix of channels brought to other sizes, or tokens by features as they are: `[N, 1, H, W]`."""
    rows, columns = (pooling(size, wanted) for size, wanted in zip(shape[-2:], sizes, strict=True))

    def resized(values: Array) -> Array:
        return jnp.einsum("ph,qw,nhw->npq", rows, columns, values)[:, None]

    def mixed(params, state, values, train):
        # Means are linear: the channels are mixed first, as that is less work.
        return resized(jnp.einsum("nchw,c->nhw", values, params["kernel"][:, 0])) + params["bias"][0], state

    if mode_of(shape) == IMAGE:
        return Layer(linear_initials(shape[0], 1), NOTHING, mixed)
    return Layer(NOTHING, NOTHING, lambda params, state, values, train: (resized(values), state))


def pooling(size: int, wanted: int) -> AnyArray:
    """Returns `[wanted, size]` weights of means: adaptive average pooling along one axis, up or down."""
    places = np.arange(wanted)[:, None]
    begin, end = places * size // wanted, -(-(places + 1) * size // wanted)
    inside = (np.arange(size) >= begin) & (np.arange(size) < end)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
