"""Runs a program's instructions forwards and backwards over preallocated buffers.

Every value of a pass lives in one buffer, the tape `[V, T + 1, N, R, W]`: slot, step, example,
row, column. Index 0 of the steps is the state before the first one, so that a value of the
previous step is the same slice one place earlier. Padding is zero and stays zero in values and
in cotangents. Instructions branch for real (`lax.switch`) and loops have as many rounds as a
program has instructions, so a short program in a long padding costs what it is long. What does
not lie between one step and the next runs over all steps at once, and gradients of parameters
are taken after the loop over time, in one product over all steps.

The reverse pass is written by hand because differentiating the loop would copy the tape once an
instruction. Only values are kept; both passes write into buffers handed in, which the caller may
reuse dirty.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from elenas_jax.graphs.program import (
    AFTER,
    BEFORE,
    CONSTANT,
    CONSTANTS,
    DATA,
    INSIDE,
    LOAD_MATRIX,
    LOAD_ROW,
    NUM_INSTRUCTION_CODES,
    NUM_UNARY,
    PARAMETER,
    TIME,
    Program,
)
from elenas_jax.ops import COMBINING, TRANSFORMING, Extent

MATMUL = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """The static shape of a pass.

    kind: "row" (every value has one row a step), "matrix" (a padded square a step) or "sequence"
      (no steps: one padded square in all).
    last_only: whether only the last step's output is wanted.
    """

    kind: str
    width: int  # W
    time_steps: int  # of the sequence
    last_only: bool = False

    @property
    def steps(self) -> int:
        return 1 if self.kind == "sequence" else self.time_steps

    @property
    def rows(self) -> int:
        return 1 if self.kind == "row" else self.width


class Machine(NamedTuple):
    """A program with sizes resolved, as the passes read it."""

    op: jax.Array  # [I]
    arg: jax.Array  # [I, 2]
    delay: jax.Array  # [I, 2]
    reads: jax.Array  # [I] first row of the parameter or constant read, 0 if none
    read_rows: jax.Array  # [I] its rows
    reads_fixed: jax.Array  # [I] bool
    writes: jax.Array  # [I] first row of the constant this instruction computes
    rows: jax.Array  # [V]
    cols: jax.Array  # [V]
    ends: jax.Array  # [4]
    output: jax.Array  # []


def machine(program: Program, time_steps: int) -> Machine:
    """Resolves sizes and places of an unbatched program; jittable."""
    rows = jnp.where(program.rows == TIME, time_steps, program.rows)
    cols = jnp.where(program.cols == TIME, time_steps, program.cols)
    place = jnp.arange(program.op.shape[0])
    constant_rows = jnp.where(place < program.phase_ends[CONSTANTS], rows[1:], 0)
    sizes = jnp.concatenate([program.parameter_rows, constant_rows])
    first = jnp.cumsum(sizes) - sizes
    read = jnp.maximum(program.parameter, 0)
    return Machine(
        program.op,
        program.arg,
        program.delay,
        first[read],
        sizes[read],
        program.parameter >= 0,
        first[program.parameter_rows.shape[0] :],
        rows,
        cols,
        program.phase_ends,
        program.output,
    )


def with_scratch(rows: jax.Array, num_constant_rows: int) -> jax.Array:
    """Adds `[.., W]` zero rows behind `[L, W]` parameters: for constants, and for reading past the end."""
    return jnp.pad(rows, ((0, num_constant_rows + rows.shape[1]), (0, 0)))


def _extent(rows, cols, layout_rows: int, width: int) -> Extent:
    return Extent((jnp.arange(layout_rows) < rows)[:, None], (jnp.arange(width) < cols)[None, :])


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


def _transform(row, which: "Operands"):
    """The row's function; among values of one row only a single number can be transposed."""
    if row.shape_rule == "transpose" and which.extent.valid_rows.shape[0] == 1:
        return TRANSFORMING[0].fn
    return row.fn


