"""What single instructions compute, forwards and backwards: the branches of the interpreter.

A branch exists for each instruction that does something of its own; which those are follows from
the operation tables, the layout and the operations that may be drawn.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from elenas_jax.graphs.program import CONSTANT, DATA, LOAD_ROW, NUM_INSTRUCTION_CODES, NUM_UNARY, PARAMETER
from elenas_jax.ops import COMBINING, OPERATION_SETS, TRANSFORMING, Extent


def _clear(value, extent: Extent):
    return jnp.where(extent.valid_rows & extent.valid_cols, value, 0.0)


def _product(a, b):
    """Right factor shared by all examples: `[..., R, W] @ [W, W]`."""
    return jnp.reshape(jnp.reshape(a, (-1, a.shape[-1])) @ b, (*a.shape[:-1], b.shape[-1]))


def _pair_product(a, b):
    """Both factors of each example: `[..., R, W] @ [..., R, W]`, R = W unless one row times one row."""
    if a.shape[-2] == 1:
        return jnp.sum(a, axis=-1, keepdims=True) * b  # the left factor has one column
    return a @ b


class Operands(NamedTuple):
    """What a branch may read. Values are `[length, N, R, W]`, or `[W, W]` for constants."""

    a: Callable[[], jax.Array]
    b: Callable[[], jax.Array]
    row: Callable[[], jax.Array]  # [W] first row of the parameter
    block: Callable[[], jax.Array]  # [R, W] its first rows, zero past its end
    matrix: Callable[[], jax.Array]  # [W, W] rows from its first on: not cleared past its end
    a_extent: Extent
    extent: Extent  # of the result
    shape: tuple[int, ...]  # of the result


def find_operations(op: jax.Array | np.ndarray) -> str:
    """Returns the first of `OPERATION_SETS` that holds instruction codes of any shape; host only."""
    decoded = [_decode(int(code)) for code in np.unique(np.asarray(op))]
    for name, (combining, transforming) in OPERATION_SETS.items():
        if all(
            row is None or row.name in (transforming if form == _UNARY else combining)
            for form, row in decoded
        ):
            return name
    raise AssertionError("The last set holds every operation.")


_UNARY, _DATA, _PARAMETER, _CONSTANT, _LOAD_ROW, _LOAD_MATRIX = range(6)  # forms of instructions


def _decode(code: int):
    """Returns the form of an instruction and the row of its operation."""
    if code < NUM_UNARY:
        return _UNARY, TRANSFORMING[code]
    for form, base in ((_DATA, DATA), (_PARAMETER, PARAMETER), (_CONSTANT, CONSTANT)):
        if code < base + len(COMBINING):
            return form, COMBINING[code - base]
    return (_LOAD_ROW if code == LOAD_ROW else _LOAD_MATRIX), None


def _equivalent(code: int, one_row: bool):
    """Returns what identifies instructions that do the same, or None for one that does not occur."""
    form, row = _decode(code)
    if form == _UNARY:
        # Among values of one row only a single number can be transposed.
        return (form, "identity" if one_row and row.shape_rule == "transpose" else row.name)
    if form in (_LOAD_ROW, _LOAD_MATRIX):
        return (_LOAD_ROW if one_row else form, None)
    if row.shape_rule == "matmul":
        return None if form == _CONSTANT else (form, "matmul")  # a constant factor is read as a parameter
    if row.delayed and form != _DATA:
        return None
    return (_PARAMETER if one_row and form == _CONSTANT else form, row.fn)


@functools.cache
def branch_codes(rows: int, operations: str, constants: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which instructions a switch needs: one code for each branch, and the branch of every code.

    Fewer branches compile faster, and compiling is what a short search waits for.
    """
    combining, transforming = OPERATION_SETS[operations]
    codes: dict = {}
    branch_of = []
    for code in range(NUM_INSTRUCTION_CODES):
        form, row = _decode(code)
        drawn = row is None or row.name in (transforming if form == _UNARY else combining)
        # A subtracted first operand is negated.
        drawn |= form == _UNARY and any(
            row.name == each.alone for each in COMBINING if each.name in combining
        )
        same = _equivalent(code, rows == 1)
        if not drawn or same is None or (constants and form == _DATA):
            branch_of.append(0)
        else:
            branch_of.append(list(codes).index(same) if same in codes else len(codes))
            codes.setdefault(same, code)
    return tuple(codes.values()), tuple(branch_of)


