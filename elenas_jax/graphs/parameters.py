"""Trainable parameters of programs: drawn, packed into padded rows, unpacked.

Packed, the parameters of a program are `{"rows": [L, W], "head_kernel": [hidden, out],
"head_bias": [out]}` (head empty without one): a parameter of r rows takes r rows of `rows`, in
the order of nodes, padded with zeros on the right to the program's width W.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.program import Program, check_valid, parameter_offsets

SCALE = 0.1  # initial nodes are drawn from N(0, 0.1^2): Aichberger and Klambauer (2023), appendix D
HEAD_KERNEL, HEAD_BIAS = "head/kernel", "head/bias"
_HEAD_SLOT = 2**31 - 1  # folded into the key for the head's kernel


def num_rows(program: Program) -> int:
    """Rows that hold the parameters of any program of this padding."""
    return max(1, program.parameter_rows.shape[-1] * program.width)


@functools.partial(jax.jit, static_argnames=("rows", "width"))
def init_params(
    key: jax.Array, program: Program, *, rows: int | None = None, width: int | None = None
) -> dict:
    """Draws parameters; unbatched.

    A number depends on the key, the parameter's place among initial nodes, its row and its
    column alone: not on padding.

    Args:
      key: PRNG key.
      program: a program.
      rows, width: size of the padded rows, if not room for any program of this padding.

    Returns:
      Packed parameters, `rows` `[L, W]`.
    """
    rows = num_rows(program) if rows is None else rows
    width = program.width if width is None else width
    offsets = parameter_offsets(program)
    index = jnp.arange(rows)
    owner = jnp.sum(index[:, None] >= (offsets + program.parameter_rows)[None, :], axis=1)
    owner = jnp.minimum(owner, offsets.shape[0] - 1)
    local = index - offsets[owner]
    columns = jnp.arange(width)

    def draw(parameter, row):
        row_key = jax.random.fold_in(jax.random.fold_in(key, parameter), row)
        return SCALE * jax.random.normal(row_key, (width,))

    values = jax.vmap(draw)(owner, local)
    real = (index < jnp.sum(program.parameter_rows))[:, None]
    real = real & (columns[None, :] < program.parameter_cols[owner][:, None])
    return {"rows": jnp.where(real, values, 0.0)} | init_head(key, program)


def init_head(key: jax.Array, program: Program) -> dict:
    """Draws the head's parameters, an empty dict where there is none: kernel as initial nodes, bias zero."""
    if program.head == "none":
        return {}
    shape = (program.hidden_features, program.out_features)
    kernel = SCALE * jax.random.normal(jax.random.fold_in(key, _HEAD_SLOT), shape)
    return {"head_kernel": kernel, "head_bias": jnp.zeros(program.out_features)}


def _places(program: Program):
    """Yields (node, first row, rows, columns) of each parameter of an unbatched program, on the host."""
    check_valid(program)
    rows, cols = np.asarray(program.parameter_rows), np.asarray(program.parameter_cols)
    offsets = np.cumsum(rows) - rows
    for place in np.flatnonzero(rows):
        yield 2 * int(place) + 1, int(offsets[place]), int(rows[place]), int(cols[place])


def unpack_params(program: Program, params: Mapping[str, Any]) -> dict:
    """Returns parameters by node, in their true shapes; host only.

    Keys are node indices, and "head/kernel" `[hidden, out]` and "head/bias" `[out]` for a linear head.
    """
    rows = np.asarray(params["rows"])
    unpacked: dict = {node: rows[first : first + r, :c] for node, first, r, c in _places(program)}
    if program.head == "linear":
        unpacked[HEAD_KERNEL] = np.asarray(params["head_kernel"])
        unpacked[HEAD_BIAS] = np.asarray(params["head_bias"])
    return unpacked


def pack_params(program: Program, unpacked: Mapping) -> dict:
    """The inverse of `unpack_params`; host only.

    Raises:
      ValueError: for a missing or surplus parameter, or a wrong shape.
    """
    places = list(_places(program))
    shapes: dict = {node: (r, c) for node, _, r, c in places}
    if program.head == "linear":
        shapes[HEAD_KERNEL] = (program.hidden_features, program.out_features)
        shapes[HEAD_BIAS] = (program.out_features,)
    if set(unpacked) != set(shapes):
        missing = sorted(map(str, set(shapes) - set(unpacked)))
        surplus = sorted(map(str, set(unpacked) - set(shapes)))
        raise ValueError(f"Parameters do not match the program: missing {missing}, surplus {surplus}.")
    for name, shape in shapes.items():
        if np.shape(unpacked[name]) != shape:
            raise ValueError(
                f"Parameter {name!r} has shape {np.shape(unpacked[name])}; the program needs {shape}."
            )
    rows = np.zeros((num_rows(program), program.width), np.float32)
    for node, first, r, c in places:
        rows[first : first + r, :c] = unpacked[node]
    packed = {"rows": jnp.asarray(rows)}
    if program.head == "linear":
        packed["head_kernel"] = jnp.asarray(unpacked[HEAD_KERNEL], jnp.float32)
        packed["head_bias"] = jnp.asarray(unpacked[HEAD_BIAS], jnp.float32)
    return packed
