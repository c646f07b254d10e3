"""Trainings on a data set, each with a share of the time, that go on after a kill.

A training's number of steps follows from its time and the speed that is measured as it begins, and is then
written down: equal trainings take as many, and so does whatever goes on with the folder on a faster machine
or a slower one.
"""

import math
import os
import queue
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.retraining import SEGMENT_STEPS, Course, RetrainState, Trainer
from elenas_jax.evaluation.stacked import count_parameters
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.run_dir import RunError, read_json, write_json
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
    sharing: int  # trainings that a device runs with what is compiled for this one
    evaluations: int  # on validation data, at most
    most_steps: int

    def described(self) -> str:
        return f"depth {self.depth}, batch {self.batch_size}, learning rate {self.learning_rate:g}"

    def equals(self) -> str:
        """Names the trainings that take as many steps as this one."""
        return f"{self.name.partition('_')[0]}s, depth {self.depth}, batch {self.batch_size}"


class Length(NamedTuple):
    """How long a training is."""

    segments: int
    evaluations: int

    def ends(self) -> dict[int, int]:
        """Returns the place of the evaluation that follows on so many segments."""
        return {round((n + 1) * self.segments / self.evaluations): n for n in range(self.evaluations)}


class Progressing(NamedTuple):
    """A training in progress: what a checkpoint holds."""

    state: RetrainState
    best: PyTree  # parameters of the best evaluation so far
    curve: np.ndarray  # [evaluations, 3] steps, loss, validation metric; NaN where not there yet


