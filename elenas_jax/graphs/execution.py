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

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from elenas_jax.graphs.instructions import (
    Operands,
    branch_codes,
    compute,
    parameter_gradient,
    pull_back,
    pull_codes,
    switch,
)
from elenas_jax.graphs.machine import (
    BACK,
    BRANCH,
    COLS,
    COLS_A,
    DELAY_A,
    DELAY_B,
    OUT,
    READ_ROWS,
    READS,
    ROWS,
    ROWS_A,
    SLOT_A,
    SLOT_B,
    TARGET,
    TARGET_DELAY,
    Layout,
    Machine,
    Visits,
)
from elenas_jax.ops import Extent
from elenas_jax.types import AnyArray

# No place is counted from the end here, and arithmetic for those that are was a third of tracing.
_slice = functools.partial(lax.dynamic_slice, allow_negative_indices=False)
_update = functools.partial(lax.dynamic_update_slice, allow_negative_indices=False)


def with_scratch(rows: jax.Array, num_constant_rows: int) -> jax.Array:
    """Adds `[.., W]` zero rows behind `[L, W]` parameters: for constants, and for reading past the end."""
    return jnp.pad(rows, ((0, num_constant_rows + rows.shape[1]), (0, 0)))


def _read_block(params, first, count, layout_rows: int):
    block = _slice(params, (first, 0), (layout_rows, params.shape[1]))
    return jnp.where((jnp.arange(layout_rows) < count)[:, None], block, 0.0)


class _Visit:
    """One row of a table of visits, looked up where it is used."""

    def __init__(self, table: AnyArray, index) -> None:
        self.table, self.index = table, index

    def __getitem__(self, column: int) -> jax.Array:
        return jnp.reshape(_slice(self.table, (self.index, column), (1, 1)), ())


class _Operands:
    """See `instructions.Operands`; `value_at(slot, delay)` reads values."""

    def __init__(self, visit: _Visit, params, rows: int, value_at: Callable, shape) -> None:
        self.visit, self.params, self.rows, self.value_at, self.shape = visit, params, rows, value_at, shape

    def a(self):
        return self.value_at(self.visit[SLOT_A], self.visit[DELAY_A])

    def b(self):
        return self.value_at(self.visit[SLOT_B], self.visit[DELAY_B])

    def row(self):
        return _slice(self.params, (self.visit[READS], 0), (1, self.params.shape[1]))[0]

    def block(self):
        return _read_block(self.params, self.visit[READS], self.visit[READ_ROWS], self.rows)

    def matrix(self):
        width = self.params.shape[1]
        return _slice(self.params, (self.visit[READS], 0), (width, width))

    def a_extent(self) -> Extent:
        return self._extent(ROWS_A, COLS_A)

    def extent(self) -> Extent:
        return self._extent(ROWS, COLS)

    def _extent(self, rows: int, cols: int) -> Extent:
        width = self.params.shape[1]
        valid_rows = jnp.arange(self.rows) < self.visit[rows]
        return Extent(valid_rows[:, None], (jnp.arange(width) < self.visit[cols])[None, :])


def _constant_operands(code: Machine, params, visit: _Visit) -> _Operands:
    """Constants are computed as squares, each of its own rows, behind the parameters."""
    width = params.shape[1]

    def value_at(slot, _):
        return _read_block(params, code.writes[jnp.maximum(slot - 1, 0)], visit[ROWS_A], width)

    return _Operands(visit, params, width, value_at, (width, width))


def compute_constants(
    code: Machine, params: jax.Array, operations: str, most: int | None = None
) -> jax.Array:
    """Writes the constants of a program behind its parameters.

    Args:
      code: a machine.
      params: `[L, W]` packed rows of parameters `with_scratch`.
      operations: see `Layout`.
      most: constants that are computed at most, static, so that JAX can differentiate the loop; what is
        computed beyond those that there are stands behind them. None computes as many as there are.

    Returns:
      `[L, W]` rows with the constants in place.
    """
    codes, _ = branch_codes(params.shape[1], operations, True)

    def compute_one(place, params):
        visit = _Visit(code.constants, place)
        which = _constant_operands(code, params, visit)
        value = switch(visit[BRANCH], [compute(each, which) for each in codes])
        return _update(params, value, (code.writes[place], 0))

    return lax.fori_loop(0, code.num_constants if most is None else most, compute_one, params)


def _at(buffer, slot, step, length: int):
    size = (1, length, *buffer.shape[2:])
    return _slice(buffer, (slot, step, 0, 0, 0), size)[0]


