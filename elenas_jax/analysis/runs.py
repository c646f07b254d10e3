"""Lists run folders: a plain row each, made for `data_frame`.

Only the small files and the best row of the archive are read, so that hundreds of folders take about a
second. A folder that cannot be read is a row that says why.
"""

import datetime
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.analysis.load import open_archive, read_object
from elenas_jax.analysis.results import short_commit
from elenas_jax.analysis.retrained import read_retrained
from elenas_jax.analysis.tables import Table, count, duration, number
from elenas_jax.experiment.best_first import best_first
from elenas_jax.experiment.run_dir import RunDir, RunError, read_metrics, run_dir

SEARCH, RETRAIN, TRAININGS, PRETRAINING = "search", "retrain", "trainings", "pretraining"
RUNNING, FINISHED, STOPPED, DAMAGED = "running", "finished", "stopped", "damaged"
COLUMNS = (
    "name",  # path below the folder that was listed
    "kind",  # one of the four above, or what another config.json calls itself
    "status",  # running, finished, stopped (goes on when called again) or damaged
    "problem",  # of what is damaged: one line; else ""
    "space",
    "strategy",
    "tasks",
    "seed",
    "generations",
    "evaluations",
    "best_score",
    "parameters",  # of the best, or of a retrained block
    "seconds",  # of all generations
    "block",  # from here on: of retrained blocks
    "metric",
    "validation",  # mean over seeds
    "validation_sd",  # standard deviation
    "test",
    "test_sd",
    "seeds",  # that are trained and did not diverge
    "minutes",  # for tuning and training
    "date",  # when it was last written, YYYY-MM-DD hh:mm:ss
    "commit",  # of its sessions, shortened
    "path",
)
SORTS = {"best": "best_score", "date": "date", "evaluations": "evaluations"}

_FILES = {"metrics.jsonl", "archive.sqlite", "provenance.json", "trainings.json", "checkpoints", ".lock"}


def list_runs(folder: str | os.PathLike, sort: str = "date") -> list[dict[str, Any]]:
    """Returns a row for every run folder in `folder` and below, or for `folder` itself.

    Args:
      folder: is searched to any depth; hidden folders are passed over, and what is no folder of this
        package.
      sort: a key of `SORTS`; the best, newest or longest first, rows without a value last.

    Returns:
      Dicts with the keys `COLUMNS`; what is not known is None.

    Raises:
      RunError: if there is no such folder or sort. What is wrong with a run is in its row.
    """
    root = run_dir(folder).path
    if sort not in SORTS:
        raise RunError(f"sort is {sort!r}; allowed are {', '.join(SORTS)}.")
    if not root.is_dir():
        raise RunError(f"There is no folder {root}.")
    rows = list(_find(root, root, set()))

    def place(row: Mapping[str, Any]) -> tuple[bool, Any]:
        value = row[SORTS[sort]]
        return value is not None, value

    # Sorting is stable, in reverse too: equal rows stay in the order of their names.
    return sorted(rows, key=place, reverse=True)


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per search; settings that all of them share stand in the title."""
    settings = ("space", "strategy", "tasks", "seed", "commit")
    shared = {
        key: rows[0][key]
        for key in settings
        if len(rows) > 1 and rows[0][key] is not None and len({row[key] for row in rows}) == 1
    }
    own = [key for key in settings if key not in shared]
    lines = [
        {
            "run": row["name"],
            **{key: text_cell(row[key]) for key in own if key != "commit"},
            "status": row["status"],
            "gen.": count(row["generations"]),
            "eval.": count(row["evaluations"]),
            "best": number(row["best_score"]),
            "parameters": count(row["parameters"]),
            "time": "-" if row["seconds"] is None else duration(row["seconds"]),
            "date": text_cell(row["date"])[:16],
            **{key: text_cell(row[key]) for key in own if key == "commit"},
        }
        for row in rows
    ]
    title = f"{len(rows)} {'search' if len(rows) == 1 else 'searches'}"
    if shared:
        title += f"; all with {', '.join(f'{key} {value}' for key, value in shared.items())}"
    numeric = ("seed", "gen.", "eval.", "best", "parameters", "time")
    columns = tuple(lines[0]) if lines else ()
    return Table(title, columns, [tuple(line.values()) for line in lines], frozenset(numeric))


def text_cell(value: Any) -> str:
    """Returns a value as a table shows it, "-" where there is none."""
    return "-" if value is None else str(value)


# Folders --------------------------------------------------------------------------------------


def _find(folder: Path, root: Path, seen: set[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Yields rows in the order of names; run folders have none below them."""
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
        folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # removed meanwhile, or not for us
        return
    if (about.st_dev, about.st_ino) in seen:  # links may go in circles
        return
    seen.add((about.st_dev, about.st_ino))
    name = folder.relative_to(root).as_posix() if folder != root else root.name
    if row := _row(folder, name, {entry.name for entry in entries}):
        yield row
        return
    for below in folders:
        yield from _find(folder / below, root, seen)


