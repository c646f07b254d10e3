"""Takes chunks of candidates up the ladder of tasks."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation import interpreted, parallel
from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.executors import (
    EXECUTORS,
    FUSED,
    SEGMENT_STEPS,
    Setting,
    Trials,
    choose_executor,
)
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.together import train_together
from elenas_jax.evaluation.training import data_key, weights_key
from elenas_jax.graphs import ComputationGraph, num_flops
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.program import LAYOUTS, Program, find_layout, num_parameters, status_within
from elenas_jax.graphs.schedule import has_loop
from elenas_jax.types import CRASHED, DIVERGED, OK, OUT_OF_MEMORY, Task

KEPT_BYTES = 2**28  # of training data, kept for the next chunk
CONSTRUCT_BATCH = 32  # graphs a call of the constructor takes
_NODES = (16, 32, 64, 128, 256, 512)  # paddings of graphs


class Candidate(NamedTuple):
    """A representative in training."""

    graph: ComputationGraph
    hash: str
    key: bytes
    budget: int
    replicate: int  # of data and weights


def widths_of(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Returns one task for each set of widths and time steps."""
    return tuple({(task.in_features, task.out_features, task.time_steps): task for task in tasks}.values())


def construct_on_host(edges: np.ndarray, task: Task, head: str, hidden_features: int) -> Program:
    """Constructs programs of `[B, M, M]` edges on the host, in batches of one shape.

    Rows beyond B are padding.
    """
    num_nodes = next(size for size in (*_NODES, edges.shape[-1]) if size >= edges.shape[-1])
    extra = num_nodes - edges.shape[-1]
    edges = np.pad(edges, ((0, -len(edges) % CONSTRUCT_BATCH), (0, extra), (0, extra)))
    parts = []
    for first in range(0, len(edges), CONSTRUCT_BATCH):
        program = construct_batch(
            ComputationGraph(edges[first : first + CONSTRUCT_BATCH]),
            in_features=task.in_features,
            out_features=task.out_features,
            hidden_features=hidden_features,
            head=head,
            time_steps=task.time_steps,
        )
        parts.append(parallel.on_host(program))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class Trainer:
    """Compiled programs and data of one run."""

    def __init__(
        self,
        tasks: tuple[Task, ...],
        run_key: jax.Array,
        head: str,
        hidden_features: int,
        batch_size: int,
        learning_rate: float,
        per_device: int,
        devices: int,
        executor: str,
        memory: int,
        max_parameters: int = 0,
    ) -> None:
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
        self.width = max(self.in_features, self.out_features, hidden_features)
        self.executor = executor
        self.memory = memory
        self.max_parameters = max_parameters
        self._kept: dict[tuple, tuple] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._shapes = widths_of(tasks)

    def construct(self, edges: np.ndarray, task: Task) -> Program:
        """As `construct_on_host`."""
        return construct_on_host(edges, task, self.head, self.hidden_features)

    def status(self, edges: np.ndarray) -> np.ndarray:
        """Returns `[B]` statuses: the first reason against any task of the ladder."""
        status = np.zeros(len(edges), np.int32)
        for task in self._shapes:
            if len(edges):
                found = status_within(self.construct(edges, task), self.max_parameters)[: len(edges)]
                status = np.where(status == OK, found, status)
        return status

    def chunks(
        self, candidates: list[Candidate], steps_of: Callable[[int], tuple[int, ...]]
    ) -> list[list[Candidate]]:
        """Groups candidates by what they are compiled for on each task; in a group they keep their order.

        The others share their data, so that each group of them is of one replicate. A chunk of those that are
        fused everywhere goes together with one of others, beside which it is compiled.

        Args:
          candidates: to be trained.
          steps_of: training steps of each task by budget.
        """
        groups: dict[tuple, list[Candidate]] = {}
        if not candidates:
            return []
        edges = stack_graphs([one.graph for one in candidates])
        programs = [self.construct(edges, task) for task in self._shapes]
        for place, one in enumerate(candidates):
            alone = [_take(program, np.array([place])) for program in programs]
            key: tuple = tuple(
                interpreted.find_padding(program, self.width, task.time_steps)
                for program, task in zip(alone, self._shapes, strict=True)
            )
            layouts = [LAYOUTS[int(find_layout(program)[0])] for program in alone]
            loops = [
                has_loop(_take(program, np.array(0)), task.time_steps)
                for program, task in zip(alone, self._shapes, strict=True)
            ]
            chosen = {
                choose_executor(self.executor, layout, has_one, steps)
                for layout, has_one in zip(layouts, loops, strict=True)
                for steps in steps_of(one.budget)
            }
            groups.setdefault((*key, one.replicate) if chosen != {FUSED} else (), []).append(one)
        of_fused = _cut([groups.pop(())] if () in groups else [], self.devices * self.per_device)
        of_others = _cut(groups.values(), self.devices * self.per_device)
        num = max(len(of_others), len(of_fused))
        of_others, of_fused = (each + [[]] * (num - len(each)) for each in (of_others, of_fused))
        return [one + other for one, other in zip(of_others, of_fused, strict=True)]

    def train(self, chunk: list[Candidate], steps: list[tuple[int, ...]]) -> list[Record]:
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
            ours = [chunk[place] for place in alive]
            metric, found = self._try_task(program, task, ours, wanted)
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

    def _try_task(self, program: Program, task: Task, ours: list[Candidate], steps: np.ndarray):
        """As `_train_task`, but returns `[B]` statuses: a crash is a result, not the end of a search.

        Where even the preparation of a chunk fails its candidates are tried one by one.
        """
        try:
            metrics, finite, errors = self._train_task(program, task, ours, steps)
            status = np.where(finite, OK, DIVERGED)
            for place, error in errors.items():
                status[place] = _failure(error, ours[place].hash, task)
            return metrics, status
        except Exception as error:
            if len(ours) > 1:
                alone = [
                    self._try_task(_take(program, one), task, [ours[one[0]]], steps[one])
                    for one in np.arange(len(ours))[:, None]
                ]
                return np.concatenate([each for each, _ in alone]), np.concatenate(
                    [each for _, each in alone]
                )
            return np.array([np.nan]), np.array([_failure(error, ours[0].hash, task)])

    def _train_task(self, program: Program, task: Task, ours: list[Candidate], steps: np.ndarray):
        """Trains on one task; returns `[B]` validation metrics, whether all losses were finite, errors."""
        num = len(ours)
        weights = np.stack(
            [jax.random.key_data(weights_key(self.run_key, one.hash, one.replicate)) for one in ours]
        )
        replicates = np.array([one.replicate for one in ours])
        setting = Setting(
            task,
            self.batch_size,
            self.learning_rate,
            self.in_features,
            self.width,
            self.devices,
            self.per_device,
            self.memory,
        )
        batches = functools.partial(self._batches, task)
        layouts = [LAYOUTS[int(index)] for index in find_layout(program)]
        loops = [has_loop(_take(program, np.array(place)), task.time_steps) for place in range(num)]
        kinds = zip(layouts, loops, steps.tolist(), strict=True)
        chosen = np.array([choose_executor(self.executor, *each) for each in kinds])
        errors: dict[int, Exception] = {}
        metrics, finite = np.zeros(num), np.zeros(num, bool)
        parts: list[tuple[str, np.ndarray]] = []
        for name in EXECUTORS:
            of_executor = np.flatnonzero(chosen == name)
            # Only fused programs, of one candidate each, may see different data.
            data = replicates[of_executor] if name != FUSED else np.zeros_like(of_executor)
            parts += [(name, of_executor[data == each]) for each in np.unique(data)]
        trials = [
            (name, Trials(_take(program, places), weights[places], steps[places], replicates[places]))
            for name, places in parts
        ]
        outcomes = train_together(trials, setting, batches)
        for (_, places), outcome in zip(parts, outcomes, strict=True):
            metrics[places], finite[places] = outcome.metrics, outcome.finite
            errors |= {int(places[place]): error for place, error in outcome.errors.items()}
        return metrics, finite, errors

    def _batches(self, task: Task, replicate: int, kind: int, first: int):
        """Returns a segment's `[G, N, T, F]` inputs and `[G, N, O]` targets, padded to the widest task.

        Kept while there is room: every candidate sees the same.
        """
        place = (task.sample, replicate, kind, first)
        with self._lock:
            if place not in self._kept:
                key = jax.random.fold_in(data_key(self.run_key, replicate), kind)
                inputs, targets = sample_batches(task.sample, self.batch_size, self.in_features, key, first)
                size = inputs.nbytes + targets.nbytes
                while self._kept and self._kept_bytes + size > KEPT_BYTES:
                    oldest = self._kept.pop(next(iter(self._kept)))
                    self._kept_bytes -= sum(array.nbytes for array in oldest)
                self._kept_bytes += size
                self._kept[place] = (inputs, targets)
            return self._kept[place]


