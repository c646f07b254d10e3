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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from elenas_jax.graphs.instructions import (
    Operands,
    branch_codes,
    compute,
    parameter_gradient,
    pull_back,
    switch,
)
from elenas_jax.graphs.program import AFTER, BEFORE, CONSTANTS, INSIDE, LOAD_ROW, TIME, Program
from elenas_jax.ops import Extent


@dataclasses.dataclass(frozen=True)
class Layout:
    """The static shape of a pass.

    kind: "row" (every value has one row a step), "matrix" (a padded square a step) or "sequence"
      (no steps: one padded square in all).
    last_only: whether only the last step's output is wanted.
    operations: which of `OPERATION_SETS` programs draw from; others are not compiled in.
    """

    kind: str
    width: int  # W
    time_steps: int  # of the sequence
    last_only: bool = False
    operations: str = "extended"

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


def compute_constants(code: Machine, params: jax.Array, width: int, operations: str) -> jax.Array:
    """Writes the constants of a program behind its parameters.

    Args:
      code: a machine.
      params: `[L, W]` packed rows of parameters `with_scratch`.
      width: W.
      operations: see `Layout`.

    Returns:
      `[L, W]` rows with the constants in place.
    """
    codes = branch_codes(width, operations, True)

    def visit(place, params):
        which = _constant_operands(code, params, place, width)
        value = switch(code.op[place], codes, lambda each: compute(each, which))
        return lax.dynamic_update_slice(params, value, (code.writes[place], 0))

    return lax.fori_loop(0, code.ends[CONSTANTS], visit, params)


def _at(buffer, slot, step, length: int):
    size = (1, length, *buffer.shape[2:])
    return lax.dynamic_slice(buffer, (slot, step, 0, 0, 0), size)[0]


def _put(buffer, value, slot, step):
    return lax.dynamic_update_slice(buffer, value[None], (slot, step, 0, 0, 0))


