"""A population of known programs as rows, level by level: what the batched executor runs.

A row is one instruction of one candidate. Rows of a level depend on rows of earlier levels alone, so
that a level of the whole population is one batched product and one elementwise kernel, however
many candidates there are. Levels are padded to powers of two: what is compiled depends on sizes, not
on graphs. Values must be rows (layout "row").
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.graphs.instructions import Form, branch_codes, decode
from elenas_jax.graphs.machine import COLS, COLS_A, READ_ROWS, READS, Layout, Machine, known_machine
from elenas_jax.graphs.program import Program
from elenas_jax.graphs.schedule import Instruction, Schedule
from elenas_jax.types import AnyArray


class Rows(NamedTuple):
    """Rows of one level that are worked on together. K rows."""

    branch: AnyArray  # [K] of the switch; products have none
    a: AnyArray  # [K] row that is read, of what came before
    delay_a: AnyArray  # [K] 0 or 1; inside the loop over time, 0
    b: AnyArray  # [K]
    delay_b: AnyArray  # [K]
    candidate: AnyArray  # [K]
    reads: AnyArray  # [K] first row of the parameter or constant read
    read_rows: AnyArray  # [K]
    cols: AnyArray  # [K] of the result
    cols_a: AnyArray  # [K]


class Level(NamedTuple):
    """Its results stand behind each other, products first."""

    products: Rows
    others: Rows


class Population(NamedTuple):
    """C candidates. Row 0 of all that can be read is the input."""

    before: tuple[Level, ...]
    given: AnyArray  # [G, 2] (row, delay) of what the loop over time reads from outside
    inside: tuple[Level, ...]
    after: tuple[Level, ...]
    output: AnyArray  # [C] row
    machines: Machine  # [C] for constants


class Sizes(NamedTuple):
    """What a population is compiled for. Pairs are (products, others) of each level."""

    steps: int  # the last steps of the input that are read
    after_steps: int
    given: int
    constants: int  # instructions that compute constants, of a candidate
    before: tuple[tuple[int, int], ...] = ()
    inside: tuple[tuple[int, int], ...] = ()
    after: tuple[tuple[int, int], ...] = ()


class _Draft(NamedTuple):
    """A population before padding."""

    before: list[tuple[list, list]]
    given: dict[tuple[int, int, int], int]  # (candidate, slot, delay) -> place
    inside: list[tuple[list, list]]
    after: list[tuple[list, list]]
    steps: int
    after_steps: int


def is_product_code(code: int) -> bool:
    """Whether an instruction of this code multiplies by a matrix of parameters."""
    form, row = decode(code)
    return form == Form.PARAMETER and row.shape_rule == "matmul"


def _is_product(each: Instruction) -> bool:
    # A product with a constant is one too: constants stand among the parameters.
    return each.form in (Form.PARAMETER, Form.CONSTANT) and each.row.shape_rule == "matmul"


def measure(schedules: Sequence[Schedule]) -> Sizes:
    """Returns the sizes that hold a population, rounded up."""
    draft = _draft(schedules)

    def rounded(levels) -> tuple[tuple[int, int], ...]:
        return tuple((_round_up(len(products)), _round_up(len(others))) for products, others in levels)

    return Sizes(
        draft.steps,
        draft.after_steps,
        _round_up(len(draft.given)),
        _round_up(max(len(schedule.constants) for schedule in schedules)),
        rounded(draft.before),
        rounded(draft.inside),
        rounded(draft.after),
    )


def widest(sizes: Sequence[Sizes]) -> Sizes:
    """Returns sizes that hold what each of some hold."""

    def levels(name: str) -> tuple[tuple[int, int], ...]:
        of_each = [getattr(each, name) for each in sizes]
        depth = max(map(len, of_each))
        padded = [(*each, *[(0, 0)] * (depth - len(each))) for each in of_each]
        return tuple((max(p for p, _ in same), max(o for _, o in same)) for same in zip(*padded, strict=True))

    return Sizes(
        *(max(getattr(each, name) for each in sizes) for name in Sizes._fields[:4]),
        *map(levels, Sizes._fields[4:]),
    )


def make_population(
    programs: Sequence[Program], schedules: Sequence[Schedule], sizes: Sizes, layout: Layout
) -> Population:
    """Lays programs out as rows; host only.

    Args:
      programs: unbatched, of equal padding, valid, of layout "row".
      schedules: theirs.
      sizes: that hold them.
      layout: "row", with `last_only`.
    """
    draft = _draft(schedules)
    machines = [known_machine(*both, layout) for both in zip(programs, schedules, strict=True)]
    branch_of = branch_codes(1, layout.operations, False)[1]
    place_of: dict[tuple[int, int], int] = {(c, 0): 0 for c in range(len(programs))}

    def rows(instructions: list, size: int, find: Callable) -> Rows:
        table = np.zeros((size, len(Rows._fields)), np.int32)
        for row, (c, each) in zip(table, instructions, strict=False):
            row[0] = branch_of[int(programs[c].op[each.out - 1])]
            for column, (slot, delay) in zip((1, 3), each.operands, strict=False):
                row[column : column + 2] = find(c, slot, delay)
            looked_up = machines[c].constants[each.out - 1]
            row[5:] = (c, *looked_up[[READS, READ_ROWS, COLS, COLS_A]])
        return Rows(*np.ascontiguousarray(table.T))

    def lay_out(levels, of_sizes, first: int, find: Callable) -> tuple[tuple[Level, ...], int]:
        found = []
        empty: list = []
        padded = [*levels, *[(empty, empty)] * (len(of_sizes) - len(levels))]
        for (products, others), (num_products, num_others) in zip(padded, of_sizes, strict=True):
            level = Level(rows(products, num_products, find), rows(others, num_others, find))
            for group, start in ((products, first), (others, first + num_products)):
                place_of.update({(c, each.out): start + k for k, (c, each) in enumerate(group)})
            first += num_products + num_others
            found.append(level)
        return tuple(found), first

    def outside(c: int, slot: int, delay: int) -> tuple[int, int]:
        return place_of[c, slot], delay

    before, end_of_before = lay_out(draft.before, sizes.before, 1, outside)
    given = np.zeros((sizes.given, 2), np.int32)
    for (c, slot, delay), place in draft.given.items():
        given[place] = place_of[c, slot], delay
    num_inside = sum(map(sum, sizes.inside))
    in_loop: set[tuple[int, int]] = {(c, each.out) for level in draft.inside for g in level for c, each in g}
    # Where the rows of the loop will stand must be known before they are laid out: they read each other late.
    start = end_of_before
    for (products, others), (num_products, num_others) in zip(draft.inside, sizes.inside, strict=False):
        for group, first in ((products, start), (others, start + num_products)):
            place_of.update({(c, each.out): first + k for k, (c, each) in enumerate(group)})
        start += num_products + num_others

    def within(c: int, slot: int, delay: int) -> tuple[int, int]:
        """Of what a step reads: given rows, then the loop's rows of the step before, then of this one."""
        if (c, slot) not in in_loop:
            return draft.given[c, slot, delay], 0
        return sizes.given + (0 if delay else num_inside) + place_of[c, slot] - end_of_before, 0

    inside, end_of_inside = lay_out(draft.inside, sizes.inside, end_of_before, within)
    after, _ = lay_out(draft.after, sizes.after, end_of_inside, outside)
    output = np.array([place_of[c, each.output] for c, each in enumerate(schedules)], np.int32)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *machines)
    return Population(before, given, inside, after, output, stacked)


