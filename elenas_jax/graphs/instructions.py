"""What single instructions compute, forwards and backwards: the branches of the interpreter.

A branch exists for each instruction that does something of its own; which those are follows from
the operation tables, the layout and the operations that may be drawn.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, Protocol

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


class Operands(Protocol):
    """What a branch may read. Values are `[length, N, R, W]`, or `[W, W]` for constants.

    Methods are called in the branch that needs them: what no branch reads is not computed.
    """

    shape: tuple[int, ...]  # of the result

    def a(self) -> jax.Array: ...

    def b(self) -> jax.Array: ...

    def row(self) -> jax.Array:
        """Returns `[W]`, the first row of the parameter."""
        ...

    def block(self) -> jax.Array:
        """Returns `[R, W]`, its first rows, zero past its end."""
        ...

    def matrix(self) -> jax.Array:
        """Returns `[W, W]`, rows from its first on: not cleared past its end."""
        ...

    def a_extent(self) -> Extent: ...

    def extent(self) -> Extent:
        """Returns which part of the result is real."""
        ...


def find_operations(op: jax.Array | np.ndarray) -> str:
    """Returns the first of `OPERATION_SETS` that holds instruction codes of any shape; host only."""
    decoded = [decode(int(code)) for code in np.unique(np.asarray(op))]
    for name, (combining, transforming) in OPERATION_SETS.items():
        if all(
            row is None or row.name in (transforming if form == Form.UNARY else combining)
            for form, row in decoded
        ):
            return name
    raise AssertionError("The last set holds every operation.")


class Form(enum.IntEnum):
    """What an instruction reads beside its operation."""

    UNARY = 0
    DATA = 1  # two values
    PARAMETER = 2  # a value and a row, or in a product a matrix
    CONSTANT = 3  # a value and a block of its shape
    LOAD_ROW = 4
    LOAD_MATRIX = 5


def decode(code: int) -> tuple[Form, Any]:
    """Returns the form of an instruction and the row of its operation, None for a load."""
    if code < NUM_UNARY:
        return Form.UNARY, TRANSFORMING[code]
    for form, base in ((Form.DATA, DATA), (Form.PARAMETER, PARAMETER), (Form.CONSTANT, CONSTANT)):
        if code < base + len(COMBINING):
            return form, COMBINING[code - base]
    return (Form.LOAD_ROW if code == LOAD_ROW else Form.LOAD_MATRIX), None


def _num_operands(code: int) -> int:
    return {Form.DATA: 2, Form.LOAD_ROW: 0, Form.LOAD_MATRIX: 0}.get(decode(code)[0], 1)


def _equivalent(code: int, one_row: bool):
    """Returns what identifies instructions that do the same, or None for one that does not occur."""
    form, row = decode(code)
    if form == Form.UNARY:
        # Among values of one row only a single number can be transposed.
        return (form, "identity" if one_row and row.shape_rule == "transpose" else row.name)
    if form in (Form.LOAD_ROW, Form.LOAD_MATRIX):
        return (Form.LOAD_ROW if one_row else form, None)
    if row.shape_rule == "matmul":
        return None if form == Form.CONSTANT else (form, "matmul")  # a constant factor is read as a parameter
    if row.delayed and form != Form.DATA:
        return None
    return (Form.PARAMETER if one_row and form == Form.CONSTANT else form, row.fn)


@functools.cache
def branch_codes(rows: int, operations: str, constants: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which instructions a switch needs: one code for each branch, and the branch of every code.

    Fewer branches compile faster, and compiling is what a short search waits for.
    """
    combining, transforming = OPERATION_SETS[operations]
    codes: dict = {}
    branch_of = []
    for code in range(NUM_INSTRUCTION_CODES):
        form, row = decode(code)
        drawn = row is None or row.name in (transforming if form == Form.UNARY else combining)
        # A subtracted first operand is negated.
        drawn |= form == Form.UNARY and any(
            row.name == each.alone for each in COMBINING if each.name in combining
        )
        same = _equivalent(code, rows == 1)
        if not drawn or same is None or (constants and form == Form.DATA):
            branch_of.append(0)
        else:
            branch_of.append(list(codes).index(same) if same in codes else len(codes))
            codes.setdefault(same, code)
    return tuple(codes.values()), tuple(branch_of)


