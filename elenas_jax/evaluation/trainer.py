"""Takes chunks of candidates up the ladder in compiled programs that many chunks share.

A graph is data to the compiled program: there is one for each kind of layout and size of padding
that a population needs, however many candidates there are.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.training import (
    LOSS_NAMES,
    TRAIN,
    VALIDATION,
    Job,
    TrainState,
    data_key,
    initial_state,
    make_segment,
    weights_key,
)
from elenas_jax.graphs import ComputationGraph, num_flops
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.instructions import find_operations
from elenas_jax.graphs.machine import Layout, Machine, known_machine
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import AFTER, CONSTANTS, LAYOUTS, Program, find_layout, num_parameters, trim
from elenas_jax.graphs.schedule import make_schedule
from elenas_jax.types import CRASHED, DIVERGED, OK, OUT_OF_MEMORY, Task

SEGMENT_STEPS = 64  # steps between two returns to the host
CONSTRUCT_BATCH = 32  # graphs a call of the constructor takes
_NODES = (16, 32, 64, 128, 256, 512)  # paddings of graphs


class Padding(NamedTuple):
    """What a compiled program has room for."""

    kind: str  # one of LAYOUTS
    operations: str  # one of OPERATION_SETS
    instructions: int
    rows: int  # of parameters
    scratch: int  # rows of constants


class Candidate(NamedTuple):
    """A representative in training."""

    graph: ComputationGraph
    hash: str
    key: bytes
    budget: int


class Trainer:
    """Compiled programs and data of one run."""

    def __init__(self, tasks, run_key, head, hidden_features, batch_size, learning_rate, per_device, devices):
        self.tasks = tasks
        self.run_key = run_key
        self.head = head
        self.hidden_features = hidden_features
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.per_device = per_device
        self.devices = devices
        # One compiled program serves all tasks: narrower inputs and outputs are padded.
        self.in_features = max(task.in_features for task in tasks)
        self.out_features = max(task.out_features for task in tasks)
        shapes = {(task.in_features, task.out_features, task.time_steps): task for task in tasks}
        self._shapes = tuple(shapes.values())  # one task for each set of widths

    def width(self, kind: str, time_steps: int | None = None) -> int:
        widest = max(self.in_features, self.out_features, self.hidden_features)
        longest = time_steps or max(task.time_steps for task in self.tasks)
        return max(widest, longest) if kind == "sequence" else widest

    def buffer_bytes(self, padding: Padding) -> int:
        """Bytes of the two buffers of a device, the bulk of its memory."""
        width = self.width(padding.kind)
        steps = 1 if padding.kind == "sequence" else max(task.time_steps for task in self.tasks)
        rows = 1 if padding.kind == "row" else width
        return 2 * 4 * (padding.instructions + 1) * (steps + 1) * self.batch_size * rows * width

    def construct(self, edges: np.ndarray, task: Task) -> Program:
        """Constructs programs of `[B, M, M]` edges on the host, in batches of one shape."""
        num_nodes = next(size for size in (*_NODES, edges.shape[-1]) if size >= edges.shape[-1])
        extra = num_nodes - edges.shape[-1]
        edges = np.pad(edges, ((0, -len(edges) % CONSTRUCT_BATCH), (0, extra), (0, extra)))
        parts = []
        for first in range(0, len(edges), CONSTRUCT_BATCH):
            program = construct_batch(
                ComputationGraph(edges[first : first + CONSTRUCT_BATCH]),
                in_features=task.in_features,
                out_features=task.out_features,
                hidden_features=self.hidden_features,
                head=self.head,
                time_steps=task.time_steps,
            )
            parts.append(parallel.on_host(program))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def status(self, edges: np.ndarray) -> np.ndarray:
        """Returns `[B]` statuses: the first reason against any task of the ladder."""
        status = np.zeros(len(edges), np.int32)
        for task in self._shapes:
            if len(edges):
                found = self.construct(edges, task).status[: len(edges)]
                status = np.where(status == OK, found, status)
        return status

    def padding(self, program: Program) -> Padding:
        """The smallest of few paddings that holds a batch of programs: unused room costs next to nothing."""
        kind = LAYOUTS[int(np.max(find_layout(program)))]
        ends, width = program.phase_ends, self.width(kind)
        is_constant = np.arange(program.max_instructions) < ends[:, CONSTANTS, None]
        constants = int(np.where(is_constant, program.rows[:, 1:], 0).sum(-1).max())
        rows = int(program.parameter_rows.sum(-1).max())
        size = 1
        while ends[:, AFTER].max() > 32 * size or rows > 12 * size * width or constants > 8 * size * width:
            size *= 2
        return Padding(kind, find_operations(program.op), 32 * size, 12 * size * width, 8 * size * width)

    def chunks(self, candidates: list[Candidate]) -> list[list[Candidate]]:
        """Groups candidates by what they are compiled for on each task; in a group they keep their order."""
        groups: dict[tuple[Padding, ...], list[Candidate]] = {}
        if not candidates:
            return []
        edges = stack_graphs([one.graph for one in candidates])
        programs = [self.construct(edges, task) for task in self._shapes]
        for place, one in enumerate(candidates):
            key = tuple(self.padding(_take(program, np.array([place]))) for program in programs)
            groups.setdefault(key, []).append(one)
        size = self.devices * self.per_device
        return [
            group[first : first + size] for group in groups.values() for first in range(0, len(group), size)
        ]

    def train(self, chunk: list[Candidate], steps: list[tuple[int, ...]], replicate: int) -> list[Record]:
        """Takes a chunk up the ladder. What fails is a record, never an exception."""
        start = time.perf_counter()
        metrics = np.full((len(chunk), len(self.tasks)), np.nan)
        status = np.full(len(chunk), OK)
        taken = np.zeros(len(chunk), np.int64)
        parameters, flops = np.zeros(len(chunk), np.int64), np.zeros(len(chunk))
        alive = np.arange(len(chunk))
        for level, task in enumerate(self.tasks):
            edges = stack_graphs([chunk[place].graph for place in alive])
            program = _take(self.construct(edges, task), np.arange(len(alive)))
            if level == 0:
                parameters[:] = num_parameters(program)
                flops[:] = num_flops(program, task.time_steps)
            wanted = np.array([steps[place][level] for place in alive])
            hashes = [chunk[place].hash for place in alive]
            metric, found = self._try_task(program, task, hashes, wanted, replicate)
            taken[alive] += wanted
            metrics[alive, level], status[alive] = metric, found
            passed = [ok == OK and passes(task, value) for ok, value in zip(found, metric, strict=True)]
            alive = alive[passed]
            if not len(alive):
                break
        seconds = (time.perf_counter() - start) / len(chunk)
        return [
            Record(
                ladder_score(metrics[place], self.tasks) if status[place] == OK else 0.0,
                tuple(float(value) for value in metrics[place]),
                int(status[place]),
                int(parameters[place]),
                float(flops[place]),
                int(taken[place]),
                seconds,
            )
            for place in range(len(chunk))
        ]

    def _try_task(self, program: Program, task: Task, hashes, steps: np.ndarray, replicate: int):
        """As `_train_task`, but returns `[B]` statuses: a crash is a result, not the end of a search.

        Where a chunk fails its candidates are tried one by one, so that none pays for another.
        """
        try:
            metrics, finite = self._train_task(program, task, hashes, steps, replicate)
            return metrics, np.where(finite, OK, DIVERGED)
        except Exception as error:
            if len(hashes) > 1:
                alone = [
                    self._try_task(_take(program, one), task, [hashes[one[0]]], steps[one], replicate)
                    for one in np.arange(len(hashes))[:, None]
                ]
                return np.concatenate([each for each, _ in alone]), np.concatenate(
                    [each for _, each in alone]
                )
            logging.getLogger(__name__).warning(
                "Training block %s on %s failed: %s", hashes[0], task.name, error
            )
            status = OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else CRASHED
            return np.array([np.nan]), np.array([status])

    def _train_task(self, program: Program, task: Task, hashes, steps: np.ndarray, replicate: int):
        """Trains on one task; returns `[B]` validation metrics and whether all losses were finite."""
        num = len(hashes)
        padding = self.padding(program)
        program = trim(program, padding.instructions)
        layout = self._layout(padding, task.time_steps)
        machines = [
            known_machine(one, make_schedule(one, task.time_steps), layout)
            for one in (_take(program, np.array(place)) for place in range(num))
        ]
        lanes = _deal(
            np.array([_cost(one, layout) for one in machines]) * steps, self.devices, self.per_device
        )
        chosen = np.maximum(lanes, 0)
        code = jax.tree.map(lambda *leaves: np.stack(leaves)[chosen], *machines)
        steps = np.where(lanes >= 0, steps[chosen], 0)
        key = data_key(self.run_key, replicate)
        weights = np.stack([jax.random.key_data(weights_key(self.run_key, one, replicate)) for one in hashes])

        start, segment = _compiled(padding, layout, self.batch_size, self.learning_rate, self.devices)
        states = start(self._widened(_take(program, chosen)), weights[chosen])
        done = 0
        while done < steps.max():
            count = np.clip(steps - done, 0, SEGMENT_STEPS)
            inputs, targets = self._batches(task, jax.random.fold_in(key, TRAIN), done)
            job = Job(code, count.astype(np.int32), np.ones(lanes.shape, bool))
            states = segment(job, states, inputs, targets, np.int32(LOSS_NAMES.index(task.loss)))
            done += SEGMENT_STEPS
        metric, total = np.zeros(lanes.shape), task.valid_samples // self.batch_size
        for first in range(0, total, SEGMENT_STEPS):
            count = np.where(steps > 0, min(SEGMENT_STEPS, total - first), 0)
            inputs, targets = self._batches(task, jax.random.fold_in(key, VALIDATION), first)
            job = Job(code, count.astype(np.int32), np.zeros(lanes.shape, bool))
            states = segment(job, states, inputs, targets, np.int32(LOSS_NAMES.index(task.loss)))
            metric = metric + np.asarray(states.right_sum)
        finite = np.asarray(states.finite)
        metrics, ok = np.zeros(num), np.zeros(num, bool)
        metrics[lanes[lanes >= 0]] = np.where(finite, metric / total, np.nan)[lanes >= 0]
        ok[lanes[lanes >= 0]] = finite[lanes >= 0]
        return metrics, ok

    def _batches(self, task: Task, key, first: int):
        """Returns the next `[G, N, T, F]` inputs and `[G, N, O]` targets, padded to the widest task."""
        inputs, targets = _sample_batches(task.sample, self.batch_size, key, first)
        inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, self.in_features - inputs.shape[-1])))
        return inputs, targets

    def _layout(self, padding: Padding, time_steps: int) -> Layout:
        return Layout(
            padding.kind,
            self.width(padding.kind, time_steps),
            time_steps,
            last_only=True,
            operations=padding.operations,
        )

    def _widened(self, program: Program) -> Program:
        """Makes programs of different tasks look alike to the compiler; sizes are in their arrays."""
        return dataclasses.replace(program, in_features=self.in_features)


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
        parallel.map_over_devices(jax.vmap(start_one), devices, split=(True, True)),
        parallel.map_over_devices(segment, devices, split=(True, True, False, False, False)),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample_batches(sample: Callable, batch_size: int, key, first):
    """Returns batches `first` to `first + SEGMENT_STEPS`: batch s is a function of (key, s)."""
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(first + jnp.arange(SEGMENT_STEPS))
    batch = jax.vmap(lambda one: sample(one, batch_size))(keys)
    return batch.inputs, batch.targets


def _cost(code: Machine, layout: Layout) -> int:
    """About what a step costs, in rounds of the loops."""
    ends = code.values.ends + code.pulls.ends
    return int(1 + ends[0] + layout.steps * (ends[1] - ends[0]) + ends[3] - ends[2])


def _take(program: Program, places: np.ndarray) -> Program:
    """Returns those of a batch of programs, in the shape of `places`."""
    return jax.tree.map(lambda leaf: leaf[places], program)


def stack_graphs(graphs: Sequence[ComputationGraph]) -> np.ndarray:
    """Pads graphs to one size: `[B, M, M]`."""
    size = max(graph.edges.shape[0] for graph in graphs)
    return np.stack([np.pad(np.asarray(g.edges), ((0, size - g.edges.shape[0]),) * 2) for g in graphs])


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
