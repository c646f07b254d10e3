"""Several candidates at a time, each in a worker process of its own: see `worker_process` for the lines.

A worker that dies costs nothing but time: its candidate is tried once more, alone in a new one, before it
counts as crashed. One that takes too long is ended, as is one that takes too much memory. Where no new one
can be started, after some attempts, the others go on without it.
"""

import os
import selectors
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.individual_trainer import Trained
from elenas_jax.evaluation.worker_process import WorkerProcess
from elenas_jax.types import CRASHED, OUT_OF_MEMORY, TIMED_OUT

POLL_SECONDS = 0.25  # between two looks at the clock and at memory
GRACE_SECONDS = 5.0  # beyond its time, in which a worker may stop a training by itself
RUNTIME_BYTES = 2**31  # of a worker beside its training: the runtime, and a compiler at work
TRIES = 2  # of a candidate whose worker died
STARTS = 3  # of a worker in the place of one that died, before the others go on without it
PAUSE_SECONDS = 2.0  # before another start: what is short, memory mostly, may be back by then


# Place of a job and what came of it, as trainings end; closing it ends those that have not.
Outcomes = Generator[tuple[int, Trained], None, None]


class WorkerError(RuntimeError):
    """Workers cannot be started; the message is one line."""


class _Place:
    """One of the workers, whichever process it is just now."""

    def __init__(self, cores: list[int]) -> None:
        self.cores = cores
        self.worker: WorkerProcess | None = None
        self.ready = False
        self.job: int | None = None  # in training, or to be trained as soon as the worker is ready
        self.next: int | None = None  # being compiled
        self.sent = False  # whether the training of `job` was asked for
        self.since = 0.0  # when it was
        self.failed = 0  # starts, since it last trained something
        self.rests_until = 0.0

    @property
    def given_up(self) -> bool:
        return self.failed >= STARTS


class Limits(NamedTuple):
    """What a candidate may take."""

    seconds: float = 0.0  # 0 is no limit
    memory: int = 0  # bytes of a training; 0 is no limit