def _round_up(count: int) -> int:
    """Rounds up to a power of two, at least 4; 0 stays."""
    return max(4, 1 << (count - 1).bit_length()) if count else 0


def _draft(schedules: Sequence[Schedule]) -> _Draft:
    given: dict[tuple[int, int, int], int] = {}
    for c, schedule in enumerate(schedules):
        in_loop = {each.out for each in schedule.inside}
        for slot, delay in (key for each in schedule.inside for key in each.operands):
            if slot not in in_loop:
                given.setdefault((c, slot, delay), len(given))
    looped = any(schedule.inside for schedule in schedules)
    longest = max(schedule.steps for schedule in schedules)
    # One step more than is read of any value: what is read late of the first one is not there.
    windows = [max(max(schedule.window) + 1, 1) for schedule in schedules]
    after = [schedule.window[each.out] + 1 for schedule in schedules for each in schedule.after]
    after += [schedule.window[schedule.output] + 1 for schedule in schedules]
    return _Draft(
        _by_level([s.before for s in schedules], late_too=True),
        given,
        _by_level([s.inside for s in schedules], late_too=False),
        _by_level([s.after for s in schedules], late_too=True),
        longest if looped else min(longest, _round_up(max(windows))),
        min(longest, _round_up(max(after))),
    )


def _by_level(phases: Sequence[Sequence[Instruction]], *, late_too: bool) -> list[tuple[list, list]]:
    """Sorts the instructions of one phase of all candidates into levels of (products, others)."""
    levels: list[tuple[list, list]] = []
    for c, instructions in enumerate(phases):
        known: dict[int, int] = {}
        own = {each.out: each for each in instructions}

        def level_of(each: Instruction, own=own, known=known) -> int:
            if each.out not in known:
                reads = [slot for slot, delay in each.operands if slot in own and (late_too or not delay)]
                known[each.out] = 1 + max((level_of(own[slot]) for slot in reads), default=-1)
            return known[each.out]

        for each in instructions:
            level = level_of(each)
            while len(levels) <= level:
                levels.append(([], []))
            levels[level][0 if _is_product(each) else 1].append((c, each))
    return levels