def compute(code: int, which: Operands) -> Callable[[], jax.Array]:
    """Returns the branch that computes an instruction's value."""
    form, row = _decode(code)

    def branch():
        if form == _UNARY:
            return _clear(row.fn(which.a(), which.a_extent), which.extent)
        if form == _DATA:
            return (_pair_product if row.shape_rule == "matmul" else row.fn)(which.a(), which.b())
        if form == _PARAMETER and row.shape_rule == "matmul":
            return _product(which.a(), which.matrix())
        if form == _PARAMETER:
            return _clear(row.fn(which.a(), which.row()), which.extent)
        if form == _CONSTANT:
            return row.fn(which.a(), which.block())
        value = _clear(which.row(), which.extent) if form == _LOAD_ROW else which.block()
        return jnp.broadcast_to(value, which.shape)

    return branch


def pull_back(code: int, which: Operands, result, cotangent) -> Callable[[], tuple[jax.Array, jax.Array]]:
    """Returns the branch that computes the cotangents of both operands, zero for one that is no value."""
    form, row = _decode(code)

    def branch():
        nothing = jnp.zeros(which.shape)
        if form in (_LOAD_ROW, _LOAD_MATRIX):
            return nothing, nothing
        g = cotangent()
        if form == _UNARY:
            if row.grad is not None:
                return row.grad(which.a(), result(), g), nothing
            _, pull = jax.vjp(lambda a: _clear(row.fn(a, which.a_extent), which.extent), which.a())
            return _clear(pull(g)[0], which.a_extent), nothing
        if form == _DATA:
            fn = _pair_product if row.shape_rule == "matmul" else row.fn
            _, pull = jax.vjp(fn, which.a(), which.b())
            of_a, of_b = pull(g)
            return (_clear(of_a, which.a_extent) if row.shape_rule == "matmul" else of_a), of_b
        if form == _PARAMETER and row.shape_rule == "matmul":
            return _clear(_product(g, which.matrix().T), which.a_extent), nothing
        fixed = which.row() if form == _PARAMETER else which.block()
        _, pull = jax.vjp(lambda a: row.fn(a, fixed), which.a())
        return _clear(pull(g)[0], which.a_extent), nothing

    return branch


def parameter_gradient(code: int, which: Operands, cotangent, width: int) -> Callable[[], jax.Array]:
    """Returns the branch that computes `[W, W]`, what an instruction adds to the parameter it reads."""
    form, row = _decode(code)

    def branch():
        if form in (_UNARY, _DATA):
            return jnp.zeros((width, width))
        g = cotangent()
        if form == _PARAMETER and row.shape_rule == "matmul":
            return jnp.reshape(which.a(), (-1, width)).T @ jnp.reshape(g, (-1, width))
        if form in (_PARAMETER, _CONSTANT):
            fixed = which.row() if form == _PARAMETER else which.block()
            _, pull = jax.vjp(lambda value: row.fn(which.a(), value), fixed)
            block = pull(g)[0]
        else:
            block = jnp.sum(jnp.reshape(g, (-1, *g.shape[-2:])), axis=0)
            block = jnp.sum(block, axis=0) if form == _LOAD_ROW else block
        block = jnp.reshape(block, (-1, width))
        return jnp.pad(block, ((0, width - block.shape[0]), (0, 0)))

    return branch


def switch(op, codes: tuple[tuple[int, ...], tuple[int, ...]], make_branch):
    """Branches on an instruction code."""
    distinct, branch_of = codes
    return lax.switch(jnp.asarray(branch_of)[op], [make_branch(code) for code in distinct])