def _failure(error: Exception, block: str, task: Task) -> int:
    """Returns the status of a candidate that failed, and says so."""
    logging.getLogger(__name__).warning("Training block %s on %s failed: %s", block, task.name, error)
    return OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else CRASHED


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def sample_batches(sample: Callable, batch_size: int, in_features: int, key, first):
    """Returns batches `first` to `first + SEGMENT_STEPS`: batch s is a function of (key, s)."""
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(first + jnp.arange(SEGMENT_STEPS))
    batch = jax.vmap(lambda one: sample(one, batch_size))(keys)
    extra = in_features - batch.inputs.shape[-1]
    return jnp.pad(batch.inputs, ((0, 0),) * 3 + ((0, extra),)), batch.targets


def _cut(groups: Iterable[list[Candidate]], size: int) -> list[list[Candidate]]:
    return [group[first : first + size] for group in groups for first in range(0, len(group), size)]


def _take(program: Program, places: np.ndarray) -> Program:
    """Returns those of a batch of programs, in the shape of `places`."""
    return jax.tree.map(lambda leaf: leaf[places], program)


def stack_graphs(graphs: Sequence[ComputationGraph]) -> np.ndarray:
    """Pads graphs to one size: `[B, M, M]`."""
    size = max(graph.edges.shape[0] for graph in graphs)
    return np.stack([np.pad(np.asarray(g.edges), ((0, size - g.edges.shape[0]),) * 2) for g in graphs])