def _at_visit(buffer, visit: _Visit, step, length: int):
    """What belongs to the slot that a visit writes, from a step on."""
    return _at(buffer, visit[OUT], step + 1, length)


def _put(buffer, value, slot, step):
    return _update(buffer, value[None], (slot, step, 0, 0, 0))


def _step_by_step(visits: Visits, steps: int, run: Callable, carry, reverse: bool = False):
    """Runs `run(visit, step, carry)` step by step, and at one step what runs at one step.

    Those come after the last step. One loop for both, so that their instructions are compiled once.
    """
    ends = visits.ends

    def round_(k, carry):
        t = steps - k if reverse else k
        alone = t == steps
        begin, end = jnp.where(alone, ends[2], ends[0]), jnp.where(alone, ends[3], ends[1])

        def one(j, carry):
            visit = _Visit(visits.table, end - 1 - j if reverse else begin + j)
            return run(visit, jnp.where(alone, steps - 1 - visit[BACK], t), carry)

        return lax.fori_loop(0, end - begin, one, carry)

    # A program without cycles has nothing to run step by step.
    first = jnp.where(ends[1] > ends[0], 0, steps)
    if reverse:
        return lax.fori_loop(0, steps + 1 - first, round_, carry)
    return lax.fori_loop(first, steps + 1, round_, carry)


def forward(code: Machine, params: jax.Array, tape: jax.Array, layout: Layout) -> jax.Array:
    """Fills the tape.

    Args:
      code: a machine.
      params: rows with constants in place, see `compute_constants`.
      tape: `[V, T + 1, N, R, W]` with the input in slot 0 and the carry at step 0.
      layout: static shape of the pass.

    Returns:
      The tape with every value of the program that is read.
    """
    visits = code.values
    codes, _ = branch_codes(layout.rows, layout.operations, False)

    def run(visit, step, tape, length):
        which = _operands(visit, params, tape, layout, step, length)
        value = switch(visit[BRANCH], [compute(each, which) for each in codes])
        return _put(tape, value, visit[OUT], step + 1)

    def at_once(k, tape):
        return run(_Visit(visits.table, k), 0, tape, layout.steps)

    tape = lax.fori_loop(0, visits.ends[0], at_once, tape)
    if layout.kind != "sequence":
        tape = _step_by_step(visits, layout.steps, functools.partial(run, length=1), tape)
        if not layout.last_only:
            tape = lax.fori_loop(visits.ends[1], visits.ends[2], at_once, tape)
    return tape


def backward(
    code: Machine,
    params: jax.Array,
    tape: jax.Array,
    cotangents: jax.Array,
    gradient: jax.Array,
    layout: Layout,
):
    """Runs a program in reverse.

    Args:
      code, params, tape, layout: as `forward` left them.
      cotangents: `[V, T + 1, N, R, W]`, that of the output in place, zero where else the program
        adds to it (`clear_cotangents`).
      gradient: `[L, W]`, zero in the rows of parameters and constants.

    Returns:
      The cotangents of all values, and `[L, W]` those of the parameters' rows.
    """
    pulls, _ = pull_codes(layout.rows, layout.operations, False)

    def run(visit, step, cotangents, length):
        which = _operands(visit, params, tape, layout, step, length)
        result = functools.partial(_at_visit, tape, visit, step, length)
        cotangent = functools.partial(_at_visit, cotangents, visit, step, length)
        branches = [pull_back(*each, which, result, cotangent) for each in pulls]
        branches.append(lambda: jnp.zeros(which.shape))
        part = switch(visit[BRANCH], branches)
        slot, at = visit[TARGET], step + 1 - visit[TARGET_DELAY]
        return _put(cotangents, _at(cotangents, slot, at, length) + part, slot, at)

    def at_once(begin, end, cotangents):
        def one(k, cotangents):
            return run(_Visit(code.pulls.table, end - 1 - k), 0, cotangents, layout.steps)

        return lax.fori_loop(0, end - begin, one, cotangents)

    ends = code.pulls.ends
    if layout.kind != "sequence":
        if not layout.last_only:
            cotangents = at_once(ends[1], ends[2], cotangents)
        single = functools.partial(run, length=1)
        cotangents = _step_by_step(code.pulls, layout.steps, single, cotangents, reverse=True)
    cotangents = at_once(0, ends[0], cotangents)

    codes, _ = branch_codes(layout.rows, layout.operations, False)
    readers = code.gradients

    def accumulate(visit, step, gradient, length):
        which = _operands(visit, params, tape, layout, step, length)
        cotangent = functools.partial(_at_visit, cotangents, visit, step, length)
        return _accumulate(gradient, visit, codes, which, cotangent)

    gradient = lax.fori_loop(
        0,
        readers.ends[2],
        lambda k, g: accumulate(_Visit(readers.table, k), 0, g, layout.steps),
        gradient,
    )
    if layout.last_only and layout.kind != "sequence":

        def at_one(k, gradient):
            visit = _Visit(readers.table, k)
            return accumulate(visit, layout.steps - 1 - visit[BACK], gradient, 1)

        gradient = lax.fori_loop(readers.ends[2], readers.ends[3], at_one, gradient)
    return cotangents, _constants_backward(code, params, gradient, layout)


