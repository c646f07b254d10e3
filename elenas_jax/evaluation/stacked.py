"""Deep networks of one block: an input layer, the block some times over, an output layer.

What searches find is small; what is used on real data are stacks of it. Tokens are embedded, features go
through a dense layer, so that every block sees and hands on `width` numbers a step. A classifier reads the
last step, where sequences end, as they are padded at the front, or the mean or maximum of all steps but those
of the padding; of text every step predicts the next word.

What a block hands on is normalised too: many of those that are found only add up, and grow without end on a
long text. Where blocks add to what they read, that norm begins at 0.1, the size of an embedding, so that a
block begins as a small change (as in LayerScale, Touvron et al. 2021). Padding reads as zeros in every block.

Initial nodes are drawn from N(0, (0.8 / sqrt(width))^2), which is the search's N(0, 0.1^2) at width 64 and
keeps the size of a product at other widths: a departure from Aichberger and Klambauer (2023), appendix D.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph
from elenas_jax.graphs.layer import Layer, make_layer
from elenas_jax.types import Network

POOLS = ("last", "mean", "max")
# Of what is computed for equal settings: folders and results of another one are told from those of this.
VERSION = 2


class Stacking(NamedTuple):
    """How blocks are stacked."""

    depth: int = 1
    width: int = 64
    dropout: float = 0.0  # of what the input layer and each block hand on
    norm: bool = False  # layer norm of what each block reads and hands on, and of what the output layer reads
    residual: bool = False  # each block adds to what it reads
    pool: str = "last"  # one of POOLS: the steps that a classifier reads; nothing to text


class Interface(NamedTuple):
    """What a stack is connected to."""

    is_tokens: bool
    in_features: int  # of features; of tokens the number of different ones
    out_features: int
    time_steps: int
    every_step: bool  # whether the output of every step is wanted, else the last one's


def make_stack(graph: ComputationGraph, stacking: Stacking, interface: Interface) -> Network:
    """Makes the network; host only.

    `apply` takes `[N, T]` tokens or `[N, T, F]` features and the states of its blocks (a tuple of `{}`
    where a sequence begins), and returns `[N, T, O]` or `[N, O]` outputs and the states after the last step.

    Raises:
      ValueError: for a block that cannot be a layer of this width, with the reason.
    """
    layer = make_layer(graph, stacking.width, interface.time_steps)

    def init(key: jax.Array) -> tuple[dict[str, Any], tuple]:
        key_in, key_out, *keys = jax.random.split(key, 2 + stacking.depth)
        width, scale = stacking.width, 0.8 / math.sqrt(stacking.width)
        if interface.is_tokens:
            first = {"embedding": 0.1 * jax.random.normal(key_in, (interface.in_features, width))}
        else:
            first = _init_dense(key_in, interface.in_features, width)
        params: dict[str, Any] = {
            "input": first,
            "output": _init_dense(key_out, width, interface.out_features),
        }
        for place, each in enumerate(keys):
            params[f"block_{place}"] = _init_block(each, layer, scale)
            if stacking.norm:
                params[f"norm_{place}"] = _init_norm(width)
                params[f"norm_after_{place}"] = _init_norm(width, scale=0.1 if stacking.residual else 1.0)
        if stacking.norm:
            params["norm"] = _init_norm(width)
        return params, tuple({} for _ in range(stacking.depth))

    def apply(params, state, inputs, *, train: bool = False, key: jax.Array | None = None):
        if interface.is_tokens:
            # Token 0 is padding, and as zero as padded features are.
            known = params["input"]["embedding"][inputs.T]
            x = jnp.where(inputs.T[..., None] == 0, 0.0, known) if not interface.every_step else known
        else:
            x = _dense(params["input"], jnp.swapaxes(inputs, 0, 1))
        keys = None
        if train and stacking.dropout > 0 and key is not None:
            keys = iter(jax.random.split(key, stacking.depth + 1))
        x = _drop(x, stacking.dropout, keys)
        begun = _begun(inputs)
        states = []
        for place in range(stacking.depth):
            read = _norm(params[f"norm_{place}"], x) if stacking.norm else x
            read = read if interface.every_step else jnp.where(begun, read, 0.0)
            y, after = layer.apply(params[f"block_{place}"], read, state[place])
            y = _norm(params[f"norm_after_{place}"], y) if stacking.norm else y
            y = _drop(y, stacking.dropout, keys)
            x = x + y if stacking.residual else y
            states.append(after)
        x = jnp.swapaxes(x, 0, 1) if interface.every_step else _pool(stacking.pool, x, begun)
        x = _norm(params["norm"], x) if stacking.norm else x
        return _dense(params["output"], x), tuple(states)

    return Network(init, apply)


def _begun(inputs: jax.Array) -> jax.Array:
    """Returns `[T, N, 1]`, whether sequences have begun: zeros before the first that is none are padding.

    Where there is nothing but zeros nothing is padding. Features that are all 0 in the first steps (numbers
    that are missing are 0, for one) cannot be told from it.

    Args:
      inputs: `[N, T]` tokens or `[N, T, F]` features.
    """
    is_known = (inputs != 0).reshape(*inputs.shape[:2], -1).any(-1)
    begun = jnp.cumsum(is_known, axis=1) > 0
    return (begun | ~begun[:, -1:]).T[..., None]


def _pool(kind: str, x: jax.Array, begun: jax.Array) -> jax.Array:
    """Pools `[T, N, W]` over time to `[N, W]`, from where sequences begin.

    Args:
      kind: one of POOLS.
      x: what the last block hands on.
      begun: from `_begun`.
    """
    if kind == "last":
        return x[-1]
    if kind == "mean":
        return jnp.sum(jnp.where(begun, x, 0.0), axis=0) / jnp.sum(begun, axis=0)
    return jnp.max(jnp.where(begun, x, -jnp.inf), axis=0)


def count_parameters(params: Any) -> int:
    """Returns the number of trainable numbers, input and output layer counted."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def widest(graph: ComputationGraph, stacking: Stacking, interface: Interface, most: int) -> int:
    """Returns the largest width, a multiple of 8, of a stack with at most `most` parameters; at least 8.

    Raises:
      ValueError: if even a width of 8 takes more.
    """

    def parameters(width: int) -> int:
        network = make_stack(graph, stacking._replace(width=width), interface)
        return count_parameters(jax.eval_shape(network.init, jax.random.key(0))[0])

    if parameters(8) > most:
        raise ValueError(f"Even a width of 8 takes {parameters(8):,} parameters; allowed are {most:,}.")
    # Their number is a polynomial of the width, so three widths tell it; a width that is the length of
    # sequences by chance may be an exception.
    sizes = (40, 48, 56)
    number = np.poly1d(np.round(np.polyfit(sizes, [parameters(size) for size in sizes], 2), 6))
    width = 8
    while number(width + 8) <= most:
        width += 8
    while parameters(width) > most:
        width -= 8
    return width


def _init_dense(key: jax.Array, fan_in: int, fan_out: int) -> dict[str, jax.Array]:
    kernel = jax.nn.initializers.lecun_normal()(key, (fan_in, fan_out))
    return {"kernel": kernel, "bias": jnp.zeros(fan_out)}


def _dense(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"]


def _init_block(key: jax.Array, layer: Layer, scale: float) -> dict[str, jax.Array]:
    keys = jax.random.split(key, len(layer.parameters))
    pairs = zip(keys, layer.parameters.items(), strict=True)
    return {name: scale * jax.random.normal(each, shape) for each, (name, shape) in pairs}


def _init_norm(width: int, scale: float = 1.0) -> dict[str, jax.Array]:
    return {"scale": jnp.full(width, scale, jnp.float32), "bias": jnp.zeros(width)}


def _norm(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    # jax.nn.standardize takes a difference of squares, which has no digits left for large values of a small
    # spread, as a block that adds up has them.
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-6) * params["scale"] + params["bias"]


def _drop(x: jax.Array, rate: float, keys) -> jax.Array:
    if keys is None:
        return x
    kept = jax.random.bernoulli(next(keys), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0)
