"""Pictures and tables of retrained blocks, from the folders of `scripts/retrain.py`."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from elenas_jax.analysis.results import short_commit
from elenas_jax.experiment.run_dir import RunError, read_json


def save_curves(folder: Path) -> Path:
    """Draws validation metrics of all trainings of a folder against steps; returns the file.

    Raises:
      RunError: if the folder holds no trainings.
    """
    trainings, config = read_json(folder / "trainings.json"), read_json(folder / "config.json")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, each in trainings.items():
        curve = np.array(each.get("curve") or np.empty((0, 3)), float).reshape(-1, 3)
        is_seed = name.startswith("seed")
        label = name.replace("_", " ")
        if not is_seed:
            label += f": depth {each['depth']}, batch {each['batch_size']}, rate {each['learning_rate']:g}"
        axes.plot(
            curve[:, 0],
            curve[:, 2],
            label=label,
            color="#1f4e9c" if is_seed else None,
            linewidth=1.8 if is_seed else 1.0,
            alpha=1.0 if is_seed else 0.7,
            marker="o",
            markersize=2.5,
        )
    axes.set_xlabel("training steps")
    result = folder / "result.json"
    metric = read_json(result)["metric"] if result.exists() else "metric"
    axes.set_ylabel(f"validation {metric.replace('_', ' ')}")
    if metric == "perplexity":
        axes.set_yscale("log")
    axes.set_title(f"{config['block']['name']} on {config['task']['name']}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False)
    path = folder / "curves.png"
    figure.savefig(path, dpi=130)
    return path


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Returns what the retraining folders below `folder` have in their result.json, by task and block.

    Raises:
      RunError: if there are none, one is damaged, or they are of different versions of stacks.
    """
    results = []
    for path in sorted(folder.glob("*/result.json")):
        config = path.with_name("config.json")
        if config.exists() and read_json(config).get("kind") == "retrain":
            results.append(_load_result(path))
    if not results:
        raise RunError(f"{folder} holds no finished folders of retrain.py.")
    versions = sorted({str(each["stack_version"]) for each in results})
    if len(versions) > 1:
        raise RunError(
            f"{folder} holds stacks of versions {', '.join(versions)}, whose figures are not to be compared: "
            "put them into folders of their own."
        )
    return sorted(results, key=lambda each: (each["task"]["name"], each["block"]["name"]))


_KEYS = {"block", "task", "data", "metric", "parameters", "depth", "width", "steps", "settings"}
_KEYS |= {"task_settings", "valid", "test", "seeds", "planned", "stack_version"}


def _load_result(path: Path) -> dict[str, Any]:
    result, provenance = read_json(path), read_json(path.with_name("provenance.json"))
    try:
        if missing := _KEYS - result.keys():
            raise KeyError(", ".join(sorted(missing)))
        return result | {"commits": [each.get("commit") for each in provenance["sessions"]]}
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged, or of another version ({type(error).__name__}: {error})."
        ) from error


def results_table(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and rows, of each task the best in its test first.

    Metrics are mean ± standard deviation over seeds. What all have set is in `results_note`; there is a
    column of settings only where some have set more.
    """
    columns = [
        "task",
        "block",
        "parameters",
        "layers x width",
        "steps",
        "validation",
        "test",
        "seeds",
        "settings",
    ]
    rows, shared = [], _shared_flags(results)
    for each in sorted(results, key=_place):
        scale = 1.0 if each["metric"] in ("perplexity", "r2") else 100.0
        digits = 3 if each["metric"] == "r2" else 1
        seeds, planned = each["seeds"], each["planned"]
        rows.append(
            [
                f"{each['task']['name']} ({each['metric'].replace('_', ' ')})",
                each["block"]["name"],
                each["parameters"],
                f"{each['depth']} x {each['width']}",
                each["steps"],
                spread(each["valid"], scale, digits),
                spread(each["test"], scale, digits),
                seeds if seeds == planned else f"{seeds}, {planned - seeds} diverged",
                " ".join(flag for flag in _flags(each) if flag not in shared),
            ]
        )
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return columns, rows


def _place(result: Mapping[str, Any]) -> tuple[str, float]:
    """Returns what a table is sorted by."""
    mean = float(np.mean([math.nan if value is None else value for value in result["test"]]))
    mean = mean if result["metric"] == "perplexity" else -mean
    return result["task"]["name"], math.inf if math.isnan(mean) else mean


def spread(values: Sequence[float | None], scale: float, digits: int) -> str:
    """Returns mean ± standard deviation, scaled; of one value the value."""
    numbers = scale * np.array([math.nan if value is None else value for value in values])
    mean = f"{numbers.mean():.{digits}f}"
    return mean if len(numbers) == 1 else f"{mean} ± {numbers.std():.{digits}f}"


def results_note(results: Sequence[Mapping[str, Any]]) -> str:
    """Says how the blocks of a table were trained, and on what."""
    commits = sorted({short_commit(commit) for each in results for commit in each["commits"]})
    data = sorted({each["data"] for each in results})
    command = " ".join(["python scripts/retrain.py --block=BLOCK --task=TASK", *_shared_flags(results)])
    rest = (
        " with the settings of its row"
        if any(set(_flags(each)) - set(_shared_flags(results)) for each in results)
        else ""
    )
    return (
        f"Each is `{command}`{rest}, at commit {', '.join(commits)}; mean ± standard deviation over seeds. "
        f"{'. '.join(data)}."
    )


def _shared_flags(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the flags that all results have."""
    first, *others = map(_flags, results)
    return [flag for flag in first if all(flag in other for other in others)]


def _flags(result: Mapping[str, Any]) -> list[str]:
    """Writes what was not as it is by default as the script's flags, as a shell takes them."""
    given = [shlex.quote(f"--config.{key}={_plain(value)}") for key, value in result["settings"].items()]
    if result["task_settings"]:
        given.append("--task_settings=" + ",".join(f"{k}={v}" for k, v in result["task_settings"].items()))
    return given


def _plain(value: Any) -> str:
    """Writes a value of a config as a flag takes it: what was a tuple is a list in JSON."""
    return f"({','.join(map(str, value))},)" if isinstance(value, list) else str(value)