def _forward_branches(which: Operands) -> list[Callable[[], jax.Array]]:
    branches: list[Callable[[], jax.Array]] = []
    for row in TRANSFORMING:
        branches.append(lambda fn=_transform(row, which): _clear(fn(which.a(), which.a_extent), which.extent))
    for row in COMBINING[1:]:
        fn = _pair_product if row.shape_rule == "matmul" else row.fn
        branches.append(lambda fn=fn: fn(which.a(), which.b()))
    for row in COMBINING[1:]:
        if row.shape_rule == "matmul":
            branches.append(lambda: _product(which.a(), which.matrix()))
        else:
            branches.append(lambda fn=row.fn: _clear(fn(which.a(), which.row()), which.extent))
    for row in COMBINING[1:]:
        if row.shape_rule == "matmul":  # as a parameter
            branches.append(lambda: jnp.zeros(which.shape))
        else:
            branches.append(lambda fn=row.fn: fn(which.a(), which.block()))
    branches.append(lambda: jnp.broadcast_to(_clear(which.row(), which.extent), which.shape))
    branches.append(lambda: jnp.broadcast_to(which.block(), which.shape))
    assert len(branches) == NUM_INSTRUCTION_CODES
    return branches


def _backward_branches(which: Operands, result, cotangent) -> list[Callable[[], tuple[jax.Array, jax.Array]]]:
    """Branches that return the cotangents of both operands (zero for one that is no value)."""
    nothing = jnp.zeros(which.shape)

    def unary(row):
        def branch():
            g = cotangent()
            if row.grad is not None:
                return row.grad(which.a(), result(), g), nothing
            fn = _transform(row, which)
            _, pull = jax.vjp(lambda x: _clear(fn(x, which.a_extent), which.extent), which.a())
            return _clear(pull(g)[0], which.a_extent), nothing

        return branch

    def data(row):
        def branch():
            fn = _pair_product if row.shape_rule == "matmul" else row.fn
            _, pull = jax.vjp(fn, which.a(), which.b())
            ga, gb = pull(cotangent())
            if row.shape_rule == "matmul" and which.a_extent.valid_rows.shape[0] == 1:
                ga = _clear(ga, which.a_extent)
            return ga, gb

        return branch

    def parameter(row):
        def branch():
            g = cotangent()
            if row.shape_rule == "matmul":
                ga = _product(g, which.matrix().T)
            else:
                _, pull = jax.vjp(lambda a: row.fn(a, which.row()), which.a())
                ga = pull(g)[0]
            return _clear(ga, which.a_extent), nothing

        return branch

    def constant(row):
        def branch():
            if row.shape_rule == "matmul":
                return nothing, nothing
            _, pull = jax.vjp(lambda a: row.fn(a, which.block()), which.a())
            return pull(cotangent())[0], nothing

        return branch

    branches = [unary(row) for row in TRANSFORMING]
    for make in (data, parameter, constant):
        branches += [make(row) for row in COMBINING[1:]]
    return branches + [lambda: (nothing, nothing)] * 2


def _read_block(params, first, count, layout_rows: int):
    block = lax.dynamic_slice(params, (first, 0), (layout_rows, params.shape[1]))
    return jnp.where((jnp.arange(layout_rows) < count)[:, None], block, 0.0)


def _operands(code: Machine, params, place, layout: Layout, value_at) -> Operands:
    rows, width = layout.rows, layout.width
    slot = code.arg[place, 0]
    first, count = code.reads[place], code.read_rows[place]
    return Operands(
        a=lambda: value_at(code.arg[place, 0], code.delay[place, 0]),
        b=lambda: value_at(code.arg[place, 1], code.delay[place, 1]),
        row=lambda: lax.dynamic_slice(params, (first, 0), (1, width))[0],
        block=lambda: _read_block(params, first, count, rows),
        matrix=lambda: lax.dynamic_slice(params, (first, 0), (width, width)),
        a_extent=_extent(code.rows[slot], code.cols[slot], rows, width),
        extent=_extent(code.rows[place + 1], code.cols[place + 1], rows, width),
        shape=jax.eval_shape(lambda: value_at(0, 0)).shape,
    )


def _constant_operands(code: Machine, params, place, width: int) -> Operands:
    """Constants are computed as squares, each of its own rows, behind the parameters."""

    def value_at(slot, _):
        origin = jnp.maximum(slot - 1, 0)
        return _read_block(params, code.writes[origin], code.rows[slot], width)

    return _operands(code, params, place, Layout("sequence", width, 1), value_at)


def compute_constants(code: Machine, params: jax.Array, width: int) -> jax.Array:
    """Writes the constants of a program behind its parameters.

    Args:
      code: a machine.
      params: `[L, W]` packed rows of parameters `with_scratch`.
      width: W.

    Returns:
      `[L, W]` rows with the constants in place.
    """

    def compute(place, params):
        which = _constant_operands(code, params, place, width)
        value = lax.switch(code.op[place], _forward_branches(which))
        return lax.dynamic_update_slice(params, value, (code.writes[place], 0))

    return lax.fori_loop(0, code.ends[CONSTANTS], compute, params)


