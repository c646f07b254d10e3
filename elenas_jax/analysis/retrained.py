"""Retrained blocks in a list of runs: what a row says of one, and their table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from elenas_jax.analysis.tables import Table, count, number


def read_retrained(
    config: Mapping[str, Any], trainings: Mapping[str, Any], result: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns what the files of a retraining say, by the columns of a row (`runs.COLUMNS`).

    Before the end there are means over the seeds that are trained, and no test metric.

    Args:
      config: config.json.
      trainings: trainings.json; empty if nothing was trained.
      result: result.json, None before the end.

    Raises:
      KeyError, TypeError, ValueError: if one of them is damaged.
    """
    seeds = [
        each for name, each in trainings.items() if name.startswith("seed_") and each.get("valid") is not None
    ]
    found: Mapping[str, Any] = result or {
        "metric": None,
        "valid": [each["valid"] for each in seeds],
        "test": [],
        "parameters": seeds[0]["parameters"] if seeds else None,
        "seeds": len(seeds),
    }
    validation, test = (_mean_and_deviation(found[key]) for key in ("valid", "test"))
    return {
        "block": str(config["block"]["name"]),
        "tasks": str(config["task"]["name"]),
        "seed": int(config["seed"]),
        "minutes": float(config["minutes"]),
        "metric": found["metric"],
        "validation": validation[0],
        "validation_sd": validation[1],
        "test": test[0],
        "test_sd": test[1],
        "parameters": found["parameters"],
        "seeds": int(found["seeds"]),
    }


def retrained_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per retrained block: mean ± standard deviation over seeds of validation and test metrics."""
    lines = [
        {
            "run": row["name"],
            "block": row["block"] or "-",
            "task": row["tasks"] or "-",
            "status": row["status"],
            "metric": row["metric"] or "-",
            "validation": _spread(row["validation"], row["validation_sd"]),
            "test": _spread(row["test"], row["test_sd"]),
            "parameters": count(row["parameters"]),
            "seeds": count(row["seeds"]),
            "minutes": "-" if row["minutes"] is None else f"{row['minutes']:g}",
            "date": (row["date"] or "-")[:16],
        }
        for row in rows
    ]
    title = f"{len(rows)} retrained {'block' if len(rows) == 1 else 'blocks'}"
    numeric = ("validation", "test", "parameters", "seeds", "minutes")
    columns = tuple(lines[0]) if lines else ()
    return Table(title, columns, [tuple(line.values()) for line in lines], frozenset(numeric))


def _mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """None where there is no value."""
    numbers = [math.nan if value is None else float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        return None, None
    return statistics.fmean(numbers), statistics.pstdev(numbers)


def _spread(mean: float | None, deviation: float | None) -> str:
    digits = 4 if mean is None or mean < 10 else 2  # a perplexity is larger
    return number(mean, digits) + (f" ± {number(deviation, digits)}" if deviation else "")
