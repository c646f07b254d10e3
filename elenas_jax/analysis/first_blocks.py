"""Tables of searches for a first block over a bar, from the run folders of `scripts/first_block.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.experiment.run_dir import RunError, read_json, read_metrics, run_dir

BARS = ("paper", "paper_no_head", "lstm")


class Search(NamedTuple):
    """One search for a first block."""

    bar: str
    seed: int
    seconds: float  # until it was found, or so far
    evaluations: int
    found: dict[str, Any] | None  # as the file of --json
    reference: dict[str, list[float]] | None  # metrics of the block that the bar is made of, one a seed
    reference_parameters: int | None
    commit: str


def load_searches(folder: Path) -> list[Search]:
    """Returns the searches in `folder`, by bar and seed.

    Args:
      folder: holds run folders named BAR_SEED; other names are passed over.

    Raises:
      RunError: if there are none, or something in them is damaged.
    """
    searches = []
    for path in sorted(folder.glob("*_*")):
        bar, _, seed = path.name.rpartition("_")
        if bar not in BARS or not seed.isdecimal() or not (path / "config.json").exists():
            continue
        rows = read_metrics(run_dir(path))
        found = read_json(path / "found.json") if (path / "found.json").exists() else None
        reference = read_json(path / "reference.json") if (path / "reference.json").exists() else {}
        sessions = read_json(run_dir(path).provenance)["sessions"]
        searches.append(
            Search(
                bar,
                int(seed),
                found["seconds"] if found else sum(row["seconds"] for row in rows),
                found["evaluations"] if found else rows[-1]["total_evaluations"] if rows else 0,
                found,
                reference.get("metrics"),
                reference.get("parameters"),
                (sessions[-1].get("commit") or "")[:7],
            )
        )
    if not searches:
        raise RunError(f"{folder} holds no searches, which are folders like paper_0; see first_block.py.")
    return sorted(searches, key=lambda one: (BARS.index(one.bar), one.seed))


def searches_table(searches: Sequence[Search]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and rows: when the first block of each search was found, and its size."""
    columns = ["bar", "seed", "first block after, s", "evaluations", "parameters", "commit"]
    rows = [
        [
            one.bar,
            one.seed,
            f"{one.seconds:.0f}" if one.found else f"none in {one.seconds:.0f}",
            one.evaluations,
            one.found["parameters"] if one.found else None,
            one.commit,
        ]
        for one in searches
    ]
    return columns, rows


def class_table(searches: Sequence[Search]) -> tuple[list[str], list[list[Any]], str]:
    """Returns columns, rows and equations of the blocks that are over a reference's bar, beside it.

    Raises:
      RunError: if there is none.
    """
    pairs = [(one, one.found, one.reference) for one in searches if one.found and one.reference]
    if not pairs:
        raise RunError("No block is over the bar of a reference yet.")
    tasks = list(pairs[0][1]["metrics"])
    rows: list[list[Any]] = []
    for one, found, reference in pairs:
        for name, parameters, metrics in (
            (f"found, seed {one.seed}", found["parameters"], found["metrics"]),
            (f"LSTM, seed {one.seed}", one.reference_parameters, reference),
        ):
            cells = [f"{np.mean(metrics[task]):.3f} ± {np.std(metrics[task]):.3f}" for task in tasks]
            rows.append([name, parameters, *cells])
    equations = " ".join(
        f"Seed {one.seed}: `{'; '.join(found['equations'].splitlines())}`." for one, found, _ in pairs
    )
    return ["block", "parameters", *tasks], rows, equations