class _Rounds(NamedTuple):
    """The loop over single steps: all of `INSIDE` for each step, then `AFTER` for the last one.

    One loop for both, so that their instructions are compiled once. Where all outputs are wanted,
    `AFTER` runs over all steps at once instead.
    """

    begin: jax.Array
    inside: jax.Array  # instructions a step
    total: jax.Array
    steps: int

    def at(self, k):
        """Returns the instruction and the step of round k."""
        is_inside = k < self.steps * self.inside
        place = jnp.where(is_inside, k % jnp.maximum(self.inside, 1), k - (self.steps - 1) * self.inside)
        step = jnp.where(is_inside, k // jnp.maximum(self.inside, 1), self.steps - 1)
        return self.begin + place, step


def _rounds(code: Machine, layout: Layout) -> _Rounds:
    inside = code.ends[INSIDE] - code.ends[BEFORE]
    after = code.ends[AFTER] - code.ends[INSIDE] if layout.last_only else 0
    return _Rounds(code.ends[BEFORE], inside, layout.steps * inside + after, layout.steps)


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
    codes = branch_codes(layout.rows, layout.operations, False)

    def run(tape, place, step, length):
        def value_at(slot, delay):
            return _at(tape, slot, step + 1 - delay, length)

        which = _operands(code, params, place, layout, value_at)
        value = switch(code.op[place], codes, lambda each: compute(each, which))
        return _put(tape, value, place + 1, step + 1)

    def at_once(place, tape):
        return run(tape, place, 0, layout.steps)

    def single(k, tape):
        place, step = rounds.at(k)
        return run(tape, place, step, 1)

    tape = lax.fori_loop(code.ends[CONSTANTS], code.ends[BEFORE], at_once, tape)
    if layout.kind == "sequence":
        return tape
    rounds = _rounds(code, layout)
    tape = lax.fori_loop(0, rounds.total, single, tape)
    if not layout.last_only:
        tape = lax.fori_loop(code.ends[INSIDE], code.ends[AFTER], at_once, tape)
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
    codes = branch_codes(layout.rows, layout.operations, False)

    def operands(place, step, length):
        return _operands(
            code, params, place, layout, lambda slot, delay: _at(tape, slot, step + 1 - delay, length)
        )

    def run(cotangents, place, step, length):
        which = operands(place, step, length)
        grads = switch(
            code.op[place],
            codes,
            lambda each: pull_back(
                each,
                which,
                lambda: _at(tape, place + 1, step + 1, length),
                lambda: _at(cotangents, place + 1, step + 1, length),
            ),
        )
        for operand, grad in enumerate(grads):
            slot, at = code.arg[place, operand], step + 1 - code.delay[place, operand]
            cotangents = _put(cotangents, _at(cotangents, slot, at, length) + grad, slot, at)
        return cotangents

    def at_once(begin, end, cotangents):
        return lax.fori_loop(0, end - begin, lambda k, c: run(c, end - 1 - k, 0, layout.steps), cotangents)

    if layout.kind != "sequence":
        if not layout.last_only:
            cotangents = at_once(code.ends[INSIDE], code.ends[AFTER], cotangents)
        rounds = _rounds(code, layout)

        def single(k, cotangents):
            place, step = rounds.at(rounds.total - 1 - k)
            return run(cotangents, place, step, 1)

        cotangents = lax.fori_loop(0, rounds.total, single, cotangents)
    cotangents = at_once(code.ends[CONSTANTS], code.ends[BEFORE], cotangents)

    def accumulate(step, length):
        def visit(place, gradient):
            which = operands(place, step, length)
            return _accumulate(
                gradient, code, place, codes, which, lambda: _at(cotangents, place + 1, step + 1, length)
            )

        return visit

    gradient = jnp.zeros_like(params)
    early = code.ends[AFTER]
    if layout.last_only and layout.kind != "sequence":
        early = code.ends[INSIDE]
        gradient = lax.fori_loop(early, code.ends[AFTER], accumulate(layout.steps - 1, 1), gradient)
    gradient = lax.fori_loop(code.ends[CONSTANTS], early, accumulate(0, layout.steps), gradient)
    return cotangents, _constants_backward(code, params, gradient, layout)


def _accumulate(gradient, code: Machine, place, codes, which: Operands, cotangent):
    """Adds what an instruction contributes to the parameter or constant it reads."""
    width = gradient.shape[1]
    first, count = code.reads[place], code.read_rows[place]

    def add(gradient):
        block = switch(code.op[place], codes, lambda each: parameter_gradient(each, which, cotangent, width))
        block = jnp.where((jnp.arange(width) < count)[:, None], block, 0.0)
        old = lax.dynamic_slice(gradient, (first, 0), (width, width))
        return lax.dynamic_update_slice(gradient, old + block, (first, 0))

    return lax.cond(code.reads_fixed[place], add, lambda gradient: gradient, gradient)


def _constants_backward(code: Machine, params, gradient, layout: Layout):
    """Hands the cotangents of constants on to the parameters they are made of."""
    width = layout.width
    codes = branch_codes(width, layout.operations, True)

    def visit(k, gradient):
        place = code.ends[CONSTANTS] - 1 - k
        which = _constant_operands(code, params, place, width)

        def cotangent():
            return _read_block(gradient, code.writes[place], code.rows[place + 1], width)

        def result():
            return _read_block(params, code.writes[place], code.rows[place + 1], width)

        of_value, _ = switch(code.op[place], codes, lambda each: pull_back(each, which, result, cotangent))
        gradient = _accumulate(gradient, code, place, codes, which, cotangent)
        origin = code.writes[jnp.maximum(code.arg[place, 0] - 1, 0)]
        # A constant that begins by reading a parameter has no operand to hand anything to.
        of_value = jnp.where(code.op[place] < LOAD_ROW, of_value, 0.0)
        old = lax.dynamic_slice(gradient, (origin, 0), (width, width))
        return lax.dynamic_update_slice(gradient, old + of_value, (origin, 0))

    return lax.fori_loop(0, code.ends[CONSTANTS], visit, gradient)


def clear_cotangents(code: Machine, cotangents: jax.Array) -> jax.Array:
    """Sets the cotangents of the slots that a program uses to zero."""
    zero = jnp.zeros(cotangents.shape[1:])
    return lax.fori_loop(
        0, code.ends[AFTER] + 1, lambda slot, buffer: _put(buffer, zero, slot, 0), cotangents
    )


def write_input(tape: jax.Array, inputs: jax.Array, layout: Layout) -> jax.Array:
    """Writes `[N, T, F]` inputs into slot 0 of a tape, from step 1 on."""
    _, time, features = inputs.shape
    if layout.kind == "sequence":
        padded = jnp.pad(inputs, ((0, 0), (0, layout.rows - time), (0, layout.width - features)))[None]
    else:
        padded = jnp.pad(inputs, ((0, 0), (0, 0), (0, layout.width - features)))
        padded = jnp.swapaxes(padded, 0, 1)[:, :, None, :]
        padded = jnp.pad(padded, ((0, 0), (0, 0), (0, layout.rows - 1), (0, 0)))
    return _put(tape, padded, 0, 1)
