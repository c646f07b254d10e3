"""Tables and curves of searches for whole networks, from their run folders.

What counts is the metric of the task on validation data, and on test data where `scripts/retrain_best.py`
has written it into the run folder, as `test.json` for the best and `test_NAME.json` for an architecture that
the search started from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.analysis.load import Run, candidates, load_runs, read_object
from elenas_jax.analysis.replays import Panel
from elenas_jax.experiment.run_dir import RunError

NUM_POINTS = 200  # of a curve
_SHARED = ("ladder", "tasks", "evaluator", "evaluations")  # of the config: searches must have them in common
_OF_TESTS = ("eval_epochs",)  # settings of the evaluator that a search does not use


class Evaluated(NamedTuple):
    """The trainings of one run, in their order; n of them, G generations."""

    values: np.ndarray  # [n] metric on validation data, NaN of a training that failed
    images: np.ndarray  # [n] examples trained on so far, this training's with them
    seconds: np.ndarray  # [G] since the start, at the end of each generation
    best: np.ndarray  # [G] best metric by then, NaN before the first
    mean_drawn: float  # metric of all candidates that were drawn, repeated ones too; 0 for what failed
    compiling: float  # share of the workers' time, NaN where nobody measured it
    chosen: float  # metric of the best candidate, as `load_run` ranks them
    was_stopped: bool  # so that its seconds are too few
    tested: list[dict[str, Any]]  # what retrain_best.py wrote, of the best and of starts


class Search(NamedTuple):
    """A search, with some seeds."""

    name: str
    config: Mapping[str, Any]
    runs: list[Evaluated]


def load_network_searches(paths: Sequence[Path]) -> list[Search]:
    """Loads searches that are to be compared, each a run folder or a folder of folders `seed_0`, ...

    Raises:
      RunError: if one cannot be read, is not of the individual evaluator, has no limit of evaluations or has
        not reached it, or differs from the first in its task, its evaluator or that limit; if tests are of
        another candidate than the best, or differ in epochs.
    """
    searches = [_load_search(path) for path in paths]
    if len({one.name for one in searches}) < len(searches):
        raise RunError("Two searches have the same name: the last part of their paths must tell them apart.")
    for one in searches:
        _check_comparable(one.name, one.config, searches[0].config)
    epochs = sorted({found["epochs"] for one in searches for run in one.runs for found in run.tested})
    if len(epochs) > 1:
        raise RunError(
            f"Networks were retrained for {epochs[0]} and for {epochs[-1]} epochs: "
            "their tests are not to be compared."
        )
    return searches


def _load_search(path: Path) -> Search:
    runs = load_runs(path, num_best=1)
    config = runs[0].config
    if config["evaluator"].get("name") != "individual" or len(runs[0].task_names) != 1:
        raise RunError(f"{path} is no search of networks on one data set (evaluator.name='individual').")
    if not config["evaluations"]:
        raise RunError(
            f"{path} has no limit of evaluations (its config says 0); searches are compared at equal numbers "
            "of them: give all the same --config.evaluations."
        )
    seeds = len(list(path.glob("seed_*")))
    if len(runs) < seeds:
        raise RunError(f"{path}: {seeds - len(runs)} of {seeds} seeds have not begun.")
    for run in runs:
        _check_comparable(str(run.path), run.config, config)
    return Search(path.name, config, [_evaluated(run) for run in runs])


def _check_comparable(name: str, config: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for section in _SHARED:
        ours, theirs = config.get(section), other.get(section)
        if section == "evaluator":
            ours, theirs = (
                {key: value for key, value in each[section].items() if key not in _OF_TESTS}
                for each in (config, other)
            )
        if ours != theirs:
            raise RunError(
                f"{name} differs in {section!r} of its config from what it is compared with: "
                f"{ours}, not {theirs}."
            )


def _evaluated(run: Run) -> Evaluated:
    wanted, task = run.config["evaluations"], run.task_names[0]
    drawn = candidates(run)
    rows = [row for row in drawn if row["is_new"]]
    if len(rows) < wanted:
        raise RunError(f"{run.path} has trained {len(rows)} of {wanted} candidates: it has not ended.")
    if not run.best or run.best[0]["metrics"][task] is None:
        raise RunError(f"{run.path}: no training succeeded.")
    largest = max(row["budget"] for row in rows)
    metrics = [_value(row, task, largest) for row in rows]
    values = np.array([np.nan if value is None else value for value in metrics], np.float64)
    place = np.array([row["generation"] for row in rows])
    best = np.fmax.accumulate(values)
    spent = [row.get("seconds_evaluator", {}) for row in run.generations]
    compiling, training = (sum(each.get(name, 0.0) for each in spent) for name in ("compiling", "training"))
    num_met = np.searchsorted(place, np.arange(place[-1] + 1), side="right")
    return Evaluated(
        values=values,
        mean_drawn=float(np.mean([_value(row, task, largest) or 0.0 for row in drawn])),
        images=np.cumsum([row["train_steps"] for row in rows]) * run.config["evaluator"]["batch_size"],
        seconds=np.cumsum([row["seconds"] for row in run.generations])[: place[-1] + 1],
        best=np.where(num_met > 0, best[np.maximum(num_met, 1) - 1], np.nan),
        compiling=compiling / (compiling + training) if compiling + training > 0 else np.nan,
        chosen=run.best[0]["metrics"][task],
        was_stopped=len(run.provenance.get("sessions", ())) > 1,
        tested=_load_tests(run),
    )


def _value(row: Mapping[str, Any], task: str, largest: int) -> float | None:
    """Returns the metric of a candidate that was trained to the end."""
    counts = row["status"] == 0 and row["budget"] == largest
    return row["metrics"].get(task) if counts else None


def _load_tests(run: Run) -> list[dict[str, Any]]:
    """Returns the tests of the best and of starts; those of other ranks are passed over."""
    tests = []
    for file in sorted(run.path.glob("test*.json")):
        found = read_object(file)
        if missing := {"start", "rank", "hash", "valid", "test", "parameters", "epochs"} - found.keys():
            raise RunError(f"{file} lacks {', '.join(sorted(missing))}: it is not of retrain_best.py.")
        numbers = [found["valid"], *(found["test"] if isinstance(found["test"], list) else ["none"])]
        if not all(value is None or isinstance(value, (int, float)) for value in numbers):
            raise RunError(f"{file} is damaged: valid must be a number, test a list of them, or null.")
        if found["rank"] == 1 and found["hash"] != run.best[0]["hash"]:
            raise RunError(f"{file} is of a candidate that is not the best any more: retrain the best again.")
        if found["start"] or found["rank"] == 1:
            tests.append(found)
    return tests


def networks_table(searches: Sequence[Search]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and rows: for each search the best it found, and what it started from.

    Metrics are in percent. Over the seeds of a search they are mean ± standard deviation; of several
    trainings for the test, their mean counts. Of a random search there is also the mean of all it drew, where
    what failed counts 0 (random sampling, Ericsson et al. 2024, but on validation data).
    """
    columns = ["search", "network", "parameters", "validation", "test"]
    columns += ["trained", "images", "minutes", "an hour", "compiling", "seeds"]
    rows = []
    for one in searches:
        tested = [found for run in one.runs for found in run.tested if not found["start"]]
        seconds = np.array([run.seconds[-1] for run in one.runs])
        minutes = f"{np.mean(seconds) / 60:.0f}"
        an_hour = np.mean([3600 * len(run.values) for run in one.runs] / seconds)
        was_stopped = any(run.was_stopped for run in one.runs)
        compiling = np.mean([run.compiling for run in one.runs])
        rows.append(
            [
                one.name,
                "best found",
                tested[0]["parameters"] if len(tested) == 1 else None,
                _spread([run.chosen for run in one.runs]),
                _tests_of_runs(one.runs),
                f"{np.mean([len(run.values) for run in one.runs]):.0f}",
                f"{np.mean([run.images[-1] for run in one.runs]):,.0f}",
                f"{minutes}, stopped" if was_stopped else minutes,
                None if was_stopped else f"{an_hour:,.0f}",
                f"{compiling:.0%}" if np.isfinite(compiling) else None,
                len(one.runs),
            ]
        )
        if one.config["strategy"]["name"] == "random_search":
            means = _spread([run.mean_drawn for run in one.runs])
            rows.append([one.name, "mean of all", None, means, *[None] * 6, len(one.runs)])
        starts = [found for run in one.runs for found in run.tested if found["start"]]
        for name in dict.fromkeys(found["start"] for found in starts):
            same = [found for found in starts if found["start"] == name]
            valid = _spread([found["valid"] for found in same if found["valid"] is not None])
            shown = [one.name, name, same[0]["parameters"], valid, _tests(same)]
            rows.append([*shown, *[None] * 5, len(same)])
    return columns, rows


