"""Tables of searches for a first block over a bar, from the run folders of `scripts/first_block.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.analysis.results import short_commit
from elenas_jax.experiment.run_dir import RunError, read_json, run_dir

BARS = ("paper", "paper_no_head", "lstm", "memory")
_RECIPE = ("ladder", "space", "strategy", "reward", "tasks")


class Search(NamedTuple):
    """One search for a first block."""

    bar: str
    seed: int
    seconds: float  # until it was found, or so far
    evaluations: int
    found: dict[str, Any] | None  # as the file of --json
    reference: dict[str, list[float]] | None  # metrics of the block that the bar is made of, one a seed
    reference_parameters: int | None
    tasks: list[str]  # as in the ladder
    recipe: dict[str, Any]  # sections of the config that say how it searches
    commits: list[str]  # of its sessions


def load_searches(folder: Path) -> list[Search]:
    """Returns the searches in `folder`, by bar and seed; what has no generation behind it is passed over.

    Args:
      folder: holds run folders named BAR_SEED; other names are passed over.

    Raises:
      RunError: if there are none, something in them is damaged, or seeds of a bar have other settings.
    """
    searches = []
    for path in sorted(folder.glob("*_*")):
        bar, _, seed = path.name.rpartition("_")
        if bar in BARS and seed.isdecimal() and (path / "found.json").exists():
            try:
                searches.append(_load(path, bar, int(seed)))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not searches:
        raise RunError(f"{folder} holds no searches, which are folders like paper_0; see first_block.py.")
    first = {one.bar: one for one in reversed(searches)}
    for one in searches:
        if one.recipe != first[one.bar].recipe:
            raise RunError(
                f"{folder}: {one.bar}_{one.seed} and {one.bar}_{first[one.bar].seed} have other settings; "
                "searches of a table must have the same."
            )
    return sorted(searches, key=lambda one: (BARS.index(one.bar), one.seed))


def _load(path: Path, bar: str, seed: int) -> Search:
    result, config = read_json(path / "found.json"), read_json(path / "config.json")
    reference = read_json(path / "reference.json") if (path / "reference.json").exists() else {}
    metrics = reference.get("metrics")
    if metrics and bar == "memory":
        metrics = metrics | {
            file.stem.removeprefix("reference_"): read_json(file)["metrics"]["memory"]
            for file in path.glob("reference_memory_*.json")
        }
    if metrics and result["found"] and (missing := set(result["metrics"]) - set(metrics)):
        raise RunError(
            f"{path} is damaged: metrics of the reference are missing: {', '.join(sorted(missing))}."
        )
    sessions = read_json(run_dir(path).provenance)["sessions"]
    return Search(
        bar,
        seed,
        float(result["seconds"]),
        int(result["evaluations"]),
        result if result["found"] else None,
        metrics,
        reference.get("parameters"),
        list(config["ladder"]),
        {section: config.get(section) for section in _RECIPE} | {"head": config["evaluator"]["head"]},
        sorted({short_commit(each.get("commit")) for each in sessions}),
    )


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
            " ".join(one.commits),
        ]
        for one in searches
    ]
    return columns, rows


def class_table(searches: Sequence[Search], bar: str) -> tuple[list[str], list[list[Any]], str]:
    """Returns columns, rows and equations of the blocks that are over a reference's bar, beside it.

    Args:
      searches: of any bars.
      bar: "lstm", or "memory", where the memory task has a column for each length.

    Raises:
      RunError: if there is none.
    """
    pairs = [
        (one, one.found, one.reference) for one in searches if one.bar == bar and one.found and one.reference
    ]
    if not pairs:
        raise RunError(f"No block is over the bar {bar} of a reference yet.")
    tasks = [name for name in pairs[0][0].tasks if name in pairs[0][1]["metrics"]]
    lengths = [name for name in pairs[0][1]["metrics"] if name.startswith("memory_")]
    tasks += sorted(lengths, key=lambda name: int(name.removeprefix("memory_")))
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
    columns = ["block", "parameters", *(task.replace("memory_", "memory ") for task in tasks)]
    return columns, rows, equations
