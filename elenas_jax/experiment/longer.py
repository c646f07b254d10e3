"""Trains a block at one length and measures it on longer sequences.

Keys, data, weights and compiled training are those of the evaluator's fused executor, which does not
hand back what it trained; here a training ends with measurements on test data, at any length.
"""

import functools
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Cache, Record
from elenas_jax.evaluation.executors import SEGMENT_STEPS, training_segments
from elenas_jax.evaluation.fused import FusedState, bias_corrections, initial_state, make_segment
from elenas_jax.evaluation.population import EVALUATION_FORMAT
from elenas_jax.evaluation.trainer import sample_batches
from elenas_jax.evaluation.training import TEST, TRAIN, data_key, weights_key
from elenas_jax.graphs import (
    ComputationGraph,
    canonical_bytes,
    canonical_graph,
    canonical_hash,
    construct,
    init_params,
    num_parameters,
)
from elenas_jax.graphs.program import AFTER, Program, trim
from elenas_jax.graphs.schedule import make_schedule
from elenas_jax.tasks import make_sequence_task
from elenas_jax.tasks.reber import with_full_length
from elenas_jax.types import DIVERGED, OK, Task


class Setting(NamedTuple):
    """How blocks are trained; the rest is the task's."""

    run_key: jax.Array
    steps: int
    head: str = "linear"
    hidden_features: int = 64
    batch_size: int = 32
    learning_rate: float = 1e-3


class Measured(NamedTuple):
    """What came of a training."""

    accuracies: tuple[float, ...]  # one a measured task; NaN where the trained network does not fit it
    status: int  # `types.OK`, a reason or a failure
    parameters: int
    loss: float  # mean of the last segment of training


class LongerTrial:
    """One block on one task; any number of replicates."""

    def __init__(
        self,
        graph: ComputationGraph,
        task: Task,
        measured: Sequence[Task],
        setting: Setting,
        *,
        kind: int = TEST,
    ) -> None:
        """Constructs the networks; compiles nothing yet.

        Args:
          graph: of the block.
          task: that it is trained on.
          measured: tasks of the same widths that it is measured on, `task` among them or not.
          setting: of the training.
          kind: of the data that is measured on, TEST or VALIDATION.
        """
        self.task, self.measured, self.setting = task, tuple(measured), setting
        self.kind = kind
        self.graph = canonical_graph(graph, setting.head)
        self.hash = canonical_hash(graph, setting.head)
        self.program = self._construct(task)
        self.status = int(self.program.status)
        self._compiled: dict[tuple[Task, int], Callable] = {}

    def run(self, replicate: int, device: int = 0) -> Measured:
        """Trains from the data and the weights of a replicate, and measures on every task.

        Args:
          replicate: of the run.
          device: its place among the local ones.
        """
        return self.train(replicate, device)[1]

    def train(self, replicate: int, device: int = 0) -> tuple[FusedState | None, Measured]:
        """As `run`; returns what was trained too, None if the network is not valid."""
        if self.status != OK:
            return None, Measured((np.nan,) * len(self.measured), self.status, 0, np.nan)
        setting = self.setting
        advance = functools.partial(self._advance, device, replicate)
        key = weights_key(setting.run_key, self.hash, replicate)
        state = initial_state(self.program, parallel.on_host(init_params(key, self.program)))
        loss = np.nan
        for first, count in training_segments(setting.steps):
            state = advance(self.task, state, TRAIN, first, count)
            loss = float(state.loss_sum) / count
        parameters = num_parameters(self.program)
        if not bool(state.finite):
            return state, Measured((np.nan,) * len(self.measured), DIVERGED, parameters, loss)
        found = tuple(self._measure(advance, task, state) for task in self.measured)
        return state, Measured(found, OK, parameters, loss)

    def _measure(self, advance: Callable[..., FusedState], task: Task, state: FusedState) -> float:
        if not self._fits(task):
            return np.nan
        right, total = 0.0, task.valid_samples // self.setting.batch_size
        for first in range(0, total, SEGMENT_STEPS):
            count = min(SEGMENT_STEPS, total - first)
            right += float(advance(task, state, self.kind, first, count).right_sum)
        return right / total

    def _fits(self, task: Task) -> bool:
        """Whether the network for another length has parameters of the same shapes."""
        program = self._construct(task)
        same = [
            np.array_equal(getattr(program, name), getattr(self.program, name))
            for name in ("parameter_rows", "parameter_cols")
        ]
        return int(program.status) == OK and all(same)

    def _construct(self, task: Task) -> Program:
        program = parallel.on_host(
            construct(
                self.graph,
                in_features=task.in_features,
                out_features=task.out_features,
                hidden_features=self.setting.hidden_features,
                head=self.setting.head,
                time_steps=task.time_steps,
            )
        )
        return trim(program, max(1, int(program.phase_ends[AFTER])))

    def _advance(
        self, device: int, replicate: int, task: Task, state: FusedState, kind: int, first: int, count: int
    ) -> FusedState:
        """Trains on batches `first` to `first + count` of a task, or only measures on them."""
        setting = self.setting
        key = jax.random.fold_in(data_key(setting.run_key, replicate), kind)
        data = parallel.put_on(
            device, sample_batches(task.sample, setting.batch_size, task.in_features, key, first)
        )
        train = kind == TRAIN
        steps = bias_corrections(first if train else 0), np.int32(count), np.bool_(train)
        if (task, device) not in self._compiled:
            segment = make_segment(
                make_schedule(self._construct(task), task.time_steps),
                task,
                head=setting.head,
                hidden_features=setting.hidden_features,
                learning_rate=setting.learning_rate,
            )
            traced = jax.jit(segment).trace(*parallel.on_host((state, *data, *steps)))
            options = parallel.compiler_options()
            self._compiled[task, device] = parallel.compile_on(device, traced, options)
        return self._compiled[task, device](state, *data, *steps)


