"""Which instructions of a program have to run step by step, and how many steps of others are read.

The program is known here, not data. Only instructions on a cycle through earlier steps, or
between two cycles, need a loop over time; what comes before and after runs over all the steps
that are read of it at once. With only the last step's output wanted, that is often one.
As a layer, whose output is another's input, a program has all steps wanted, and a gradient of
its inputs.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.graphs.instructions import Form, decode
from elenas_jax.graphs.program import AFTER, CONSTANTS, TIME, Program, check_valid

_NUM_OPERANDS = {Form.UNARY: 1, Form.DATA: 2, Form.PARAMETER: 1, Form.CONSTANT: 1}


class Instruction(NamedTuple):
    """One instruction of a known program."""

    form: Form
    row: Any  # of the operation tables, None for a load
    out: int  # slot
    operands: tuple[tuple[int, int], ...]  # (slot, delay)
    parameter: int  # place among initial nodes, or -1
    constant: int  # slot of the constant read, or -1
    shape: tuple[int, int]  # rows and columns of the result


class Schedule(NamedTuple):
    """Instructions in an order of evaluation; `before` and `after` in one that holds over delays too."""

    constants: tuple[Instruction, ...]  # of parameters alone
    before: tuple[Instruction, ...]
    inside: tuple[Instruction, ...]
    after: tuple[Instruction, ...]
    window: tuple[int, ...]  # by slot: how many steps, counted from the last, are read
    trained: frozenset[int]  # slots that a parameter reaches
    parameters: tuple[tuple[int, int, int], ...]  # (place among initial nodes, rows, columns)
    output: int
    steps: int


def make_schedule(program: Program, time_steps: int, *, as_layer: bool = False) -> Schedule:
    """Schedules a valid, unbatched program; host only.

    Args:
      program: of any padding.
      time_steps: T.
      as_layer: whether the output of every step is wanted, not only the last one's, and
        the inputs are trained.

    Raises:
      ValueError: for an invalid program.
    """
    program = jax.tree.map(np.asarray, program)
    check_valid(program)
    instructions = _instructions(program, time_steps)
    num_constants = int(program.phase_ends[CONSTANTS])
    constants, rest = instructions[:num_constants], instructions[num_constants:]
    num_slots = len(instructions) + 1
    reach = np.zeros((num_slots, num_slots), bool)
    for each in rest:
        for slot, _ in each.operands:
            reach[slot, each.out] = True
    for middle in range(num_slots):
        reach |= reach[:, middle, None] & reach[None, middle]
    cyclic = np.diagonal(reach)
    follows = cyclic | reach[cyclic].any(0)
    precedes = cyclic | reach[:, cyclic].any(1)
    order = sorted(rest, key=lambda each: reach[:, each.out].sum())
    inside = tuple(each for each in rest if follows[each.out] and precedes[each.out])
    after = tuple(each for each in order if follows[each.out] and not precedes[each.out])
    before = tuple(each for each in order if not follows[each.out])

    steps = time_steps if program.recurrent else 1
    output = int(program.output)
    window = np.zeros(num_slots, int)
    window[output] = steps if as_layer else 1
    window[[each.out for each in inside]] = steps
    for each in (*reversed(after), *inside, *reversed(before)):
        for slot, delay in each.operands:
            window[slot] = max(window[slot], min(steps, window[each.out] + delay))
    reads = {each.out for each in rest if each.parameter >= 0 or each.constant >= 0}
    reads |= {0} if as_layer else set()
    trained = reads | set(np.flatnonzero(reach[sorted(reads)].any(0)).tolist())
    shapes = zip(program.parameter_rows.tolist(), program.parameter_cols.tolist(), strict=True)
    return Schedule(
        tuple(constants),
        before,
        inside,
        after,
        tuple(window.tolist()),
        frozenset(trained),
        tuple((place, rows, cols) for place, (rows, cols) in enumerate(shapes) if rows),
        output,
        steps,
    )


def has_loop(program: Program, time_steps: int) -> bool:
    """Whether the last step's output of a valid, unbatched program takes a loop over time; host only."""
    return bool(make_schedule(program, time_steps).inside)


def _instructions(program: Program, time_steps: int) -> list[Instruction]:
    rows = np.where(program.rows == TIME, time_steps, program.rows).tolist()
    cols = np.where(program.cols == TIME, time_steps, program.cols).tolist()
    num_parameters = program.parameter_rows.shape[0]
    found = []
    for place in range(int(program.phase_ends[AFTER])):
        form, row = decode(int(program.op[place]))
        arguments = zip(program.arg[place].tolist(), program.delay[place].tolist(), strict=True)
        operands = tuple(arguments)[: _NUM_OPERANDS.get(form, 0)]
        read = int(program.parameter[place])
        parameter = read if read < num_parameters else -1
        constant = read - num_parameters + 1 if read >= num_parameters else -1
        shape = (rows[place + 1], cols[place + 1])
        found.append(Instruction(form, row, place + 1, operands, parameter, constant, shape))
    return found
