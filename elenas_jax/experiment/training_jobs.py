"""Trainings on a data set, each with a share of the time, that go on after a kill.

A training's number of steps follows from its time and the speed that is measured as it begins, and is then
written down: equal trainings take as many, and so does whatever goes on with the folder on a faster machine
or a slower one.
"""

import math
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.retraining import SEGMENT_STEPS, Course, RetrainState, Trainer
from elenas_jax.evaluation.stacked import count_parameters
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.run_dir import read_json, write_json
from elenas_jax.tasks.records import Dataset
from elenas_jax.types import PyTree

DIVERGED = "diverged"


class Job(NamedTuple):
    """One training."""

    name: str  # of its files: what it is for, an underscore and a number
    depth: int
    batch_size: int
    learning_rate: float
    seed: int
    seconds: float  # that it may take
    evaluations: int  # on validation data
    most_steps: int

    def described(self) -> str:
        return f"depth {self.depth}, batch {self.batch_size}, learning rate {self.learning_rate:g}"

    def equals(self) -> str:
        """Names the trainings that take as many steps as this one."""
        return f"{self.name.partition('_')[0]}s, depth {self.depth}, batch {self.batch_size}"


class Progressing(NamedTuple):
    """A training in progress: what a checkpoint holds."""

    state: RetrainState
    best: PyTree  # parameters of the best evaluation so far
    curve: np.ndarray  # [evaluations, 3] steps, loss, validation metric; NaN where not there yet