class Jobs:
    """The trainings of one folder: finished ones are known, begun ones are gone on with."""

    def __init__(self, folder: Path, say: Callable[[str], None], stop_requested: Callable[[], bool]) -> None:
        self.folder, self.say = folder, say
        self._lock, self._began, self._failed = threading.Lock(), time.perf_counter(), threading.Event()
        self.stop_requested = lambda: stop_requested() or self._failed.is_set()
        self._file, self._plan_file = folder / "trainings.json", folder / "plan.json"
        self._known = _read_objects(self._file)
        plan = read_json(self._plan_file) if self._plan_file.exists() else {}
        try:
            lengths = plan.get("segments, evaluations", {})
            self._lengths = {name: Length(*map(int, length)) for name, length in lengths.items()}
            self._seconds, self._chosen = float(plan.get("seconds", 0.0)), plan.get("chosen")
            if self._chosen is not None and self._chosen not in self._known:
                raise ValueError(f"it chose {self._chosen!r}, which {self._file.name} does not have")
        except (AttributeError, TypeError, ValueError) as error:
            raise RunError(f"{self._plan_file} is damaged ({error}); start in a new folder.") from error

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
                return self._train(job, trainer_of(job, device), dataset)
            except BaseException:
                self._failed.set()  # the others need not go on
                raise
            finally:
                free.put(device)

        with ThreadPoolExecutor(devices) as threads:
            records = list(threads.map(work, jobs))
        return None if any(record is None for record in records) else [each for each in records if each]

    def known(self, name: str, key: str) -> Any:
        """Returns what is written of a training, or None."""
        return self._known.get(name, {}).get(key)

    def has_begun(self, name: str) -> bool:
        return name in self._known

    def chosen(self) -> dict[str, Any] | None:
        """Returns the record of the training whose settings were chosen, None before the choice."""
        return None if self._chosen is None else self._known[self._chosen]

    def choose(self, name: str) -> None:
        """Writes down whose settings are chosen, once and for all sessions."""
        with self._lock:
            self._chosen = name
            self._write_plan()

    def seconds(self) -> float:
        """Returns how long the folder has been worked on, in all sessions."""
        return self._seconds + time.perf_counter() - self._began

    def weights(self, name: str) -> Path:
        return self.folder / "weights" / f"{name}.npz"

    def _write(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._known[name] = self._known.get(name, {}) | values
            write_json(self._file, self._known)
            self._write_plan()
            return self._known[name]

    def _write_plan(self) -> None:
        seconds = round(self.seconds(), 1)
        plan = {"segments, evaluations": self._lengths, "seconds": seconds, "chosen": self._chosen}
        write_json(self._plan_file, plan)

    def _train(self, job: Job, trainer: Trainer, dataset: Dataset) -> dict[str, Any] | None:
        began = time.perf_counter()
        if job.equals() not in self._lengths:
            affordable = _affordable(job, trainer, dataset, began)
            with self._lock:
                self._lengths.setdefault(job.equals(), affordable)
        length = self._lengths[job.equals()]
        steps = SEGMENT_STEPS * length.segments
        state = trainer.init(job.seed)
        about = {"steps": steps, "parameters": count_parameters(state.params)}
        self._write(job.name, about | job._asdict())
        course = Course(job.seed, steps, job.learning_rate)
        now = Progressing(state, state.params, np.full((length.evaluations, 3), np.nan))
        folder = self.folder / "checkpoints" / job.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(folder)
        with self._lock:
            done = checkpoints.newest() or 0
            now = checkpoints.restore(done, now) if done else now
        saved, ends = time.perf_counter(), length.ends()
        for segment in range(done, length.segments):
            if self.stop_requested():
                self._keep(checkpoints, segment, now)
                return None
            state = jax.block_until_ready(trainer.advance(now.state, course, segment * SEGMENT_STEPS))
            now = now._replace(state=state)
            place = ends.get(segment + 1)
            if place is not None:
                now = _evaluated(now, place, (segment + 1) * SEGMENT_STEPS, trainer, dataset)
                taken, loss, valid = now.curve[place]
                self.say(
                    f"{job.name}: step {taken:,.0f} of {steps:,}, loss {loss:.4f}, "
                    f"validation {dataset.metric} {valid:.4f}"
                )
                if not math.isfinite(loss):
                    break
            if time.perf_counter() - saved > _SAVE_SECONDS and segment + 1 < length.segments:
                self._keep(checkpoints, segment + 1, now)
                saved = time.perf_counter()
        return self._end(job, now, checkpoints, time.perf_counter() - began, trainer)

    def _keep(self, checkpoints: Checkpoints, segments: int, now: Progressing) -> None:
        with self._lock:
            if segments and checkpoints.newest() != segments:
                checkpoints.save(segments, now)
            self._write_plan()

    def _end(
        self, job: Job, now: Progressing, checkpoints: Checkpoints, seconds: float, trainer: Trainer
    ) -> dict[str, Any]:
        """Writes what came out of a training, its weights first."""
        best = _best_place(now.curve, trainer)
        if best is not None:
            save_params(self.weights(job.name), parallel.on_host(now.best))
        diverged = not np.isfinite(now.curve[:, 1]).all()
        record = self._write(
            job.name,
            {
                "curve": now.curve.tolist(),
                "best_step": None if best is None else int(now.curve[best, 0]),
                "valid": None if best is None else float(now.curve[best, 2]),
                "status": DIVERGED if diverged else "ok",
                "seconds_taken": round(seconds, 1),  # by the session that ended it
            },
        )
        checkpoints.close()
        shutil.rmtree(checkpoints.path, ignore_errors=True)
        return record


_SAVE_SECONDS = 30.0  # of training, that a kill may lose, and a segment
_MEASURED_SECONDS = 0.5  # of training, from which its speed is told
_EVALUATING = 0.25  # share of a training's time that evaluations may take


def _affordable(job: Job, trainer: Trainer, dataset: Dataset, began: float) -> Length:
    """Measures how long segments and evaluations take, and returns how many fit; one of each at least."""
    course = Course(job.seed, SEGMENT_STEPS, job.learning_rate)
    state = jax.block_until_ready(trainer.advance(trainer.init(job.seed), course, 0))
    trainer.measure(state.params, dataset.valid)  # both are compiled now
    start = time.perf_counter()
    trainer.measure(state.params, dataset.valid)
    of_evaluation = time.perf_counter() - start
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < _MEASURED_SECONDS:
        state = jax.block_until_ready(trainer.advance(state, course, 0))
        count += 1
    of_segment = (time.perf_counter() - start) / count
    left = job.seconds - (time.perf_counter() - began) / job.sharing
    evaluations = max(1, min(job.evaluations, int(_EVALUATING * left / of_evaluation)))
    segments = int(min((left - evaluations * of_evaluation) / of_segment, job.most_steps / SEGMENT_STEPS))
    segments = max(1, segments)
    return Length(segments, min(evaluations, segments))


def _evaluated(now: Progressing, place: int, steps: int, trainer: Trainer, dataset: Dataset) -> Progressing:
    """Measures on validation data and adds a point to the curve."""
    valid = trainer.measure(now.state.params, dataset.valid)
    curve = now.curve.copy()
    curve[place] = steps, float(now.state.loss), valid
    is_best = _best_place(curve, trainer) == place
    return Progressing(now.state, now.state.params if is_best else now.best, curve)


def _best_place(curve: np.ndarray, trainer: Trainer) -> int | None:
    """Returns the place of the best evaluation; none after a loss that was not finite counts."""
    best = None
    for place, (_, loss, value) in enumerate(curve):
        counts = math.isfinite(loss) and math.isfinite(value)
        if counts and (best is None or trainer.is_better(value, curve[best, 2])):
            best = place
    return best


def save_params(path: Path, params: PyTree) -> None:
    """Writes parameters under names like `block_0/W1`; a kill leaves the old file or the new one.

    Raises:
      RunError: if the file cannot be written.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as file:
            np.savez(file, **flat)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}.") from error


def load_params(path: Path) -> dict[str, Any]:
    """Returns what `save_params` wrote.

    Raises:
      RunError: if the file cannot be read.
    """
    try:
        with np.load(path) as arrays:
            return unflatten_dict(dict(arrays), sep="/")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"Cannot read {path} ({type(error).__name__}); start in a new folder to train anew."
        ) from error


def _read_objects(path: Path) -> dict[str, Any]:
    """Returns the records of a file, by name; none if there is no such file."""
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise RunError(f"{path} is damaged: it must hold an object of objects; start in a new folder.")
    return found
