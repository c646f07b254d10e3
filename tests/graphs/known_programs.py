"""Programs of the known blocks, in few shapes so that tests compile little."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import (
    Program,
    construct,
    explain,
    init_params,
    interpret,
    is_recurrent,
    pad_graph,
    specialise,
    unpack_params,
)
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS

NAMES = tuple(KNOWN_BLOCKS)
IN, HIDDEN, OUT, EXAMPLES, STEPS = 3, 5, 2, 4, 6
WIDTHS: dict[str, Any] = {"in_features": IN, "hidden_features": HIDDEN, "out_features": OUT}

# Blocks of a group are alike in padding and layout: (nodes, names).
_GROUPS = (
    (32, ("elman", "lstm", "mgu", "gru", "elena1", "elena2")),
    (32, ("linear_attention", "softmax_attention")),
    (110, ("enas", "darts")),
)
compiled_construct = jax.jit(
    construct, static_argnames=("in_features", "out_features", "hidden_features", "head", "time_steps")
)
compiled_interpret = jax.jit(interpret)  # the program is an argument: blocks of a group share a compilation


@functools.cache
def build(name: str, head: str) -> Program:
    """Constructs a known block."""
    num_nodes, group = next(group for group in _GROUPS if name in group[1])
    programs = []
    for member in group:
        program = compiled_construct(pad_graph(KNOWN_BLOCKS[member], num_nodes), head=head, **WIDTHS)
        assert explain(program.status) == "valid"
        assert is_recurrent(program) == (not member.endswith("attention"))
        programs.append(jax.device_get(program))
    together = specialise(jax.tree.map(lambda *fields: np.stack(fields), *programs))
    return jax.tree.map(lambda field: field[group.index(name)], together)


def draw_params(program: Program, rng: np.random.Generator) -> dict:
    """Draws parameters by node, large enough to see differences."""
    shapes = unpack_params(program, init_params(jax.random.key(0), program))
    return {node: rng.normal(0.0, 0.5, value.shape).astype(np.float32) for node, value in shapes.items()}


def values_and_gradients(apply, params, inputs, cotangent):
    """Returns outputs, and the gradients of the sum of outputs * cotangent."""
    outputs, pullback = jax.vjp(apply, params, inputs)
    return outputs, *pullback(jnp.asarray(cotangent))


@jax.jit
def interpret_with_gradients(program, params, inputs, cotangent):
    """The same for a program."""
    return values_and_gradients(functools.partial(interpret, program), params, inputs, cotangent)