def _tests_of_runs(runs: Sequence[Evaluated]) -> str | None:
    """Returns the tests of the best, a number for each run; says so where some have none."""
    means = []
    for run in runs:
        tests = [
            value for one in run.tested if not one["start"] for value in one["test"] if value is not None
        ]
        means += [float(np.mean(tests))] if tests else []
    shown = _spread(means)
    return shown if shown is None or len(means) == len(runs) else f"{shown} ({len(means)} of {len(runs)})"


def _tests(found: Sequence[Mapping[str, Any]]) -> str | None:
    means = [[value for value in one["test"] if value is not None] for one in found]
    return _spread([float(np.mean(each)) for each in means if each])


def _spread(values: Sequence[float]) -> str | None:
    if not values:
        return None
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def network_panels(searches: Sequence[Search]) -> list[Panel]:
    """Returns the best metric so far, in percent, over images trained on and over minutes.

    A run that ended before the longest one keeps what it had.
    """
    most = max(run.images[-1] for one in searches for run in one.runs)
    longest = max(run.seconds[-1] for one in searches for run in one.runs)
    images, seconds = np.linspace(0.0, most, NUM_POINTS), np.linspace(0.0, longest, NUM_POINTS)
    of_images = {
        one.name: np.stack([_at(images, run.images, np.fmax.accumulate(run.values)) for run in one.runs])
        for one in searches
    }
    of_seconds = {
        one.name: np.stack([_at(seconds, run.seconds, run.best) for run in one.runs]) for one in searches
    }
    return [
        Panel("Training images (thousands)", images / 1000, of_images),
        Panel("Minutes", seconds / 60, of_seconds),
    ]


def _at(x: np.ndarray, reached: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the value of the last place that is reached at each x, in percent; NaN before the first."""
    place = np.searchsorted(reached, x, side="right") - 1
    return 100 * np.where(place >= 0, values[np.maximum(place, 0)], np.nan)
