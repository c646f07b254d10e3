"""The interpreted executor: programs are data to compiled programs that many chunks share.

There is one compiled program for each kind of layout and size of padding that a population needs,
however many candidates there are; unused room costs next to nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.executors import (
    SEGMENT_STEPS,
    Batches,
    Outcome,
    Setting,
    Trials,
    out_of_memory,
    training_segments,
    validation_segments,
)
from elenas_jax.evaluation.training import (
    LOSS_NAMES,
    TRAIN,
    VALIDATION,
    Job,
    TrainState,
    initial_state,
    make_segment,
)
from elenas_jax.graphs.instructions import find_operations
from elenas_jax.graphs.machine import Layout, Machine, known_machine
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import AFTER, CONSTANTS, LAYOUTS, Program, find_layout, trim
from elenas_jax.graphs.schedule import make_schedule


class Padding(NamedTuple):
    """What a compiled program has room for."""

    kind: str  # one of LAYOUTS
    operations: str  # one of OPERATION_SETS
    instructions: int
    rows: int  # of parameters
    scratch: int  # rows of constants


def find_padding(program: Program, width: int, time_steps: int) -> Padding:
    """The smallest of few paddings that holds a batch of programs.

    Args:
      width: the widest of in, out and hidden features.
    """
    kind = LAYOUTS[int(np.max(find_layout(program)))]
    ends, width = program.phase_ends, layout_width(kind, width, time_steps)
    is_constant = np.arange(program.max_instructions) < ends[:, CONSTANTS, None]
    constants = int(np.where(is_constant, program.rows[:, 1:], 0).sum(-1).max())
    rows = int(program.parameter_rows.sum(-1).max())
    size = 1
    while ends[:, AFTER].max() > 32 * size or rows > 12 * size * width or constants > 8 * size * width:
        size *= 2
    return Padding(kind, find_operations(program.op), 32 * size, 12 * size * width, 8 * size * width)


def layout_width(kind: str, width: int, time_steps: int) -> int:
    return max(width, time_steps) if kind == "sequence" else width


def train(trials: Trials, setting: Setting, batches: Batches) -> Outcome:
    """Trains candidates, as many at a time as memory allows.

    Raises:
      MemoryError: if not even one fits.
    """
    task = setting.task
    batches = functools.partial(batches, int(trials.replicates[0]))
    padding = find_padding(trials.program, setting.width, task.time_steps)
    width = layout_width(padding.kind, setting.width, task.time_steps)
    layout = Layout(padding.kind, width, task.time_steps, last_only=True, operations=padding.operations)
    # The buffers are the same for any number of candidates: what they alone exceed is not compiled.
    values = (padding.instructions + 1) * (layout.steps + 1) * setting.batch_size * layout.rows * width
    if 8 * values > setting.memory:
        raise out_of_memory(8 * values, setting)
    per_device = setting.per_device
    while True:
        chunks = [_Chunk(part, padding, layout) for part in _cut(trials, setting.devices * per_device)]
        needed = _memory_needed(chunks[0], setting._replace(per_device=per_device), batches)
        if needed <= setting.memory:
            break
        if per_device == 1:
            raise out_of_memory(needed, setting)
        per_device //= 2
    found = [_train_chunk(chunk, setting._replace(per_device=per_device), batches) for chunk in chunks]
    metrics, finite, losses = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Outcome(metrics, finite, losses, compile_seconds=0.0, errors={})


def _cut(trials: Trials, size: int) -> list[Trials]:
    return [
        jax.tree.map(lambda leaf, first=first: leaf[first : first + size], trials)
        for first in range(0, len(trials.steps), size)
    ]


class _Chunk(NamedTuple):
    trials: Trials
    padding: Padding
    layout: Layout


class _Prepared(NamedTuple):
    """A chunk on lanes: leaves `[D, C, ...]`."""

    lanes: np.ndarray  # [D, C] places of candidates, -1 where a lane is free
    code: Machine
    steps: np.ndarray  # [D, C]
    states: TrainState
    segment: parallel.Mapped


def _prepare(chunk: _Chunk, setting: Setting) -> _Prepared:
    trials, padding, layout = chunk
    program = trim(trials.program, padding.instructions)
    machines = [
        known_machine(one, make_schedule(one, layout.time_steps), layout)
        for one in (jax.tree.map(lambda leaf, k=k: leaf[k], program) for k in range(len(trials.steps)))
    ]
    costs = np.array([_cost(one, layout) for one in machines]) * trials.steps
    lanes = _deal(costs, setting.devices, setting.per_device)
    chosen = np.maximum(lanes, 0)
    start, segment = _compiled(padding, layout, setting.batch_size, setting.learning_rate, setting.devices)
    # Programs of tasks with other inputs look alike to the compiler; sizes are in their arrays.
    program = dataclasses.replace(program, in_features=setting.in_features)
    # One device after the other, by one program: drawing is quick, a program for each device is not.
    states = [
        start(jax.tree.map(lambda leaf, lane=lane: leaf[lane], program), trials.weights[lane])
        for lane in chosen[:, None]
    ]
    return _Prepared(
        lanes,
        jax.tree.map(lambda *leaves: np.stack(leaves)[chosen], *machines),
        np.where(lanes >= 0, trials.steps[chosen], 0),
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *states),
        segment,
    )


_NEEDED: dict[tuple, int] = {}


def _memory_needed(chunk: _Chunk, setting: Setting, batches: Callable) -> int:
    """Asks the compiled program, once for each; what is compiled for it is what runs later."""
    shape = (setting.batch_size, setting.learning_rate, setting.devices, setting.per_device)
    program = chunk.trials.program
    widths = (setting.in_features, setting.task.out_features, program.head, program.hidden_features)
    key = (chunk.padding, chunk.layout, *widths, *shape)
    if key not in _NEEDED:
        prepared = _prepare(chunk, setting)
        job = Job(prepared.code, prepared.steps.astype(np.int32), np.ones(prepared.lanes.shape, bool))
        arguments = (job, prepared.states, *batches(TRAIN, 0), np.int32(0))
        _NEEDED[key] = prepared.segment.memory_needed(*arguments)
    return _NEEDED[key]


def _train_chunk(chunk: _Chunk, setting: Setting, batches: Callable):
    """Returns `[B]` metrics, whether all losses were finite, and losses."""
    task, num = setting.task, len(chunk.trials.steps)
    lanes, code, steps, states, segment = _prepare(chunk, setting)
    loss = np.int32(LOSS_NAMES.index(task.loss))

    def run(states: TrainState, kind: int, first: int, count: np.ndarray) -> TrainState:
        job = Job(code, count.astype(np.int32), np.full(lanes.shape, kind == TRAIN))
        return segment(job, states, *batches(kind, first), loss)

    losses = np.zeros(lanes.shape)
    for first, _ in training_segments(int(steps.max())):
        count = np.clip(steps - first, 0, SEGMENT_STEPS)
        states = run(states, TRAIN, first, count)
        losses = np.where(count > 0, np.asarray(states.loss_sum) / np.maximum(count, 1), losses)
    metric, total = np.zeros(lanes.shape), 0
    for first, number in validation_segments(setting):
        states = run(states, VALIDATION, first, np.where(steps > 0, number, 0))
        metric, total = metric + np.asarray(states.right_sum), total + number
    finite = np.asarray(states.finite)
    taken = lanes >= 0

    def by_place(values: np.ndarray) -> np.ndarray:
        spread = np.zeros(num, values.dtype)
        spread[lanes[taken]] = values[taken]
        return spread

    return by_place(np.where(finite, metric / total, np.nan)), by_place(finite), by_place(losses)


# Compiled once in a process, whichever evaluator asks.
@functools.cache
def _compiled(padding: Padding, layout: Layout, batch_size: int, learning_rate: float, devices: int):
    """Returns the functions that start and continue a chunk of programs of that padding."""

    def start_one(program: Program, weights) -> TrainState:
        key = jax.random.wrap_key_data(weights)
        params = init_params(key, program, rows=padding.rows, width=layout.width)
        return initial_state(params, learning_rate)

    segment = make_segment(
        layout,
        max_instructions=padding.instructions,
        batch_size=batch_size,
        learning_rate=learning_rate,
        scratch=padding.scratch,
    )
    return (
        parallel.map_over_devices(jax.vmap(start_one), 1, split=(True, True)),
        parallel.map_over_devices(segment, devices, split=(True, True, False, False, False)),
    )


def _cost(code: Machine, layout: Layout) -> int:
    """About what a step costs, in rounds of the loops."""
    ends = code.values.ends + code.pulls.ends
    return int(1 + ends[0] + layout.steps * (ends[1] - ends[0]) + ends[3] - ends[2])


def _deal(costs: np.ndarray, devices: int, per_device: int) -> np.ndarray:
    """Deals candidates to devices, dearest first, to the least loaded; returns `[D, C]` places, -1 free."""
    lanes = np.full((devices, per_device), -1)
    load, used = np.zeros(devices), np.zeros(devices, int)
    for place in np.argsort(-costs, kind="stable"):
        device = min((d for d in range(devices) if used[d] < per_device), key=lambda d: (load[d], d))
        lanes[device, used[device]] = place
        load[device] += costs[place]
        used[device] += 1
    return lanes