def _windows(code: Machine, layout: Layout):
    """The phases in order, as (first instruction, end, first step, steps at once, rounds)."""
    steps = layout.steps
    last = (steps - 1, 1) if layout.last_only else (0, steps)
    inside = (code.ends[BEFORE], code.ends[INSIDE])
    return (
        (code.ends[CONSTANTS], code.ends[BEFORE], 0, steps, False),
        (*inside, 0, 1, True),
        (code.ends[INSIDE], code.ends[AFTER], *last, False),
    )


def _at(buffer, slot, step, length: int):
    size = (1, length, *buffer.shape[2:])
    return lax.dynamic_slice(buffer, (slot, step, 0, 0, 0), size)[0]


def _put(buffer, value, slot, step):
    return lax.dynamic_update_slice(buffer, value[None], (slot, step, 0, 0, 0))


def forward(code: Machine, params: jax.Array, tape: jax.Array, layout: Layout) -> jax.Array:
    """Fills the tape.

    Args:
      code: a machine.
      params: rows with constants in place, see `compute_constants`.
      tape: `[V, T + 1, N, R, W]` with the input in slot 0 and the carry at step 0.
      layout: static shape of the pass.

    Returns:
      The tape with every value of the program.
    """

    def run(tape, place, step, length):
        def value_at(slot, delay):
            return _at(tape, slot, step + 1 - delay, length)

        which = _operands(code, params, place, layout, value_at)
        value = lax.switch(code.op[place], _forward_branches(which))
        return _put(tape, value, place + 1, step + 1)

    for begin, end, step, length, looped in _windows(code, layout):
        if looped and layout.kind != "sequence":
            count = end - begin

            def visit(k, tape, begin=begin, count=count):
                return run(tape, begin + k % count, k // count, 1)

            tape = lax.fori_loop(0, layout.steps * count, visit, tape)
        elif not looped:

            def visit_all(place, tape, step=step, length=length):
                return run(tape, place, step, length)

            tape = lax.fori_loop(begin, end, visit_all, tape)
    return tape


def backward(code: Machine, params: jax.Array, tape: jax.Array, cotangents: jax.Array, layout: Layout):
    """Runs a program in reverse.

    Args:
      code, params, tape, layout: as `forward` left them.
      cotangents: `[V, T + 1, N, R, W]`, that of the output in place, zero in all other slots that
        the program uses (`clear_cotangents`).

    Returns:
      The cotangents of all values, and `[L, W]` those of the parameters' rows.
    """

    def run(cotangents, place, step, length):
        def value_at(slot, delay):
            return _at(tape, slot, step + 1 - delay, length)

        which = _operands(code, params, place, layout, value_at)
        result = lambda: value_at(place + 1, 0)  # noqa: E731
        cotangent = lambda: _at(cotangents, place + 1, step + 1, length)  # noqa: E731
        grads = lax.switch(code.op[place], _backward_branches(which, result, cotangent))
        for operand, grad in enumerate(grads):
            slot, at = code.arg[place, operand], step + 1 - code.delay[place, operand]
            cotangents = _put(cotangents, _at(cotangents, slot, at, length) + grad, slot, at)
        return cotangents

    gradient = jnp.zeros_like(params)
    for begin, end, step, length, looped in reversed(_windows(code, layout)):
        if looped and layout.kind == "sequence":
            continue
        count = end - begin
        if looped:

            def visit(k, cotangents, begin=begin, count=count):
                k = layout.steps * count - 1 - k
                return run(cotangents, begin + k % count, k // count, 1)

            cotangents = lax.fori_loop(0, layout.steps * count, visit, cotangents)
            length = layout.steps
        else:

            def visit_all(k, cotangents, end=end, step=step, length=length):
                return run(cotangents, end - 1 - k, step, length)

            cotangents = lax.fori_loop(0, count, visit_all, cotangents)

        def accumulate(place, gradient, step=step, length=length, cotangents=cotangents):
            def value_at(slot, delay):
                return _at(tape, slot, step + 1 - delay, length)

            which = _operands(code, params, place, layout, value_at)
            return _add_parameter_gradient(
                gradient, code, place, which, lambda: _at(cotangents, place + 1, step + 1, length)
            )

        gradient = lax.fori_loop(begin, end, accumulate, gradient)
    return cotangents, _constants_backward(code, params, gradient, layout.width)


def _add_parameter_gradient(gradient, code: Machine, place, which: Operands, cotangent):
    """Adds what an instruction contributes to the parameter or constant it reads."""
    width = gradient.shape[1]
    first, count = code.reads[place], code.read_rows[place]
    rows = which.extent.valid_rows.shape[0]

    def pad(block):  # [r, W] -> [W, W], zero past the parameter's own rows
        block = jnp.pad(block, ((0, width - block.shape[0]), (0, 0)))
        return jnp.where((jnp.arange(width) < count)[:, None], block, 0.0)

    def summed(g):
        return jnp.sum(jnp.reshape(g, (-1, rows, width)), axis=0)

    def by_row(row):
        def branch():
            if row.shape_rule == "matmul":
                a, g = (jnp.reshape(x, (-1, width)) for x in (which.a(), cotangent()))
                return pad(a.T @ g)
            _, pull = jax.vjp(lambda value: row.fn(which.a(), value), which.row())
            return pad(pull(cotangent())[0][None])

        return branch

    def by_block(row):
        def branch():
            if row.shape_rule == "matmul":
                return jnp.zeros((width, width))
            _, pull = jax.vjp(lambda value: row.fn(which.a(), value), which.block())
            return pad(pull(cotangent())[0])

        return branch

    branches = [by_row(row) for row in COMBINING[1:]] + [by_block(row) for row in COMBINING[1:]]
    branches.append(lambda: pad(jnp.sum(summed(cotangent()), axis=0, keepdims=True)))
    branches.append(lambda: pad(summed(cotangent())))

    def add(gradient):
        block = lax.switch(code.op[place] - (PARAMETER + 1), branches)
        old = lax.dynamic_slice(gradient, (first, 0), (width, width))
        return lax.dynamic_update_slice(gradient, old + block, (first, 0))

    return lax.cond(code.reads_fixed[place], add, lambda gradient: gradient, gradient)


def _constants_backward(code: Machine, params, gradient, width: int):
    """Hands the cotangents of constants on to the parameters they are made of."""

    def visit(k, gradient):
        place = code.ends[CONSTANTS] - 1 - k
        which = _constant_operands(code, params, place, width)

        def cotangent():
            return _read_block(gradient, code.writes[place], code.rows[place + 1], width)

        def result():
            return _read_block(params, code.writes[place], code.rows[place + 1], width)

        grad, _ = lax.switch(code.op[place], _backward_branches(which, result, cotangent))
        gradient = _add_parameter_gradient(gradient, code, place, which, cotangent)
        # A constant that begins with a parameter read as a value has no first operand.
        has_value = (code.arg[place, 0] > 0) & (code.op[place] < LOAD_ROW)
        origin = code.writes[jnp.maximum(code.arg[place, 0] - 1, 0)]
        old = lax.dynamic_slice(gradient, (origin, 0), (width, width))
        return lax.dynamic_update_slice(gradient, old + jnp.where(has_value, grad, 0.0), (origin, 0))

    return lax.fori_loop(0, code.ends[CONSTANTS], visit, gradient)


def clear_cotangents(code: Machine, cotangents: jax.Array) -> jax.Array:
    """Sets the cotangents of the slots that a program uses to zero."""
    zero = jnp.zeros(cotangents.shape[1:])
    return lax.fori_loop(0, code.ends[AFTER] + 1, lambda slot, buffer: _put(buffer, zero, slot, 0), cotangents)


def write_input(tape: jax.Array, inputs: jax.Array, layout: Layout) -> jax.Array:
    """Writes `[N, T, F]` inputs into slot 0 of a tape, from step 1 on."""
    num, time, features = inputs.shape
    if layout.kind == "sequence":
        padded = jnp.pad(inputs, ((0, 0), (0, layout.rows - time), (0, layout.width - features)))[None]
    else:
        padded = jnp.pad(inputs, ((0, 0), (0, 0), (0, layout.width - features)))
        padded = jnp.swapaxes(padded, 0, 1)[:, :, None, :]
        padded = jnp.pad(padded, ((0, 0), (0, 0), (0, layout.rows - 1), (0, 0)))
    return _put(tape, padded, 0, 1)


# Branch tables are checked against the codes here, once, rather than at every call.
assert NUM_UNARY == len(TRANSFORMING) and DATA + len(COMBINING) - 1 == PARAMETER
assert PARAMETER + len(COMBINING) - 1 == CONSTANT and LOAD_MATRIX == LOAD_ROW + 1