def natural(name: str) -> list[tuple[int, str]]:
    """Returns what to sort names by, so that seed_2 comes before seed_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _row(path: Path, name: str, names: set[str]) -> dict[str, Any] | None:
    """Returns the row of a folder, None if it is none of this package's; `names` are its files."""
    run = run_dir(path)
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    kind = RETRAIN if "trainings.json" in names else SEARCH
    row |= {"name": name, "path": str(path), "problem": "", "kind": kind, "date": _date(run)}
    try:
        if run.config.name not in names:
            if "pretraining.json" in names:
                row["kind"] = PRETRAINING
                done = "after" in read_object(path / "pretraining.json")
                return row | {"status": FINISHED if done else STOPPED}
            if names & {run.metrics.name, "trainings.json"}:
                raise RunError(f"{path} has no config.json.")
            return row | {"kind": TRAININGS} if run.archive.name in names else None
        config = read_object(run.config)
        if "space" in config and "strategy" in config:
            _read_search(row, run, config, names)
            return row
        if config.get("kind") == RETRAIN:
            row["kind"] = RETRAIN
            _read_retraining(row, run, config, names)
            return row
        if isinstance(config.get("kind"), str):
            status = _status(run, is_finished="result.json" in names)
            return row | {"kind": config["kind"], "seed": config.get("seed"), "status": status}
        return row | {"kind": TRAININGS} if run.archive.name in names else None
    except RunError as error:
        problem = str(error)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        problem = f"{path} is damaged: {type(error).__name__}: {error}"
    if row["kind"] == SEARCH and not names & _FILES:  # somebody else's config.json
        return None
    return row | {"status": DAMAGED, "problem": " ".join(problem.split())}


def _read_search(row: dict[str, Any], run: RunDir, config: Mapping[str, Any], names: set[str]) -> None:
    """Fills a row, as far as it comes."""
    row.update(
        space=str(config["space"]["name"]),
        strategy=str(config["strategy"]["name"]),
        tasks=", ".join(config["ladder"]),
        seed=int(config["seed"]),
    )
    if run.provenance.name in names:
        row["commit"] = _commits(read_object(run.provenance)["sessions"])
    metrics = read_metrics(run)
    row.update(
        generations=len(metrics),
        evaluations=int(metrics[-1]["total_evaluations"]) if metrics else 0,
        seconds=sum(float(line["seconds"]) for line in metrics),
    )
    if metrics or run.archive.exists():
        with open_archive(run) as connection:
            best = next(best_first(connection), None)
        if best:
            row.update(best_score=best.score, parameters=best.parameters)
    goal = read_object(run.path / "found.json") if "found.json" in names else None
    row["status"] = _status(run, is_finished=_is_finished(row, config, goal))


def _read_retraining(row: dict[str, Any], run: RunDir, config: Mapping[str, Any], names: set[str]) -> None:
    """Fills the row of a retrained block, as far as it comes."""
    if run.provenance.name in names:
        row["commit"] = _commits(read_object(run.provenance)["sessions"])
    trainings, result = (
        read_object(run.path / name) if name in names else None for name in ("trainings.json", "result.json")
    )
    row.update(read_retrained(config, trainings or {}, result))
    # More seeds may be asked for later; the row counts those that did not diverge.
    planned = result.get("planned", row["seeds"]) if result else None
    row["status"] = _status(run, is_finished=planned == config["seeds"])


def _is_finished(row: Mapping[str, Any], config: Mapping[str, Any], goal: Mapping[str, Any] | None) -> bool:
    """Whether a limit of the config is reached, see `experiment.loop.limit_reached`, or the goal is.

    Args:
      row: how far the run came.
      config: with its limits, 0 for none.
      goal: what a search for a first block has found, and its seconds, which limit it too.
    """
    gone = {name: row[name] for name in ("generations", "evaluations")}
    gone["minutes"] = max(row["seconds"], goal["seconds"] if goal else 0.0) / 60
    reached = any(config.get(name) and gone[name] >= config[name] for name in gone)
    return reached or bool(goal and goal["found"])


def _status(run: RunDir, *, is_finished: bool) -> str:
    if _is_locked(run):
        return RUNNING
    return FINISHED if is_finished else STOPPED


def _is_locked(run: RunDir) -> bool:
    """Whether a process holds the folder (`run_dir.locked`); takes a shared lock for a moment."""
    try:
        with open(run.lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _date(run: RunDir) -> str | None:
    results = (run.path / name for name in ("result.json", "trainings.json"))
    for path in (run.metrics, *results, run.config, run.path):
        try:
            written = datetime.datetime.fromtimestamp(path.stat().st_mtime)
        except OSError:
            continue
        return written.isoformat(sep=" ", timespec="seconds")
    return None


def _commits(sessions: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns the commits of the sessions as people write them, each once."""
    commits = [each.get("commit") for each in sessions]
    return " ".join(dict.fromkeys(short_commit(commit) for commit in commits if commit)) or None
