"""Takes one candidate after the other up the ladder of tasks, each compiled for itself.

The next candidate is compiled in a thread while this one trains. What fails is a record, never an
exception.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.examples import Drawn, Examples, Stored, check_tasks
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.network_training import (
    NetworkProgram,
    compile_network,
    fit,
    measure_network,
)
from elenas_jax.evaluation.recipes import Recipe, check_recipe, make_course
from elenas_jax.evaluation.training import weights_key
from elenas_jax.types import CRASHED, OK, OUT_OF_MEMORY, AnyTask, DataTask, Network, PyTree, Task

MOST_PREPARED = 2  # of candidates whose training has not begun: the one that is about to, and the next
KEPT_PROGRAMS = 4  # for replicates and other budgets of a candidate


class Job(NamedTuple):
    """What is asked for: one training of one candidate."""

    candidate: PyTree  # on the host
    hash: str  # of its canonical form, as `weights_key` takes it
    budget: int
    replicate: int


class Trained(NamedTuple):
    """What came of it, and where the time went; the times are no part of a result."""

    record: Record
    compiling: float = 0.0  # seconds, whether or not something was trained meanwhile
    waiting: float = 0.0  # seconds in which nothing was trained because this was compiled
    training: float = 0.0  # seconds, measuring counted


class IndividualTrainer:
    """Compiled programs and data of one process.

    Args:
      build: candidate, task -> Network; the same network, to the bit, for equal canonical forms.
      tasks: in the order of the ladder.
      run_key: key of the run; data and weights follow from it.
      recipe: of every training.
      steps: of an epoch, of each task that draws its examples; None of a data set.
      budgets: multiples of the recipe's epochs.
      memory: bytes that a training may use.
      max_seconds: that a candidate may take, compiling counted; 0 is no limit. Looked at between segments.

    Raises:
      ValueError: for settings out of range.
    """

    def __init__(
        self,
        build: Callable[[PyTree, AnyTask], Network],
        tasks: Sequence[AnyTask],
        *,
        run_key: jax.Array,
        recipe: Recipe,
        steps: Sequence[int | None],
        budgets: Sequence[float],
        memory: float = math.inf,
        max_seconds: float = 0.0,
    ) -> None:
        check_recipe(recipe)
        check_tasks(tasks)
        for task in tasks:
            if isinstance(task, Task) and task.valid_samples < recipe.batch_size:
                sizes = f"valid_samples of {task.name} is {task.valid_samples}"
                raise ValueError(f"{sizes}; batch_size is {recipe.batch_size}.")
        self.tasks, self.budgets = tuple(tasks), tuple(budgets)
        self._build, self._run_key, self._recipe, self._steps = build, run_key, recipe, tuple(steps)
        self._memory, self._max_seconds = memory, max_seconds or math.inf
        self._examples: list[Examples] = []
        self._programs: OrderedDict[tuple[str, int], NetworkProgram] = OrderedDict()
        self._prepared: dict[str, Future[NetworkProgram]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compile")

    def settings(self) -> dict[str, Any]:
        """Returns what scores depend on, JSON-able: part of cache keys."""
        tasks = [
            {name: value for name, value in task._asdict().items() if not callable(value)}
            for task in self.tasks
        ]
        return {
            "run_key": np.asarray(jax.random.key_data(self._run_key)).tolist(),
            "tasks": tasks,
            "steps": self._steps,
            "budgets": self.budgets,
            **self._recipe._asdict(),
        }

    def describe(self) -> str:
        """Says in a line how candidates are trained."""
        recipe = self._recipe
        epochs = " / ".join(f"{recipe.epochs * budget:g}" for budget in self.budgets)
        text = f"{recipe.optimiser}, {recipe.schedule} rate from {recipe.learning_rate:g}"
        return f"{text}, batches of {recipe.batch_size}, epochs: {epochs}"

    def load(self) -> None:
        """Loads the data of all tasks, once.

        Raises:
          ValueError: for data that cannot be used; `tasks.records.DataError` names the file.
        """
        if self._examples:
            return
        size = self._recipe.batch_size
        self._examples = [
            Stored(task, task.load(), self._run_key, size)
            if isinstance(task, DataTask)
            else Drawn(task, self._run_key, size, int(steps or 0))
            for task, steps in zip(self.tasks, self._steps, strict=True)
        ]

    def prepare(self, job: Job) -> None:
        """Starts compiling a candidate for the first task, in a thread; returns at once."""
        self.load()
        if job.hash in self._prepared or (job.hash, 0) in self._programs:
            return
        for name in list(self._prepared)[: 1 - MOST_PREPARED]:  # announced, and then trained elsewhere
            self._prepared.pop(name).cancel()
        self._prepared[job.hash] = self._thread.submit(self._compile, job, 0)

    def train(self, job: Job) -> Trained:
        """Trains a candidate on task after task, until it misses a threshold."""
        self.load()
        started = time.perf_counter()
        metrics = np.full(len(self.tasks), np.nan)
        status, steps, parameters, flops, compiling, waiting = OK, 0, 0, 0.0, 0.0, 0.0
        for level, task in enumerate(self.tasks):
            try:
                asked = time.perf_counter()
                program, is_new = self._program(job, level)
                waiting += time.perf_counter() - asked
                compiling += program.seconds if is_new else 0.0
                if level == 0:
                    parameters, flops = program.parameters, program.flops
                if program.memory > self._memory:
                    raise MemoryError(
                        f"RESOURCE_EXHAUSTED: it takes {program.memory / 2**30:.3g} GiB, allowed are "
                        f"{self._memory / 2**30:.3g} GiB."
                    )
                left = self._max_seconds - (time.perf_counter() - started)
                status, taken, metrics[level] = self._try_task(job, level, program, left)
                steps += taken
            except Exception as error:
                status = _failure(error, job.hash, task.name)
            if status != OK or not passes(task, metrics[level]):
                break
        seconds = time.perf_counter() - started
        score = ladder_score(metrics.tolist(), self.tasks) if status == OK else 0.0
        record = Record(score, tuple(metrics.tolist()), status, parameters, flops, steps, seconds)
        return Trained(record, compiling, waiting, seconds - waiting)

    def close(self) -> None:
        """Forgets what waits to be compiled."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _try_task(
        self, job: Job, level: int, program: NetworkProgram, seconds: float
    ) -> tuple[int, int, float]:
        """Returns status, steps and validation metric of one task."""
        examples = self._examples[level]
        course = make_course(self._recipe, self.budgets[job.budget], examples.steps_per_epoch)
        key = weights_key(self._run_key, job.hash, job.replicate)
        fitted = fit(program, examples, self._recipe, course, key, job.replicate, seconds)
        if fitted.status != OK or fitted.state is None:
            return fitted.status, fitted.steps, math.nan
        return OK, fitted.steps, measure_network(program, fitted.state, examples, job.replicate)

    def _program(self, job: Job, level: int) -> tuple[NetworkProgram, bool]:
        """Returns the compiled program of a candidate, and whether it was compiled for this call."""
        place = (job.hash, level)
        if place in self._programs:
            self._programs.move_to_end(place)
            return self._programs[place], False
        future = self._prepared.pop(job.hash, None) if level == 0 else None
        program = self._compile(job, level) if future is None else future.result()
        self._programs[place] = program
        while len(self._programs) > KEPT_PROGRAMS:
            self._programs.popitem(last=False)
        return program, True

    def _compile(self, job: Job, level: int) -> NetworkProgram:
        network = self._build(job.candidate, self.tasks[level])
        return compile_network(network, self._examples[level], self._recipe)


def _failure(error: Exception, name: str, task: str) -> int:
    """Returns the status of a candidate that failed, and says so."""
    logging.getLogger(__name__).warning("Training %s on %s failed: %s", name, task, error)
    return OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else CRASHED