def _operands(visit: _Visit, params, tape, layout: Layout, step, length: int) -> _Operands:
    def value_at(slot, delay):
        return _at(tape, slot, step + 1 - delay, length)

    return _Operands(visit, params, layout.rows, value_at, (length, *tape.shape[2:]))


def _accumulate(gradient, visit: _Visit, codes, which: Operands, cotangent):
    """Adds what an instruction contributes to the parameter or constant it reads."""
    width = gradient.shape[1]
    block = switch(visit[BRANCH], [parameter_gradient(each, which, cotangent, width) for each in codes])
    block = jnp.where((jnp.arange(width) < visit[READ_ROWS])[:, None], block, 0.0)
    old = _slice(gradient, (visit[READS], 0), (width, width))
    return _update(gradient, old + block, (visit[READS], 0))


def _constants_backward(code: Machine, params, gradient, layout: Layout):
    """Hands the cotangents of constants on to the parameters they are made of."""
    width = layout.width
    codes, _ = branch_codes(width, layout.operations, True)
    pulls, _ = pull_codes(width, layout.operations, True)

    def pull_one(k, gradient):
        place = code.num_constants - 1 - k
        visit = _Visit(code.constants, place)
        which = _constant_operands(code, params, visit)

        def cotangent():
            return _read_block(gradient, code.writes[place], visit[ROWS], width)

        def result():
            return _read_block(params, code.writes[place], visit[ROWS], width)

        branches = [pull_back(*each, which, result, cotangent) for each in pulls]
        branches.append(lambda: jnp.zeros((width, width)))
        # A constant that begins by reading a parameter has no operand to hand anything to.
        of_value = switch(code.constant_pulls[place], branches)
        gradient = _accumulate(gradient, visit, codes, which, cotangent)
        origin = code.writes[jnp.maximum(visit[SLOT_A] - 1, 0)]
        old = _slice(gradient, (origin, 0), (width, width))
        return _update(gradient, old + of_value, (origin, 0))

    return lax.fori_loop(0, code.num_constants, pull_one, gradient)


def clear_cotangents(code: Machine, cotangents: jax.Array, layout: Layout) -> jax.Array:
    """Sets the cotangents that the reverse pass of a known program adds to, to zero."""
    visits = code.values
    whole, one = jnp.zeros((layout.steps, *cotangents.shape[2:])), jnp.zeros((1, *cotangents.shape[2:]))

    def clear_whole(k, buffer):
        return _put(buffer, whole, _Visit(visits.table, k)[OUT], 1)

    def clear_one(k, buffer):
        visit = _Visit(visits.table, k)
        return _put(buffer, one, visit[OUT], layout.steps - visit[BACK])

    cotangents = lax.fori_loop(0, visits.ends[2], clear_whole, cotangents)
    return lax.fori_loop(visits.ends[2], visits.ends[3], clear_one, cotangents)


def write_input(tape: jax.Array, inputs: jax.Array, layout: Layout, first: AnyArray | int = 0) -> jax.Array:
    """Writes the steps of `[N, T, F]` inputs from `first` on into slot 0 of a tape, from step 1 on."""
    num, time, features = inputs.shape
    padding = ((0, 0), (0, 0), (0, layout.width - features))
    if layout.kind == "sequence":
        return _put(tape, jnp.pad(inputs, (padding[0], (0, layout.rows - time), padding[2]))[None], 0, 1)

    def write(step, tape):
        row = _slice(inputs, (0, step, 0), (num, 1, features))
        row = jnp.pad(row, padding)[None, :, :, :]
        row = jnp.reshape(row, (1, num, 1, layout.width))
        row = jnp.pad(row, ((0, 0), (0, 0), (0, layout.rows - 1), (0, 0)))
        return _put(tape, row, 0, step + 1)

    return lax.fori_loop(first, time, write, tape)