class Jobs:
    """The trainings of one folder: finished ones are known, begun ones are gone on with."""

    def __init__(self, folder: Path, say: Callable[[str], None], stop_requested: Callable[[], bool]) -> None:
        self.folder, self.say, self.stop_requested = folder, say, stop_requested
        self._lock, self._began = threading.Lock(), time.perf_counter()
        self._file, self._plan_file = folder / "trainings.json", folder / "plan.json"
        self._known: dict[str, Any] = read_json(self._file) if self._file.exists() else {}
        plan = read_json(self._plan_file) if self._plan_file.exists() else {}
        self._steps: dict[str, int] = plan.get("steps", {})
        self._seconds = plan.get("seconds", 0.0)

    def run(
        self, jobs: Sequence[Job], trainer_of: Callable[[Job, int], Trainer], dataset: Dataset, devices: int
    ) -> list[dict[str, Any]] | None:
        """Runs jobs side by side; returns their records, or None if it was stopped."""
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for device in range(devices):
            free.put(device)

        def work(job: Job) -> dict[str, Any] | None:
            if self.known(job.name, "status"):
                return self._known[job.name]
            device = free.get()
            try:
                if self.stop_requested():
                    return None
                return self._train(job, lambda: trainer_of(job, device), dataset)
            finally:
                free.put(device)

        with ThreadPoolExecutor(devices) as threads:
            records = list(threads.map(work, jobs))
        return None if any(record is None for record in records) else [each for each in records if each]

    def known(self, name: str, key: str) -> Any:
        """Returns what is written of a training, or None."""
        return self._known.get(name, {}).get(key)

    def seconds(self) -> float:
        """Returns how long the folder has been worked on, in all sessions."""
        return self._seconds + time.perf_counter() - self._began

    def weights(self, name: str) -> Path:
        return self.folder / "weights" / f"{name}.npz"

    def _write(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._known[name] = self._known.get(name, {}) | values
            write_json(self._file, self._known)
            write_json(self._plan_file, {"steps": self._steps, "seconds": round(self.seconds(), 1)})
            return self._known[name]

    def _train(self, job: Job, make: Callable[[], Trainer], dataset: Dataset) -> dict[str, Any] | None:
        began = time.perf_counter()
        trainer = make()
        state = trainer.init(job.seed)
        parameters = count_parameters(state.params)
        if job.equals() not in self._steps:
            affordable = _affordable_steps(job, trainer, dataset, began)
            with self._lock:
                self._steps.setdefault(job.equals(), affordable)
        steps = self._steps[job.equals()]
        self._write(job.name, {"steps": steps, "parameters": parameters} | job._asdict())
        course = Course(job.seed, steps, job.learning_rate)
        curve = np.full((job.evaluations, 3), np.nan)
        now = Progressing(state, state.params, curve)
        folder = self.folder / "checkpoints" / job.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(folder)
        with self._lock:
            done = checkpoints.newest() or 0
            now = checkpoints.restore(done, now) if done else now
        saved = time.perf_counter()
        segments = steps // SEGMENT_STEPS
        for place in range(done, job.evaluations):
            state = now.state
            first, end = (round(k * segments / job.evaluations) for k in (place, place + 1))
            for segment in range(first, end):
                if self.stop_requested():
                    self._keep(checkpoints, place, now)
                    return None
                state = jax.block_until_ready(trainer.advance(state, course, segment * SEGMENT_STEPS))
            now = _evaluated(now, state, place, end * SEGMENT_STEPS, trainer, dataset)
            _, loss, valid = now.curve[place]
            self.say(
                f"{job.name}: step {end * SEGMENT_STEPS:,} of {steps:,}, loss {loss:.4f}, "
                f"validation {dataset.metric} {valid:.4f}"
            )
            if not math.isfinite(loss):
                break
            if time.perf_counter() - saved > _SAVE_SECONDS and place + 1 < job.evaluations:
                self._keep(checkpoints, place + 1, now)
                saved = time.perf_counter()
        return self._end(job, now, checkpoints, time.perf_counter() - began, trainer)

    def _keep(self, checkpoints: Checkpoints, place: int, now: Progressing) -> None:
        with self._lock:
            if place and checkpoints.newest() != place:
                checkpoints.save(place, now)

    def _end(
        self, job: Job, now: Progressing, checkpoints: Checkpoints, seconds: float, trainer: Trainer
    ) -> dict[str, Any]:
        """Writes what came out of a training, its weights first."""
        best = _best_place(now.curve, trainer)
        save_params(self.weights(job.name), parallel.on_host(now.best))
        record = self._write(
            job.name,
            {
                "curve": now.curve.tolist(),
                "best_step": None if best is None else int(now.curve[best, 0]),
                "valid": None if best is None else float(now.curve[best, 2]),
                "status": "ok" if np.isfinite(now.curve[:, 1]).all() else DIVERGED,
                "seconds_taken": round(seconds, 1),  # by the session that ended it
            },
        )
        checkpoints.close()
        shutil.rmtree(checkpoints.path, ignore_errors=True)
        return record


_SAVE_SECONDS = 30.0  # of training, that a kill may lose


def _affordable_steps(job: Job, trainer: Trainer, dataset: Dataset, began: float) -> int:
    """Measures how long segments and evaluations take, and returns the steps that fit."""
    course = Course(job.seed, SEGMENT_STEPS, job.learning_rate)
    state = jax.block_until_ready(trainer.advance(trainer.init(job.seed), course, 0))
    trainer.measure(state.params, dataset.valid)  # both are compiled now
    start = time.perf_counter()
    trainer.measure(state.params, dataset.valid)
    of_evaluation = time.perf_counter() - start
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        state = jax.block_until_ready(trainer.advance(state, course, 0))
        count += 1
    of_segment = (time.perf_counter() - start) / count
    left = job.seconds - (time.perf_counter() - began) - job.evaluations * of_evaluation
    segments = min(left / of_segment, job.most_steps / SEGMENT_STEPS)
    return SEGMENT_STEPS * max(job.evaluations, int(segments))


def _evaluated(
    now: Progressing, state: RetrainState, place: int, steps: int, trainer: Trainer, dataset: Dataset
) -> Progressing:
    """Measures on validation data and adds a point to the curve."""
    valid = trainer.measure(state.params, dataset.valid)
    curve = now.curve.copy()
    curve[place] = steps, float(state.loss), valid
    is_best = _best_place(curve, trainer) == place
    return Progressing(state, state.params if is_best else now.best, curve)


def _best_place(curve: np.ndarray, trainer: Trainer) -> int | None:
    best = None
    for place, value in enumerate(curve[:, 2]):
        if math.isfinite(value) and (best is None or trainer.is_better(value, curve[best, 2])):
            best = place
    return best


def save_params(path: Path, params: PyTree) -> None:
    """Writes parameters under names like `block_0/W1`; a kill leaves the old file or the new one."""
    flat = {
        "/".join(str(each.key) for each in where): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "wb") as file:
        np.savez(file, **flat)  # type: ignore[arg-type]  # mypy takes names for the keyword allow_pickle
    draft.replace(path)


def load_params(path: Path) -> dict[str, Any]:
    """Returns what `save_params` wrote."""
    params: dict[str, Any] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            node: dict[str, Any] = params
            *parents, last = name.split("/")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = arrays[name]
    return params


def summarise(values: Sequence[float]) -> str:
    """Returns mean ± standard deviation, or the one number."""
    text = f"{np.mean(values):.4f}" if np.mean(values) < 10 else f"{np.mean(values):.2f}"
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values):.4f}" if np.mean(values) < 10 else f"{text} ± {np.std(values):.2f}"
