"""The operations of einspace as functions on arrays: what they start with, and what they compute.

Source: Ericsson et al. (2024), and its public code for what the paper leaves open. Values are [N, C, H, W]
in the image mode and [N, S, D] in the column mode, float32; weights start as PyTorch's do. Shapes come from
the typed derivation. An operation with weights is a `Layer`; how a network is put together from them is
`einspace_network`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.ops.fundamental import FundamentalOperation
from elenas_jax.ops.fundamental_shapes import IMAGE, Shape
from elenas_jax.spaces.einspace_convolution import convolve, unfold
from elenas_jax.spaces.einspace_typing import Typed
from elenas_jax.types import Array, PyTree

EPSILON = 1e-5
MOMENTUM = 0.1  # of new batch statistics
SLOPE = 0.01
NOTHING = ()  # params or state of what has none


@dataclasses.dataclass(frozen=True)
class Initial:
    """An array before it is drawn: uniform in [-scale, scale], normal of that deviation, or all `scale`."""

    shape: Shape
    draw: Literal["uniform", "normal", "constant"]
    scale: float


class Layer(NamedTuple):
    """A part of a network.

    params, state: pytrees of `Initial`; `NOTHING` where there is none.
    apply: params, state, `[N, ...]` inputs, whether training -> outputs, state.
    """

    params: PyTree
    state: PyTree
    apply: Callable[[PyTree, PyTree, Array, bool], tuple[Array, PyTree]]


def initialise(key: jax.Array, initials: PyTree) -> PyTree:
    """Draws arrays for a pytree of `Initial`."""
    leaves, structure = jax.tree.flatten(initials)
    # One draw for all of a kind: a program of a hundred draws takes seconds to compile.
    drawn: dict[str, Array] = {}
    for place, (kind, draw) in enumerate((("uniform", _uniform), ("normal", jax.random.normal))):
        size = sum(math.prod(leaf.shape) for leaf in leaves if leaf.draw == kind)
        drawn[kind] = draw(jax.random.fold_in(key, place), (size,)) if size else jnp.zeros(0)
    taken = dict.fromkeys(drawn, 0)
    values = []
    for leaf in leaves:
        if leaf.draw == "constant":
            values.append(jnp.full(leaf.shape, leaf.scale, jnp.float32))
            continue
        begin, end = taken[leaf.draw], taken[leaf.draw] + math.prod(leaf.shape)
        values.append(leaf.scale * jnp.reshape(drawn[leaf.draw][begin:end], leaf.shape))
        taken[leaf.draw] = end
    return jax.tree.unflatten(structure, values)


def _uniform(key: jax.Array, shape: Shape) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0)


def linear_initials(inputs: int, outputs: int) -> dict[str, Initial]:
    """Returns the weights of a linear layer or a convolution that sums over `inputs` numbers."""
    bound = 1 / math.sqrt(inputs)
    return {
        "kernel": Initial((inputs, outputs), "uniform", bound),
        "bias": Initial((outputs,), "uniform", bound),
    }


def linear_layer(inputs: int, outputs: int) -> Layer:
    """A linear map of the last axis."""

    def apply(params, state, values, train):
        return jnp.dot(values, params["kernel"]) + params["bias"], state

    return Layer(linear_initials(inputs, outputs), NOTHING, apply)


def convolution_layer(unfolding: Typed, linear: Typed, *, as_image: bool, stacked: bool) -> Layer:
    """An unfolding, a linear layer and, `as_image`, a folding as one convolution with the same weights."""
    assert unfolding.op is not None
    kernel, stride, padding = unfolding.op.values
    inputs, outputs = unfolding.after.shape[1], linear.after.shape[1]

    def apply(params, state, values, train):
        sizes, padded = (kernel, kernel), ((padding, padding), (padding, padding))
        image = convolve(values, params["kernel"], sizes, stride, padded, stacked)
        image = image + params["bias"][:, None, None]
        return image if as_image else _as_tokens(image), state

    return Layer(linear_initials(inputs, outputs), NOTHING, apply)


def leaf_layer(typed: Typed, *, stacked: bool = False) -> Layer:
    """Returns an operation with one input as a layer.

    Args:
      typed: a leaf that neither branches nor merges.
      stacked: whether there is one for each copy of a branch.
    """
    operation = typed.op
    assert operation is not None
    before, after = typed.before.shape, typed.after.shape
    if operation.kind in ("linear", "relative_linear"):
        return linear_layer(before[-1], after[-1])
    if operation.kind == "conv1d":
        return _conv1d_layer(operation.values[0], before[0], after[0], stacked)
    if operation.kind == "norm":
        return _batch_norm_layer(before[0]) if typed.before.mode == IMAGE else _layer_norm_layer(before[-1])
    if operation.kind == "positional_encoding":
        return _positional_encoding_layer(before)
    function = _FUNCTIONS[operation.kind]

    def apply(params, state, values, train):
        return function(values, operation.values, typed), state

    return Layer(NOTHING, NOTHING, apply)


def _conv1d_layer(kernel: int, inputs: int, outputs: int, stacked: bool) -> Layer:
    # An even kernel is centred with one zero more behind.
    padding = (((kernel - 1) // 2, kernel // 2),)

    def apply(params, state, values, train):
        result = convolve(values, params["kernel"], (kernel,), 1, padding, stacked)
        return result + params["bias"][:, None], state

    return Layer(linear_initials(inputs * kernel, outputs), NOTHING, apply)


def _batch_norm_layer(channels: int) -> Layer:
    """Normalises channels by the batch in training, by running statistics otherwise."""

    def apply(params, state, values, train):
        mean, variance = state["mean"], state["variance"]
        if train:
            axes = (0, 2, 3)
            mean = jnp.mean(values, axes)
            variance = jnp.mean(jnp.square(values - mean[:, None, None]), axes)
            count = values.size // channels
            unbiased = variance * (count / max(count - 1, 1))
            new = {"mean": mean, "variance": unbiased}
            state = jax.tree.map(lambda old, new: old + MOMENTUM * (new - old), state, new)
        scale = params["scale"] * jax.lax.rsqrt(variance + EPSILON)
        return (values - mean[:, None, None]) * scale[:, None, None] + params["bias"][:, None, None], state

    one, zero = Initial((channels,), "constant", 1.0), Initial((channels,), "constant", 0.0)
    return Layer({"scale": one, "bias": zero}, {"mean": zero, "variance": one}, apply)


def _layer_norm_layer(features: int) -> Layer:
    def apply(params, state, values, train):
        centred = values - jnp.mean(values, -1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + EPSILON) * params["scale"] + params["bias"], state

    one, zero = Initial((features,), "constant", 1.0), Initial((features,), "constant", 0.0)
    return Layer({"scale": one, "bias": zero}, NOTHING, apply)


def _positional_encoding_layer(shape: Shape) -> Layer:
    def apply(params, state, values, train):
        return values + params["encoding"], state

    return Layer({"encoding": Initial(shape, "normal", 1.0)}, NOTHING, apply)


def _permute(values: Array, order: Shape, _typed: Typed) -> Array:
    return jnp.transpose(values, (0, *order))


def _im2col(values: Array, window: Shape, typed: Typed) -> Array:
    kernel, stride, padding = window
    patches = unfold(values, (kernel, kernel), stride, ((padding, padding), (padding, padding)))
    # Channels first within a patch, then rows.
    return jnp.reshape(jnp.transpose(patches, (0, 1, 2, 5, 4, 3)), (-1, *typed.after.shape))


def _as_tokens(image: Array) -> Array:
    return jnp.moveaxis(jnp.reshape(image, (*image.shape[:2], -1)), 1, 2)


def _col2im(values: Array, _values: Shape, typed: Typed) -> Array:
    return jnp.reshape(jnp.moveaxis(values, 1, 2), (-1, *typed.after.shape))


def _max_pool(values: Array, window: Shape, _typed: Typed) -> Array:
    kernel, stride, padding = window
    return jax.lax.reduce_window(
        values,
        -jnp.inf,
        jax.lax.max,
        (1, 1, kernel, kernel),
        (1, 1, stride, stride),
        ((0, 0), (0, 0), (padding, padding), (padding, padding)),
    )


_FUNCTIONS: dict[str, Callable[[Array, Shape, Typed], Array]] = {
    "identity": lambda values, _values, _typed: values,
    "permute": _permute,
    "im2col": _im2col,
    "col2im": _col2im,
    "leaky_relu": lambda values, _values, _typed: jnp.where(values > 0, values, SLOPE * values),
    "softmax": lambda values, _values, _typed: jax.nn.softmax(values, axis=-1),
    "max_pool": _max_pool,
}


def split(operation: FundamentalOperation, values: Array) -> list[Array]:
    """Returns the inputs of the branches that an operation makes."""
    if operation.kind == "clone":
        return [values] * operation.num_branches
    axis, parts = operation.values
    return jnp.split(values, parts, axis=axis)


def split_stacked(operation: FundamentalOperation, values: Array) -> tuple[Array, int | None]:
    """Returns the same as one array and its axis of branches; None if they have the same input."""
    if operation.kind == "clone":
        return values, None
    axis, parts = operation.values
    shape = (*values.shape[:axis], parts, values.shape[axis] // parts, *values.shape[axis + 1 :])
    return jnp.reshape(values, shape), axis


def merge(operation: FundamentalOperation, branches: Sequence[Array]) -> Array:
    """Joins the outputs of branches."""
    if operation.kind == "add":
        return sum(branches[1:], start=branches[0])
    if operation.kind == "concat":
        return jnp.concatenate(branches, axis=operation.values[0])
    left, right = branches
    product = jnp.matmul(left, right)
    return product / math.sqrt(left.shape[-1]) if operation.kind == "scaled_matmul" else product


def merge_stacked(operation: FundamentalOperation, branches: Array) -> Array:
    """Joins the outputs of branches along the first axis of an array: by a sum or a concatenation."""
    if operation.kind == "add":
        return jnp.sum(branches, axis=0)
    axis = operation.values[0]
    moved: Any = jnp.moveaxis(branches, 0, axis)
    shape = (*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
    return jnp.reshape(moved, shape)