def compute(code: int, which: Operands) -> Callable[[], jax.Array]:
    """Returns the branch that computes an instruction's value."""
    form, row = decode(code)

    def branch():
        if form == Form.UNARY:
            return _clear(row.fn(which.a(), which.a_extent()), which.extent())
        if form == Form.DATA:
            return (_pair_product if row.shape_rule == "matmul" else row.fn)(which.a(), which.b())
        if form == Form.PARAMETER and row.shape_rule == "matmul":
            return _product(which.a(), which.matrix())
        if form == Form.PARAMETER:
            return _clear(row.fn(which.a(), which.row()), which.extent())
        if form == Form.CONSTANT:
            return row.fn(which.a(), which.block())
        value = _clear(which.row(), which.extent()) if form == Form.LOAD_ROW else which.block()
        return jnp.broadcast_to(value, which.shape)

    return branch


def pull_back(code: int, operand: int, which: Operands, result, cotangent) -> Callable[[], jax.Array]:
    """Returns the branch that computes the cotangent of one operand."""
    form, row = decode(code)

    def branch():
        g = cotangent()
        if form == Form.UNARY:
            if row.grad is not None:
                return row.grad(which.a(), result(), g)
            _, pull = jax.vjp(lambda a: _clear(row.fn(a, which.a_extent()), which.extent()), which.a())
            return _clear(pull(g)[0], which.a_extent())
        if form == Form.DATA:
            fn = _pair_product if row.shape_rule == "matmul" else row.fn
            one = (lambda a: fn(a, which.b())) if operand == 0 else (lambda b: fn(which.a(), b))
            _, pull = jax.vjp(one, which.a() if operand == 0 else which.b())
            clears = row.shape_rule == "matmul" and operand == 0
            return _clear(pull(g)[0], which.a_extent()) if clears else pull(g)[0]
        if form == Form.PARAMETER and row.shape_rule == "matmul":
            return _clear(_product(g, which.matrix().T), which.a_extent())
        fixed = which.row() if form == Form.PARAMETER else which.block()
        _, pull = jax.vjp(lambda a: row.fn(a, fixed), which.a())
        return _clear(pull(g)[0], which.a_extent())

    return branch


def parameter_gradient(code: int, which: Operands, cotangent, width: int) -> Callable[[], jax.Array]:
    """Returns the branch that computes `[W, W]`, what an instruction adds to the parameter it reads."""
    form, row = decode(code)

    def branch():
        if form in (Form.UNARY, Form.DATA):
            return jnp.zeros((width, width))
        g = cotangent()
        if form == Form.PARAMETER and row.shape_rule == "matmul":
            return jnp.reshape(which.a(), (-1, width)).T @ jnp.reshape(g, (-1, width))
        if form in (Form.PARAMETER, Form.CONSTANT):
            fixed = which.row() if form == Form.PARAMETER else which.block()
            _, pull = jax.vjp(lambda value: row.fn(which.a(), value), fixed)
            block = pull(g)[0]
        else:
            block = jnp.sum(jnp.reshape(g, (-1, *g.shape[-2:])), axis=0)
            block = jnp.sum(block, axis=0) if form == Form.LOAD_ROW else block
        block = jnp.reshape(block, (-1, width))
        return jnp.pad(block, ((0, width - block.shape[0]), (0, 0)))

    return branch


@functools.cache
def pull_codes(rows: int, operations: str, constants: bool) -> tuple[tuple[tuple[int, int], ...], np.ndarray]:
    """Which pulls a switch needs: (code, operand) for each branch, and `[codes, 2]` the branch of each.

    The branch of what has no such operand is one more, `nothing_to_pull`.
    """
    distinct, branch_of = branch_codes(rows, operations, constants)
    pulls = tuple((code, operand) for code in distinct for operand in range(_num_operands(code)))
    table = np.full((NUM_INSTRUCTION_CODES, 2), len(pulls), np.int32)
    for code in range(NUM_INSTRUCTION_CODES):
        for operand in range(min(_num_operands(code), _num_operands(distinct[branch_of[code]]))):
            table[code, operand] = pulls.index((distinct[branch_of[code]], operand))
    return pulls, table


def switch(branch, branches: list[Callable]):
    """Runs one of the branches."""
    return branches[0]() if len(branches) == 1 else lax.switch(branch, branches)
