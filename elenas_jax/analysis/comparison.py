"""Compares runs: their results, and what differs in their configs."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.analysis.load import read_object
from elenas_jax.analysis.runs import SEARCH, natural, text_cell
from elenas_jax.analysis.tables import Table, count, duration, number
from elenas_jax.experiment.run_dir import RunError, flatten, run_dir

_RESULTS = ("status", "best_score", "parameters", "evaluations", "generations", "seconds", "commit")


def select_runs(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Returns the searches with these names, in that order; a folder's name stands for all in it.

    Args:
      rows: of `list_runs`.
      names: as in the rows, or paths.

    Raises:
      RunError: for a name that is none.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for given in names:
        name = given.strip().rstrip("/")
        searches = [row for row in rows if row["kind"] == SEARCH]
        found = [row for row in searches if row["name"] == name or row["name"].startswith(f"{name}/")]
        if name and not found:
            path = Path(name).expanduser().resolve()
            found = [row for row in searches if Path(row["path"]).resolve().is_relative_to(path)]
        if not found:
            known = ", ".join(row["name"] for row in searches)
            raise RunError(f"There is no search {given!r}; there are {known or 'none'}.")
        chosen |= {row["name"]: row for row in sorted(found, key=lambda row: natural(row["name"]))}
    return list(chosen.values())


def compare_runs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a record for each run: its name, its results, and the keys of the configs that differ.

    Args:
      rows: of `list_runs`, two at least.

    Returns:
      Dicts; keys of the config are written `config.evaluator.head`. A key that a run's config does not
      have is not in its record.

    Raises:
      RunError: for fewer than two runs, or a config that cannot be read.
    """
    if len(rows) < 2:
        raise RunError(f"There is only {len(rows)} run to compare; two are needed.")
    configs = []
    for row in rows:
        config = read_object(run_dir(row["path"]).config)
        config.pop("plan", None)  # how a machine went about it; nobody chose it
        configs.append(flatten(config))
    keys = dict.fromkeys(key for config in configs for key in config)
    shown = {key: [json.dumps(config[key]) if key in config else None for config in configs] for key in keys}
    differing = sorted(key for key, values in shown.items() if len(set(values)) > 1)
    return [
        {
            "name": row["name"],
            **{key: row[key] for key in _RESULTS},
            **{f"config.{key}": config[key] for key in differing if key in config},
        }
        for row, config in zip(rows, configs, strict=True)
    ]


def comparison_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """One line per result and per differing key, one column per run."""
    formats: dict[str, Callable[[Any], str]] = {
        "best_score": number,
        "parameters": count,
        "evaluations": count,
        "generations": count,
    }
    formats |= {"seconds": lambda value: "-" if value is None else duration(value)}
    lines = [
        (key.replace("_", " "), *(formats.get(key, text_cell)(record[key]) for record in records))
        for key in _RESULTS
    ]
    keys = sorted({key for record in records for key in record if key.startswith("config.")})
    for key in keys:
        lines.append((key, *(json.dumps(one[key]) if key in one else "not set" for one in records)))
    title = "Results, and keys of the configs that differ" if keys else "Results; the configs are the same"
    return Table(title, ("", *(record["name"] for record in records)), lines)
