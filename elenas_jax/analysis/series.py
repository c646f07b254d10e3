"""Curves of a run, or of the same search with several seeds, as arrays: what figures and reports draw.

With several runs a curve is the mean over the runs that came that far, and its band spans the
smallest to the largest. What a run had found when it ended it keeps: best so far goes on level.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.analysis.load import Run
from elenas_jax.analysis.tables import count_statuses

# Of a line of metrics.jsonl: what other curves and tables show, or what only counts on.
_SHOWN_ELSEWHERE = frozenset(
    ("generation", "valid", "best_score", "mean_score", "proposals", "total_evaluations", "total_draws")
)


class Curve(NamedTuple):
    """Values over x, in the order of x; where no run has a value there is no x."""

    x: np.ndarray  # [points]
    mean: np.ndarray  # [points]
    low: np.ndarray  # [points], equal to mean for a single run
    high: np.ndarray  # [points]


class Shares(NamedTuple):
    """What became of the proposals of each generation, over all runs."""

    statuses: list[tuple[int, str]]  # status and its text, by status
    counts: np.ndarray  # [statuses, generations] float64

    @property
    def percent(self) -> np.ndarray:
        """`[statuses, generations]`; a generation without proposals is 0 throughout."""
        return 100 * self.counts / np.maximum(self.counts.sum(axis=0), 1)


def best_so_far(runs: Sequence[Run]) -> Curve:
    """Best score found so far against the number of trained candidates, which counts from 1."""
    series = []
    for run in runs:
        if run.evaluation_scores.size and np.isfinite(run.evaluation_scores).any():
            finite = np.where(np.isfinite(run.evaluation_scores), run.evaluation_scores, np.nan)
            series.append(np.fmax.accumulate(finite))
    length = max(map(len, series), default=0)
    return _curve([np.pad(values, (0, length - len(values)), mode="edge") for values in series], start=1)


def score_by_generation(runs: Sequence[Run], name: str) -> Curve:
    """The column `name` of `Run.scores` ("best_score" or "mean_score") by generation."""
    return _by_generation([{row["generation"]: row[name] for row in run.scores} for run in runs])


def diagnostics(runs: Sequence[Run]) -> dict[str, Curve]:
    """What the strategy reported by generation, by name: the numbers under "strategy" in metrics.jsonl."""
    return _numbers([{row["generation"]: row.get("strategy") for row in run.generations} for run in runs])


def costs(runs: Sequence[Run]) -> dict[str, Curve]:
    """The other numbers of metrics.jsonl by generation: different candidates, seconds, steps, ..."""
    return {
        name: curve
        for name, curve in _numbers(
            [{row["generation"]: row for row in run.generations} for run in runs]
        ).items()
        if name not in _SHOWN_ELSEWHERE
    }


def status_shares(runs: Sequence[Run]) -> Shares:
    """Returns how often each status occurred in each generation, all runs together."""
    statuses = [(row["status"], row["status_text"]) for row in count_statuses(runs)]
    num = 1 + max((row["generation"] for run in runs for row in run.statuses), default=-1)
    counts = np.zeros((len(statuses), num))
    places = {status: place for place, status in enumerate(statuses)}
    for run in runs:
        for row in run.statuses:
            counts[places[row["status"], row["status_text"]], row["generation"]] += row["count"]
    return Shares(statuses, counts)


def _numbers(records: Sequence[Mapping[int, object]]) -> dict[str, Curve]:
    """Returns a curve for each key that holds finite numbers; `records`: per run, generation -> mapping."""
    columns: dict[str, list[dict[int, float]]] = {}
    for place, by_generation in enumerate(records):
        for generation, record in by_generation.items():
            if not isinstance(record, Mapping):
                continue
            for name, value in record.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    columns.setdefault(name, [{} for _ in records])[place][generation] = float(value)
    return {name: _by_generation(values) for name, values in columns.items()}


def _by_generation(columns: Sequence[Mapping[int, float | None]]) -> Curve:
    series = []
    for column in columns:
        values = np.full(1 + max(column, default=-1), np.nan)
        for generation, value in column.items():
            values[generation] = np.nan if value is None else value
        series.append(values)
    return _curve(series)


def _curve(series: Sequence[np.ndarray], start: int = 0) -> Curve:
    """Puts series over a common axis that begins at `start`; what is not finite is a gap."""
    length = max(map(len, series), default=0)
    table = np.full((max(len(series), 1), length), np.nan)
    for row, values in zip(table, series):
        row[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    seen = np.isfinite(table).any(axis=0)
    table = table[:, seen]
    x = np.arange(start, start + length)[seen]
    return Curve(x, np.nanmean(table, axis=0), np.nanmin(table, axis=0), np.nanmax(table, axis=0))
