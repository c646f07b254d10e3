"""Evaluates candidates one by one, each compiled for itself: for networks whose shapes differ.

Answers with the same record as the evaluator of populations, and agrees with it to rounding where both can
train a candidate. A score does not depend on the order in which candidates are trained, nor on the number
of processes: keys follow from the canonical form and the run alone, and XLA gets the same settings in
each process. Where the limits of time and memory are met, the machine has a say; both are in the cache keys.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Cache, MemoryCache
from elenas_jax.evaluation.individual_trainer import IndividualTrainer, Job
from elenas_jax.evaluation.population import Evaluator, gather
from elenas_jax.evaluation.training import canonical_digest
from elenas_jax.evaluation.workers import Limits, Outcomes, WorkerError, WorkerPool
from elenas_jax.types import NOT_EVALUATED, OK, Evaluation, SearchSpace

# Part of cache keys. Raise it when a change gives the same settings other scores.
INDIVIDUAL_FORMAT = 2


class Workers(NamedTuple):
    """How worker processes are started; see `workers.WorkerPool`."""

    number: int
    command: Sequence[str]
    setup: Mapping[str, Any]  # JSON-able; what a worker builds the same space and trainer from


class Pool(Protocol):
    """Where trainings happen."""

    def start(self) -> None:
        """Loads what is slow to load."""

    def run(self, jobs: Sequence[Job]) -> Outcomes:
        """Yields place and outcome of each job as it ends."""

    def stop(self) -> None:
        """Lets `run` end with the trainings that have begun."""

    def close(self) -> None:
        """Ends whatever runs."""


class LocalPool:
    """Trains in this process, one candidate after the other; the next one is compiled meanwhile."""

    def __init__(self, trainer: IndividualTrainer) -> None:
        self._trainer = trainer
        self._stopped = False

    def start(self) -> None:
        self._trainer.load()

    def run(self, jobs: Sequence[Job]) -> Outcomes:
        self._stopped = False
        for place, job in enumerate(jobs):
            if self._stopped:
                return
            for each in jobs[place : place + 2]:
                self._trainer.prepare(each)
            yield place, self._trainer.train(job)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._trainer.close()


class _RemotePool(WorkerPool):
    """Trains in worker processes, which read candidates as JSON."""

    def __init__(self, to_json: Callable, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._to_json = to_json

    def run(self, jobs: Sequence[Job]) -> Outcomes:
        return super().run([job._asdict() | {"candidate": self._to_json(job.candidate)} for job in jobs])


def make_individual_evaluator(
    space: SearchSpace,
    trainer: IndividualTrainer,
    *,
    settings: Mapping[str, Any],
    memory: int,
    max_seconds: float = 0.0,
    workers: Workers | None = None,
    cache: Cache | None = None,
) -> Evaluator:
    """Makes an evaluator of any space's candidates.

    Args:
      space: its `build` must give the same network, to the bit, for equal canonical forms.
      trainer: that trains in this process; with workers it only says what would be trained.
      settings: JSON-able, all that a score depends on but the trainer's settings: of the space, that is.
      memory: bytes that a candidate's training may use, data counted. What needs more is out of memory.
      max_seconds: that a candidate may take once it is its turn; 0 is no limit. What takes longer is timed
        out: without workers after the segment of steps in which that is noticed.
      workers: processes that train; None trains in this one.
      cache: of what was trained before; None keeps one as long as the evaluator lives.

    Returns:
      `evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None)` takes leaves
      `[B, ...]`, `[B]` indices of budgets, the replicate of data and weights, one or `[B]`, `[B]` booleans
      (False rows are skipped), and a function told (trained, to train) as each candidate ends. If it raises,
      what is in training is finished and kept before that is passed on.
    """
    known = MemoryCache() if cache is None else cache
    pool: Pool = LocalPool(trainer)
    if workers is not None:
        pool = _RemotePool(
            space.to_json,
            workers.command,
            workers.setup,
            workers.number,
            Limits(max_seconds, memory),
            len(trainer.tasks),
        )
    status_of = jax.jit(jax.vmap(space.status))
    everything = {
        "format": INDIVIDUAL_FORMAT,
        **trainer.settings(),
        **settings,
        "memory": memory,
        "max_seconds": max_seconds,
    }
    encoded_settings = json.dumps(everything, sort_keys=True).encode()
    spent = {"compiling": 0.0, "waiting": 0.0, "training": 0.0}

    def cache_key(canonical: bytes, budget: int, replicate: int) -> bytes:
        """Everything that a score depends on, as bytes."""
        return b"|".join(
            (canonical, str(int(budget)).encode(), str(int(replicate)).encode(), encoded_settings)
        )

    def evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None) -> Evaluation:
        host = jax.tree.map(np.asarray, candidates)
        num = len(jax.tree.leaves(host)[0])
        budget = np.broadcast_to(np.asarray(budget, np.int32), (num,))
        replicate = np.broadcast_to(np.asarray(replicate, np.int32), (num,))
        if budget.min(initial=0) < 0 or budget.max(initial=0) >= len(trainer.budgets):
            raise ValueError(
                f"budget holds {budget.min()} to {budget.max()}; allowed are 0 to {len(trainer.budgets) - 1}."
            )
        asked = np.ones(num, bool) if valid_candidates is None else np.asarray(valid_candidates, bool)
        found = np.asarray(status_of(candidates)) if num else np.zeros(0, np.int32)
        status = np.where(asked, found, NOT_EVALUATED)
        keys: dict[int, bytes] = {}
        jobs: dict[bytes, Job] = {}
        for place in np.flatnonzero(status == OK).tolist():
            one = jax.tree.map(lambda leaf, place=place: leaf[place], host)
            canonical = space.canonical(one)
            keys[place] = cache_key(canonical, budget[place], replicate[place])
            job = Job(one, canonical_digest(canonical), int(budget[place]), int(replicate[place]))
            jobs.setdefault(keys[place], job)
        records = known.get(list(jobs))
        missing = [(key, job) for key, job in jobs.items() if key not in records]
        interruption: BaseException | None = None
        done = 0
        with closing(pool.run([job for _, job in missing])) as outcomes:
            for place, trained in outcomes:
                key, job = missing[place]
                known.put([(key, job.hash, trained.record)])
                records[key] = trained.record
                done += 1
                for name in spent:
                    spent[name] += getattr(trained, name)
                try:
                    if on_chunk is not None and interruption is None:
                        on_chunk(done, len(missing))
                except BaseException as error:
                    interruption = error
                    pool.stop()
        if interruption is not None:
            raise interruption
        return gather(num, len(trainer.tasks), status, keys, records)

    def prepare() -> None:
        try:
            pool.start()
        except WorkerError as error:
            raise ValueError(str(error)) from error

    plan = {
        "devices": parallel.describe_devices(1),
        "num_devices": 1,
        "training": trainer.describe(),
        "workers": f"{workers.number} processes" if workers else "none, training in this process",
        "each_candidate": f"at most {memory / 2**30:.3g} GiB"
        + (f" and {max_seconds:g} s" if max_seconds else ""),
    }
    return Evaluator(
        evaluate,
        cache_key,
        tuple(task.name for task in trainer.tasks),
        plan,
        prepare,
        pool.close,
        lambda: dict(spent),
    )