class WorkerPool:
    """Workers that train jobs, in whatever order they become free.

    Args:
      command: that starts one.
      setup: what each is told, beside "cores".
      num_workers: at least 1; each gets its share of the cores.
      limits: of a candidate.
      num_tasks: of the ladder, for the records of what did not end.
    """

    def __init__(
        self,
        command: Sequence[str],
        setup: Mapping[str, Any],
        num_workers: int,
        limits: Limits,
        num_tasks: int,
    ) -> None:
        self._command, self._setup, self._limits, self._num_tasks = command, dict(setup), limits, num_tasks
        cores = parallel.usable_core_numbers()
        self._places = [_Place(cores[n::num_workers] or [cores[n % len(cores)]]) for n in range(num_workers)]
        self._stopped = False
        self._why = ""  # the last start failed

    def start(self) -> None:
        """Starts all workers and waits until they are ready.

        Raises:
          WorkerError: if one cannot be started.
        """
        try:
            for place in self._places:
                self._begin(place)
            while not all(place.ready for place in self._places):
                self._wait()
                for place in self._places:
                    for answer in self._look(place):
                        _check_ready(place, answer)
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Any]) -> Outcomes:
        """Yields place and outcome of each job as it ends.

        Args:
          jobs: JSON-able, as workers take them.

        Raises:
          WorkerError: if no worker is left and none can be started; all that was trained has been yielded.
        """
        waiting, tries = deque(range(len(jobs))), [0] * len(jobs)
        self._stopped = False
        for place in self._places:  # given up before, it gets another chance
            place.failed, place.rests_until = 0, 0.0
        try:
            while True:
                self._hand_out(jobs, waiting, tries)
                if all(place.job is None for place in self._places):
                    if waiting:  # nobody has taken it
                        raise WorkerError(f"No worker is left, and none can be started: {self._why}")
                    return
                self._wait()
                for place in self._places:
                    yield from self._collect(place, waiting, tries)
        finally:
            # Whoever stopped listening in the middle loses what is in training.
            for place in self._places:
                if place.job is not None:
                    self._end(place)

    def stop(self) -> None:
        """Lets `run` end with the trainings that have begun."""
        self._stopped = True

    def close(self) -> None:
        """Ends all workers."""
        for place in self._places:
            if place.worker is not None:
                place.worker.close()
                place.worker, place.ready = None, False

    def _begin(self, place: _Place) -> None:
        if place.worker is not None:
            return
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Workers of one accelerator share its memory.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        setup = self._setup | {"cores": place.cores}
        try:
            place.worker = WorkerProcess(self._command, setup, environment)
        except OSError as error:  # neither memory nor processes are free, say
            raise WorkerError(f"A worker process cannot be made: {error.strerror}.") from error
        place.ready = False

    def _end(self, place: _Place) -> int:
        """Kills the worker of a place; returns its exit status."""
        status = place.worker.kill() if place.worker is not None else 0
        place.worker, place.ready, place.job, place.next, place.sent = None, False, None, None, False
        return status

    def _hand_out(self, jobs: Sequence[Any], waiting: deque[int], tries: list[int]) -> None:
        """Gives every worker something to train, and something to compile."""
        if self._stopped:
            waiting.clear()
            for place in self._places:
                place.job, place.next = place.job if place.sent else None, None
        for place in self._places:
            if place.job is None:
                place.job, place.next = place.next, None
            if place.job is None and not place.given_up:
                place.job = waiting.popleft() if waiting else self._steal()
        for place in self._places:
            if place.job is None or time.monotonic() < place.rests_until:
                continue
            try:
                self._begin(place)
            except WorkerError as error:
                self._not_started(place, waiting, error)
                continue
            assert place.worker is not None
            if place.ready and not place.sent:
                place.worker.send({"train": jobs[place.job]})
                place.sent, place.since = True, time.monotonic()
            # On its second try a candidate is alone, so that it pays for nobody else, nor another for it.
            alone = tries[place.job] or (waiting and tries[waiting[0]])
            if place.sent and place.next is None and waiting and not alone:
                place.next = waiting.popleft()
                place.worker.send({"prepare": jobs[place.next]})

    def _steal(self) -> int | None:
        """Takes what another worker has compiled ahead: better compiled twice than waited for."""
        for place in self._places:
            if place.next is not None:
                stolen, place.next = place.next, None
                return stolen
        return None

    def _wait(self) -> None:
        """Returns when an answer has come, or some time has passed."""
        with selectors.DefaultSelector() as selector:
            for place in self._places:
                if place.worker is not None:
                    selector.register(place.worker, selectors.EVENT_READ)
            selector.select(POLL_SECONDS)

    def _look(self, place: _Place) -> list[dict[str, Any]]:
        """Returns the answers of a worker; the last is {"died": its exit status} if it did."""
        if place.worker is None:
            return []
        answers, lives = place.worker.answers()
        return answers if lives else [*answers, {"died": place.worker.kill()}]

    def _collect(self, place: _Place, waiting: deque[int], tries: list[int]) -> Iterator[tuple[int, Trained]]:
        """Yields what came of the training of a place, if anything."""
        for answer in self._look(place):
            if not place.ready:
                try:
                    _check_ready(place, answer)
                except WorkerError as error:
                    self._not_started(place, waiting, error)
                    return
            elif "record" in answer:
                assert place.job is not None
                job, place.job, place.sent, place.failed = place.job, None, False, 0
                yield job, _read(answer)
            else:
                yield from self._lost(place, waiting, tries, CRASHED)
        if place.sent and place.worker is not None:
            seconds = time.monotonic() - place.since
            if self._limits.seconds and seconds > self._limits.seconds + GRACE_SECONDS:
                assert place.job is not None
                tries[place.job] = TRIES  # another try would take as long
                yield from self._lost(place, waiting, tries, TIMED_OUT)
            elif self._limits.memory and (
                place.worker.resident_bytes() > self._limits.memory + RUNTIME_BYTES
            ):
                yield from self._lost(place, waiting, tries, OUT_OF_MEMORY)

    def _lost(
        self, place: _Place, waiting: deque[int], tries: list[int], status: int
    ) -> Iterator[tuple[int, Trained]]:
        """Ends a worker; what it trained is tried once more, or is what it failed with."""
        job, ahead, seconds = place.job, place.next, time.monotonic() - place.since
        self._end(place)
        if ahead is not None:
            waiting.appendleft(ahead)
        if job is None:
            return
        tries[job] += 1
        if tries[job] < TRIES:
            place.job = job
            return
        nothing = (float("nan"),) * self._num_tasks
        yield job, Trained(Record(0.0, nothing, status, 0, 0.0, 0, seconds), 0.0, 0.0, seconds)

    def _not_started(self, place: _Place, waiting: deque[int], error: WorkerError) -> None:
        """Has a worker that cannot be started tried again, or leaves what it was to train to the others."""
        job = place.job
        self._end(place)
        place.job, self._why = job, str(error)
        place.failed += 1
        place.rests_until = time.monotonic() + PAUSE_SECONDS
        if place.given_up:
            place.job = None
            if job is not None:
                waiting.appendleft(job)
            left = sum(not each.given_up for each in self._places)
            warnings.warn(f"{left} of {len(self._places)} workers are left: {self._why}", stacklevel=2)


def _check_ready(place: _Place, answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise WorkerError(str(answer["error"]))
    if "died" in answer:
        raise WorkerError(f"A worker ended with status {answer['died']} while it was starting.")
    place.ready = True


def _read(answer: Mapping[str, Any]) -> Trained:
    score, metrics, status, parameters, flops, steps, seconds = answer["record"]
    numbers = tuple(np.nan if metric is None else float(metric) for metric in metrics)
    record = Record(float(score), numbers, status, parameters, float(flops), steps, float(seconds))
    return Trained(record, answer["compiling"], answer["waiting"], answer["training"])
