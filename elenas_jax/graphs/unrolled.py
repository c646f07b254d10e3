"""A known program as straight-line JAX of true shapes, forwards and backwards.

Nothing is padded and nothing branches: what the fused executor compiles, one program at a time.
The reverse pass is written by hand. Its loop over time hands cotangents from step to step and
nothing more; those of parameters, and of values outside the loop, are taken after it, in one
product over all steps.

Values are `[steps, N, R, C]`, the last steps that are read of them, with N = 1 for what no input
reaches. A run may go on from the values that an earlier one left behind (`Values.earlier`); no
cotangents are handed back to those, which is truncated backpropagation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from elenas_jax.graphs import local_rules
from elenas_jax.graphs.local_rules import values_read
from elenas_jax.graphs.schedule import Instruction, Schedule

Shape = tuple[int, ...]


class Values(NamedTuple):
    """What the reverse pass reads of the forward pass; by slot."""

    stacks: dict[int, jax.Array]  # [window, N, R, C]
    constants: dict[int, jax.Array]  # [R, C]
    shapes: dict[int, Shape]  # (N, R, C), also of values that were not kept
    earlier: dict[int, jax.Array]  # [delay, N, R, C], before the first step; zero where there is none
    last: dict[int, jax.Array]  # [N, R, C], of what the loop over time carries


def forward(
    schedule: Schedule,
    params: dict[int, jax.Array],
    inputs: jax.Array,
    earlier: dict[int, jax.Array] | None = None,
) -> tuple[jax.Array, Values]:
    """Runs a program.

    Args:
      schedule: of the program.
      params: by place among initial nodes, of true shapes.
      inputs: `[T, N, F]`.
      earlier: values before the first step by slot, see `last_values`; none are all zero.

    Returns:
      `[steps, N, R, C]`, the output at the steps that the schedule is for, and what `backward` needs.
    """
    constants: dict[int, jax.Array] = {}
    for each in schedule.constants:
        operands = [constants[slot] for slot, _ in each.operands]
        value = local_rules.compute(each, operands, _fixed(each, params, constants))
        constants[each.out] = jnp.reshape(value, each.shape)
    first = inputs[:, :, None] if schedule.steps > 1 else jnp.swapaxes(inputs, 0, 1)[None]
    stacks = {0: first[first.shape[0] - schedule.window[0] :]}
    values = Values(stacks, constants, {0: first.shape[1:]}, earlier or {}, {})

    def at_once(instructions):
        for each in instructions:
            count = schedule.window[each.out]
            operands = [_last(values, slot, count, delay) for slot, delay in each.operands]
            value = local_rules.compute(each, operands, _fixed(each, params, constants))
            values.stacks[each.out] = jnp.broadcast_to(value, (count, *value.shape[1:]))
            values.shapes[each.out] = value.shape[1:]

    at_once(schedule.before)
    if schedule.inside:
        _forward_loop(schedule, params, values)
    at_once(schedule.after)
    output = values.stacks[schedule.output]
    return output[output.shape[0] - schedule.window[schedule.output] :], values


def backward(
    schedule: Schedule, params: dict[int, jax.Array], values: Values, cotangent: jax.Array
) -> tuple[dict[int, jax.Array], jax.Array | None]:
    """Runs a program in reverse.

    Args:
      schedule, params: as in `forward`.
      values: what it returned.
      cotangent: `[steps, N, R, C]` of its output.

    Returns:
      Cotangents of the parameters; and of the inputs, `[T, N, F]`, or None where the schedule
      does not train what comes before.
    """
    of_values = _Stacks({schedule.output: [(cotangent, 0)]})
    of_fixed: dict[tuple[str, int], jax.Array] = {}

    def add_fixed(key: tuple[str, int], part: jax.Array) -> None:
        of_fixed[key] = of_fixed[key] + part if key in of_fixed else part

    def hand_on(each: Instruction, g: jax.Array, skip: frozenset[int]) -> None:
        """Hands a cotangent on to the operands that are not skipped, and to what is fixed."""
        count, fixed = g.shape[0], _fixed(each, params, values.constants)
        operands = [_last(values, slot, count, delay) for slot, delay in each.operands]
        result = _last(values, each.out, count, 0)
        for which, (slot, delay) in enumerate(each.operands):
            if slot in schedule.trained and slot not in skip:
                part = local_rules.pull(each, which, operands, fixed, result, g)
                of_values.add(slot, part, delay, schedule.steps)
        if each.parameter >= 0:
            add_fixed(("parameter", each.parameter), local_rules.pull_fixed(each, operands, fixed, g))
        if each.constant >= 0:
            add_fixed(("constant", each.constant), local_rules.pull_fixed(each, operands, fixed, g))

    def at_once(instructions) -> None:
        for each in reversed(instructions):
            g = of_values.take(each.out)
            if g is not None:
                hand_on(each, g, frozenset())

    at_once(schedule.after)
    if schedule.inside:
        inside = frozenset(each.out for each in schedule.inside)
        found = _backward_loop(schedule, params, values, of_values)
        for each in schedule.inside:
            if each.out in found:
                hand_on(each, found[each.out], inside)
    at_once(schedule.before)
    for each in reversed(schedule.constants):
        if ("constant", each.out) in of_fixed:
            g, fixed = of_fixed["constant", each.out], _fixed(each, params, values.constants)
            operands = [values.constants[slot] for slot, _ in each.operands]
            for which, (slot, _) in enumerate(each.operands):
                part = local_rules.pull(each, which, operands, fixed, values.constants[each.out], g)
                add_fixed(("constant", slot), part)
            if each.parameter >= 0:
                add_fixed(("parameter", each.parameter), local_rules.pull_fixed(each, operands, fixed, g))
            if each.constant >= 0:
                add_fixed(("constant", each.constant), local_rules.pull_fixed(each, operands, fixed, g))
    of_params = {
        place: of_fixed.get(("parameter", place), jnp.zeros_like(value)) for place, value in params.items()
    }
    return of_params, _of_inputs(schedule, values, of_values)


def _of_inputs(schedule: Schedule, values: Values, of_values: "_Stacks") -> jax.Array | None:
    if 0 not in schedule.trained:
        return None
    found = of_values.take(0)
    whole = (schedule.steps, *values.shapes[0])
    if found is None:
        found = jnp.zeros(whole)
    found = jnp.pad(found, ((schedule.steps - found.shape[0], 0), (0, 0), (0, 0), (0, 0)))
    return found[:, :, 0] if schedule.steps > 1 else jnp.swapaxes(found[0], 0, 1)


def last_values(schedule: Schedule, values: Values) -> dict[int, jax.Array]:
    """Returns what a run that goes on after the last step reads of the steps before: its `earlier`."""
    return {slot: _newest(values, slot, delay) for slot, delay in _delays(schedule).items()}


def _delays(schedule: Schedule) -> dict[int, int]:
    """Returns the longest delay with which each slot is read, of those read late."""
    delays: dict[int, int] = {}
    for each in (*schedule.before, *schedule.inside, *schedule.after):
        for slot, delay in each.operands:
            if delay:
                delays[slot] = max(delay, delays.get(slot, 0))
    return delays


def _newest(values: Values, slot: int, count: int) -> jax.Array:
    if count == 1 and slot in values.last:
        return values.last[slot][None]
    return _last(values, slot, count, 0)


class _Stacks:
    """Sums of cotangents by slot, of the last steps of each, from parts that are some steps late."""

    def __init__(self, parts: dict[int, list[tuple[jax.Array, int]]]) -> None:
        self.parts = parts

    def add(self, slot: int, part: jax.Array, delay: int, steps: int) -> None:
        # The state before the first step is zero, whatever is said of it.
        surplus = max(part.shape[0] + delay - steps, 0)
        if surplus < part.shape[0]:
            self.parts.setdefault(slot, []).append((part[surplus:], delay))

    def take(self, slot: int) -> jax.Array | None:
        """Removes and returns the sum, of as many steps as anything was handed to, or None."""
        parts = self.parts.pop(slot, [])
        count = max((part.shape[0] + delay for part, delay in parts), default=0)
        total = None
        for part, delay in parts:
            front = count - delay - part.shape[0]
            whole = jnp.pad(part, ((front, delay), (0, 0), (0, 0), (0, 0))) if front or delay else part
            total = whole if total is None else total + whole
        return total


def _fixed(each: Instruction, params, constants) -> jax.Array | None:
    if each.parameter >= 0:
        return params[each.parameter]
    return constants[each.constant] if each.constant >= 0 else None


def _last(values: Values, slot: int, count: int, delay: int) -> jax.Array:
    """The last `count` steps of a slot, `delay` steps late; zero before the first, and where not kept."""
    if slot not in values.stacks:
        return jnp.zeros((count, *values.shapes[slot]))
    stack = values.stacks[slot]
    end = stack.shape[0] - delay
    if end >= count:
        return stack[end - count : end]
    stack = stack[: max(end, 0)]
    missing = count - stack.shape[0]
    if slot in values.earlier:
        kept = values.earlier[slot]
        kept = kept[: kept.shape[0] + min(end, 0)]
        stack = jnp.concatenate([kept[max(kept.shape[0] - missing, 0) :], stack])
        missing = count - stack.shape[0]
    return jnp.pad(stack, ((missing, 0), (0, 0), (0, 0), (0, 0)))


def _outer_reads(schedule: Schedule, inside: set[int]) -> list[tuple[int, int]]:
    return sorted({key for each in schedule.inside for key in each.operands if key[0] not in inside})


def _carried(schedule: Schedule, inside: set[int]) -> list[int]:
    return sorted({slot for each in schedule.inside for slot, delay in each.operands if delay} & inside)


def _forward_loop(schedule: Schedule, params, values: Values) -> None:
    """Runs what is inside over all steps, and adds what is read later to the values."""
    inside = {each.out for each in schedule.inside}
    outer, carried = _outer_reads(schedule, inside), _carried(schedule, inside)
    given = [_last(values, slot, schedule.steps, delay) for slot, delay in outer]
    # N grows around cycles until it stays.
    batch = dict.fromkeys(inside, 1)
    for _ in schedule.inside:
        for each in schedule.inside:
            reads = [batch[slot] if slot in inside else values.shapes[slot][0] for slot, _ in each.operands]
            batch[each.out] = max(batch[each.out], *reads, 1)
    values.shapes.update({each.out: (batch[each.out], *each.shape) for each in schedule.inside})

    kept = {schedule.output} | {slot for each in schedule.after for slot, _ in each.operands}
    for each in (*schedule.inside, *schedule.after):
        of_operands, of_result = values_read(each)
        kept |= {slot for (slot, _), is_read in zip(each.operands, of_operands, strict=True) if is_read}
        kept |= {each.out} if of_result else set()

    def step(carry, given):
        before = {key: value[None] for key, value in zip(outer, given, strict=True)}
        last = dict(zip(carried, carry, strict=True))
        now: dict[int, jax.Array] = {}
        for each in schedule.inside:
            operands = []
            for slot, delay in each.operands:
                if slot not in inside:
                    operands.append(before[slot, delay])
                else:
                    operands.append(last[slot] if delay else now[slot])
            now[each.out] = local_rules.compute(each, operands, _fixed(each, params, values.constants))
        return [now[slot] for slot in carried], {slot: now[slot][0] for slot in kept & inside}

    start = [
        values.earlier[slot][-1:] if slot in values.earlier else jnp.zeros((1, *values.shapes[slot]))
        for slot in carried
    ]
    # The length is said for loops that read nothing from outside.
    end, stacks = lax.scan(step, start, given, length=schedule.steps)
    values.stacks.update(stacks)
    values.last.update({slot: value[0] for slot, value in zip(carried, end, strict=True)})


def _backward_loop(schedule: Schedule, params, values: Values, of_values: _Stacks) -> dict[int, jax.Array]:
    """Returns cotangents `[T, N, R, C]` by slot, of those instructions that are needed after the loop."""
    inside = {each.out for each in schedule.inside}
    behind = {slot: g for slot in sorted(inside) if (g := of_values.take(slot)) is not None}
    carried = sorted({*_carried(schedule, inside), *behind})
    # What comes from behind the loop mostly concerns the last step: it starts the carry.
    start = [
        behind[slot][-1:] if slot in behind else jnp.zeros((1, *values.shapes[slot])) for slot in carried
    ]
    earlier = [slot for slot in behind if behind[slot].shape[0] > 1]
    late = [
        jnp.pad(behind[slot][:-1], ((schedule.steps - behind[slot].shape[0], 1), (0, 0), (0, 0), (0, 0)))
        for slot in earlier
    ]
    reads = set()
    for each in schedule.inside:
        of_operands, of_result = values_read(each)
        in_loop = [slot in inside for slot, _ in each.operands]
        if any(in_loop):
            reads |= {key for key, is_read in zip(each.operands, of_operands, strict=True) if is_read}
            reads |= {(each.out, 0)} if of_result else set()
    read = sorted(reads)
    given = [_last(values, slot, schedule.steps, delay) for slot, delay in read]
    wanted = {
        each.out
        for each in schedule.inside
        if each.parameter >= 0
        or each.constant >= 0
        or any(slot not in inside and slot in schedule.trained for slot, _ in each.operands)
    }

    def step(carry, given):
        known = {key: value[None] for key, value in zip(read, given[0], strict=True)}
        now = dict(zip(carried, carry, strict=True))
        for slot, part in zip(earlier, given[1], strict=True):
            now[slot] = now[slot] + part[None]
        before: dict[int, jax.Array] = {}
        found = {}
        for each in reversed(schedule.inside):
            g = now.get(each.out)
            if g is None:
                continue
            if each.out in wanted:
                found[each.out] = g[0]
            if not any(slot in inside for slot, _ in each.operands):
                continue
            fixed = _fixed(each, params, values.constants)
            operands = [
                known[key] if key in known else jnp.zeros((1, *values.shapes[key[0]]))
                for key in each.operands
            ]
            result = known.get((each.out, 0))
            for which, (slot, delay) in enumerate(each.operands):
                if slot in inside:
                    part = local_rules.pull(each, which, operands, fixed, result, g)
                    target = before if delay else now
                    target[slot] = target[slot] + part if slot in target else part
        carry = [before[slot] if slot in before else jnp.zeros((1, *values.shapes[slot])) for slot in carried]
        return carry, found

    return lax.scan(step, start, (given, late), length=schedule.steps, reverse=True)[1]
