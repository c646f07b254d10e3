"""What the passes of `execution` read of a program: sizes, and which instructions they visit when."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.instructions import branch_codes, pull_codes
from elenas_jax.graphs.program import AFTER, BEFORE, CONSTANTS, INSIDE, TIME, Program
from elenas_jax.graphs.schedule import Instruction, Schedule
from elenas_jax.types import AnyArray

# Values that are read at no more than so many steps are computed at those alone.
FEW_STEPS = 4


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


# Columns of the tables of visits.
(
    BRANCH,  # of the pass's switch
    OUT,  # slot written
    SLOT_A,
    DELAY_A,
    SLOT_B,
    DELAY_B,
    TARGET,  # slot whose cotangent the reverse pass adds to: a or b
    TARGET_DELAY,
    READS,  # first row of the parameter or constant read
    READ_ROWS,
    ROWS,
    COLS,
    ROWS_A,
    COLS_A,
    BACK,  # steps before the last one, of what runs at one step
) = range(15)


class Visits(NamedTuple):
    """Instructions in the order in which a pass visits them; K places.

    Those before `ends[0]` run over all steps at once, up to `ends[1]` step by step, up to `ends[2]`
    over all steps at once again, and up to `ends[3]` at one step each. What a visit needs lies in
    one row of a table, so that little is looked up step by step.
    """

    table: AnyArray  # [K, columns] int32
    ends: AnyArray  # [4]


class Machine(NamedTuple):
    """A program with sizes resolved, as the passes read it."""

    values: Visits
    pulls: Visits  # in reverse
    gradients: Visits  # of what reads a parameter or constant
    constants: AnyArray  # [I, columns] the table of all instructions, of which constants are the first
    constant_pulls: AnyArray  # [I] branch of the switch that pulls a constant back
    writes: AnyArray  # [I] first row of the constant this instruction computes
    num_constants: AnyArray  # []
    parameter_rows: AnyArray  # [] rows of all parameters, the first of the packed ones
    fixed_rows: AnyArray  # [] of parameters and constants
    first_step: AnyArray  # [] of the input that is read
    output: AnyArray  # [] slot
    output_rows: AnyArray  # []


def machine(program: Program, layout: Layout) -> Machine:
    """Resolves sizes and places of an unbatched program; jittable.

    Phases are those of the constructor, and every output is wanted; `known_machine` does better for
    programs on the host.
    """
    if layout.last_only:
        raise ValueError("Which values the last step needs is known of programs on the host alone.")
    rows = jnp.where(program.rows == TIME, layout.time_steps, program.rows)
    cols = jnp.where(program.cols == TIME, layout.time_steps, program.cols)
    place = jnp.arange(program.op.shape[0])
    constant_rows = jnp.where(place < program.phase_ends[CONSTANTS], rows[1:], 0)
    sizes = jnp.concatenate([program.parameter_rows, constant_rows])
    first = jnp.cumsum(sizes) - sizes
    read = jnp.maximum(program.parameter, 0)
    none = jnp.zeros_like(place)
    columns = [none, place + 1]
    for operand in (0, 1):
        columns += [program.arg[:, operand], program.delay[:, operand]]
    columns += [none, none, first[read], sizes[read], rows[1:], cols[1:]]
    columns += [rows[program.arg[:, 0]], cols[program.arg[:, 0]], none]
    table = jnp.stack(columns, axis=1).astype(jnp.int32)

    def branches(table_of: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(np.array(table_of, np.int32))[program.op]

    branch = branches(branch_codes(layout.rows, layout.operations, False)[1])
    pull = jnp.asarray(pull_codes(layout.rows, layout.operations, False)[1])[program.op]
    begin = program.phase_ends[CONSTANTS]
    ends = program.phase_ends[jnp.array([BEFORE, INSIDE, AFTER, AFTER])] - begin
    # From the first place behind the constants on.
    visited = jnp.minimum(begin + place, place.shape[0] - 1)
    values = table.at[:, BRANCH].set(branch)[visited]
    pulls = jnp.repeat(table, 2, axis=0).at[:, BRANCH].set(pull.reshape(-1))
    for column, first_of in ((TARGET, SLOT_A), (TARGET_DELAY, DELAY_A)):
        both = jnp.stack([table[:, first_of], table[:, first_of + SLOT_B - SLOT_A]], axis=1)
        pulls = pulls.at[:, column].set(both.reshape(-1))
    pulls = pulls.reshape(place.shape[0], -1)[visited].reshape(pulls.shape)
    width = layout.width
    return Machine(
        Visits(values, ends),
        Visits(pulls, 2 * ends),
        Visits(values, ends),
        table.at[:, BRANCH].set(branches(branch_codes(width, layout.operations, True)[1])),
        jnp.asarray(pull_codes(width, layout.operations, True)[1])[program.op, 0],
        first[program.parameter_rows.shape[0] :],
        begin,
        jnp.sum(program.parameter_rows),
        jnp.sum(sizes),
        jnp.zeros((), jnp.int32),
        program.output,
        rows[program.output],
    )


_machine = jax.jit(machine, static_argnames="layout")


def known_machine(program: Program, schedule: Schedule, layout: Layout) -> Machine:
    """As `machine`, of a program on the host whose last step's output is wanted.

    Visits what is read, at the steps where it is read, and pulls only towards parameters.
    """
    base = jax.tree.map(np.asarray, _machine(program, dataclasses.replace(layout, last_only=False)))
    size = program.op.shape[0]
    _, branch_of = branch_codes(layout.rows, layout.operations, False)
    _, pull_of = pull_codes(layout.rows, layout.operations, False)
    few = min(FEW_STEPS, schedule.steps - 1) if layout.kind != "sequence" else 0

    def at_few(each: Instruction) -> bool:
        return schedule.window[each.out] <= few

    bulk = [each for each in schedule.before if not at_few(each)]
    stepwise = [*schedule.inside, *(each for each in schedule.after if not at_few(each))]
    stepwise.sort(key=lambda each: each.out)
    alone = [
        (each, back)
        for each in (*schedule.before, *schedule.after)
        if at_few(each)
        for back in reversed(range(schedule.window[each.out]))
    ]

    def visits(operands_of, branch) -> Visits:
        parts = [
            [(each, operand, 0) for each in bulk for operand in operands_of(each)],
            [(each, operand, 0) for each in stepwise for operand in operands_of(each)],
            [(each, operand, back) for each, back in alone for operand in operands_of(each)],
        ]
        flat = [entry for part in parts for entry in part]
        table = np.zeros((2 * FEW_STEPS * size, base.constants.shape[1]), np.int32)
        for row, (each, operand, back) in zip(table, flat, strict=False):
            row[:] = base.constants[each.out - 1]
            row[BRANCH], row[BACK] = branch(int(program.op[each.out - 1]), operand), back
            shift = operand * (SLOT_B - SLOT_A)
            row[TARGET], row[TARGET_DELAY] = row[SLOT_A + shift], row[DELAY_A + shift]
        return Visits(table, np.cumsum([len(parts[0]), len(parts[1]), 0, len(parts[2])]).astype(np.int32))

    def trained_operands(each: Instruction):
        return [which for which, (slot, _) in enumerate(each.operands) if slot in schedule.trained]

    def fixed_operand(each: Instruction):
        return [0] if each.parameter >= 0 or each.constant >= 0 else []

    is_read = schedule.window[0] if schedule.window[0] <= few else schedule.steps
    return base._replace(
        first_step=np.int32(schedule.steps - is_read),
        values=visits(lambda each: [0], lambda code, _: branch_of[code]),
        pulls=visits(trained_operands, lambda code, operand: pull_of[code, operand]),
        gradients=visits(fixed_operand, lambda code, _: branch_of[code]),
    )
