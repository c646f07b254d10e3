"""Tables and curves of searches for whole networks, from their run folders.

What counts is the metric of the task on validation data, and on test data where `scripts/retrain_best.py`
has written it into the run folder, as `test.json` for the best and `test_NAME.json` for an architecture that
the search started from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.analysis.load import candidates, load_runs, read_object
from elenas_jax.analysis.replays import Panel
from elenas_jax.experiment.run_dir import RunError

NUM_POINTS = 200  # of a curve
_SHARED = ("ladder", "tasks", "evaluator", "evaluations")  # sections that searches must have in common
_HOW = ("workers", "memory_gib")  # settings of the evaluator that change no result


class Evaluated(NamedTuple):
    """The trainings of one run, in their order; n of them, G generations."""

    seed: int
    values: np.ndarray  # [n] metric on validation data, NaN of a training that failed
    images: np.ndarray  # [n] examples trained on so far, this training's with them
    seconds: np.ndarray  # [G] since the start, at the end of each generation
    best: np.ndarray  # [G] best metric by then, NaN before the first
    tested: list[dict[str, Any]]  # what retrain_best.py wrote


class Search(NamedTuple):
    """A search, with some seeds."""

    name: str
    config: Mapping[str, Any]  # of the first seed
    runs: list[Evaluated]


def load_network_searches(paths: Sequence[Path]) -> list[Search]:
    """Loads searches that are to be compared, each a run folder or a folder of folders `seed_0`, ...

    Raises:
      RunError: if one cannot be read, is not of the individual evaluator, has not trained as many candidates
        as its config says, or differs from the first in its task, its evaluator or its budget;
        if tests differ in theirs.
    """
    searches = [_load_search(path) for path in paths]
    for one in searches:
        for section in _SHARED:
            if _comparable(one.config, section) != _comparable(searches[0].config, section):
                raise RunError(
                    f"{one.name} and {searches[0].name} differ in {section!r} of their configs: "
                    "they are not to be compared."
                )
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
    wanted, task = config["evaluations"], runs[0].task_names[0]
    evaluated = []
    for run in runs:
        rows = [row for row in candidates(run) if row["is_new"]][:wanted]
        if len(rows) < wanted:
            raise RunError(f"{run.path} has trained {len(rows)} of {wanted} candidates: it has not ended.")
        metrics = [row["metrics"].get(task) if row["status"] == 0 else None for row in rows]
        values = np.array([np.nan if value is None else value for value in metrics], np.float64)
        images = np.cumsum([row["train_steps"] for row in rows]) * config["evaluator"]["batch_size"]
        place = np.array([row["generation"] for row in rows])
        best = np.fmax.accumulate(values)
        num_met = np.searchsorted(place, np.arange(place[-1] + 1), side="right")
        evaluated.append(
            Evaluated(
                seed=run.seed or 0,
                values=values,
                images=images,
                seconds=np.cumsum([row["seconds"] for row in run.generations])[: place[-1] + 1],
                best=np.where(num_met > 0, best[np.maximum(num_met, 1) - 1], np.nan),
                tested=[_load_test(file) for file in sorted(run.path.glob("test*.json"))],
            )
        )
    return Search(path.name, config, evaluated)


def _load_test(file: Path) -> dict[str, Any]:
    found = read_object(file)
    if missing := {"start", "valid", "test", "parameters", "epochs"} - found.keys():
        raise RunError(f"{file} lacks {', '.join(sorted(missing))}: it is not of retrain_best.py.")
    return found


def _comparable(config: Mapping[str, Any], section: str) -> Any:
    found = config.get(section)
    if section == "evaluator":
        return {name: value for name, value in config[section].items() if name not in _HOW}
    return found


def networks_table(searches: Sequence[Search]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and rows: for each search the best it found, and what it started from.

    Metrics are in percent. Over the seeds of a search they are mean ± standard deviation; of several
    trainings for the test, their mean counts.
    """
    columns = ["search", "network", "parameters", "validation", "test", "images", "minutes", "seeds"]
    rows = []
    for one in searches:
        best = [float(np.nanmax(run.values)) for run in one.runs]
        tested = [found for run in one.runs for found in run.tested if not found["start"]]
        rows.append(
            [
                one.name,
                "best found",
                tested[0]["parameters"] if len(tested) == 1 else None,
                _spread(best),
                _tests(tested),
                f"{np.mean([run.images[-1] for run in one.runs]):,.0f}",
                f"{np.mean([run.seconds[-1] for run in one.runs]) / 60:.0f}",
                len(one.runs),
            ]
        )
        starts = [found for run in one.runs for found in run.tested if found["start"]]
        for name in dict.fromkeys(found["start"] for found in starts):
            same = [found for found in starts if found["start"] == name]
            valid = _spread([found["valid"] for found in same])
            rows.append([one.name, name, same[0]["parameters"], valid, _tests(same), None, None, len(same)])
    return columns, rows


def _tests(found: Sequence[Mapping[str, Any]]) -> str | None:
    means = [[value for value in one["test"] if value is not None] for one in found]
    values = [float(np.mean(each)) for each in means if each]
    return _spread(values) if values else None


def _spread(values: Sequence[float]) -> str:
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