def longer_tasks(task: Task, lengths: Sequence[int]) -> tuple[Task, ...]:
    """Returns what a block trained on `task` is measured on: the task itself, and longer ones.

    Longer strings of grammars all have as many symbols as the length says, see `with_full_length`.
    """
    return tuple(task if length == task.time_steps else _longer_task(task, length) for length in lengths)


def _longer_task(task: Task, length: int) -> Task:
    is_grammar = bool(task.variant)
    longer = make_sequence_task(
        task.name, length=length, **({"negatives": task.variant} if is_grammar else {})
    )
    longer = longer._replace(valid_samples=task.valid_samples)
    return with_full_length(longer) if is_grammar else longer


def kept_key(trial: LongerTrial, replicate: int) -> bytes:
    """Returns everything that a measurement depends on, as bytes; the key of a cache."""
    setting = trial.setting
    tasks = [
        {name: value for name, value in task._asdict().items() if name != "sample"}
        for task in (trial.task, *trial.measured)
    ]
    numbers = setting._replace(run_key=np.asarray(jax.random.key_data(setting.run_key)).tolist())
    canonical = canonical_bytes(trial.graph, setting.head)
    described = {
        "format": EVALUATION_FORMAT,
        "tasks": tasks,
        "setting": numbers._asdict(),
        "kind": trial.kind,
        "replicate": replicate,
    }
    return b"|".join((b"longer", canonical, json.dumps(described, sort_keys=True).encode()))


def measure_all(
    trials: Sequence[LongerTrial],
    num_runs: int,
    num_devices: int,
    cache: Cache,
    on_done: Callable[[int, int, Record], bool],
) -> dict[tuple[int, int], Record]:
    """Runs replicates 0 and up of every trial, as many side by side as there are devices.

    Args:
      trials: in the order in which they begin.
      num_runs: replicates of each.
      num_devices: of the local ones the first.
      cache: asked first, and told of each training as it ends; from this thread only.
      on_done: told the place of the trial, the replicate and what came out; False begins no more.

    Returns:
      Records by (place of the trial, replicate), whose metrics are the accuracies; of all that ended.
    """
    places = [(trial, replicate) for trial in range(len(trials)) for replicate in range(num_runs)]
    keys = {place: kept_key(trials[place[0]], place[1]) for place in places}
    known = cache.get(list(keys.values()))
    found = {place: known[keys[place]] for place in places if keys[place] in known}
    devices: queue.SimpleQueue[int] = queue.SimpleQueue()
    for device in range(num_devices):
        devices.put(device)

    stop = threading.Event()

    def work(trial: LongerTrial, replicate: int) -> Record | None:
        if stop.is_set():
            return None
        device, start = devices.get(), time.perf_counter()
        try:
            one = trial.run(replicate, device)
        finally:
            devices.put(device)
        seconds = time.perf_counter() - start
        return Record(0.0, one.accuracies, one.status, one.parameters, 0.0, trial.setting.steps, seconds)

    with ThreadPoolExecutor(num_devices) as pool:
        futures = {
            pool.submit(work, trials[trial], replicate): (trial, replicate)
            for trial, replicate in places
            if (trial, replicate) not in found
        }
        for future in as_completed(futures):
            place, record = futures[future], future.result()
            if record is not None:
                found[place] = record
                cache.put([(keys[place], trials[place[0]].hash, record)])
                if not on_done(*place, record):
                    stop.set()
    return found
