"""Reads run folders: plain records, no objects of the search.

`load_run` gives what tables, plots and reports need, read in one transaction, so that a run in
progress is seen at one moment. `candidates` and `evaluations` give every row, for notebooks.
"""

import contextlib
import json
import math
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.experiment.best_first import mean_score
from elenas_jax.experiment.run_dir import RunDir, RunError, read_json, read_metrics, run_dir

SCHEMA_VERSION = 1  # of the archive, see `experiment.archive`

_SEED_FOLDER = re.compile(r"seed_(\d+)\Z")


class Run(NamedTuple):
    """One run, as its folder tells it. Records are dicts."""

    path: Path
    seed: int | None
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    generations: list[dict]  # the lines of metrics.jsonl
    task_names: tuple[str, ...]
    scores: list[
        dict
    ]  # per generation: generation, proposals, valid, mean_score, best_score (None: none valid)
    statuses: list[dict]  # per generation and status: generation, status, status_text, count
    evaluation_scores: np.ndarray  # [evaluations] float64, of each training in order; NaN where it failed
    best: list[dict]  # different valid candidates, best first: hash, score, metrics, parameters, ...
    num_valid_blocks: int  # how many different valid candidates there are; `best` may hold fewer
    blocks: dict[str, dict]  # hash -> text, drawing


def load_run(path: str | os.PathLike, num_best: int = 20) -> Run:
    """Loads the run at `path`.

    Raises:
      RunError: if there is no run or something in it is damaged; the message is one line.
    """
    files = run_dir(path)
    if not files.path.is_dir():
        raise RunError(f"There is no run folder {files.path}.")
    if not files.config.exists():
        what = "is not a run folder: it has no config.json" if any(files.path.iterdir()) else "is empty"
        raise RunError(f"{files.path} {what}.")
    config = read_object(files.config)
    provenance = read_object(files.provenance) if files.provenance.exists() else {}
    seed = config.get("seed", provenance.get("seed"))
    generations = read_metrics(files)
    with open_archive(files) as connection:
        meta = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM meta")}
        if meta.get("schema_version") != SCHEMA_VERSION:
            found = meta.get("schema_version")
            raise RunError(
                f"{files.archive} has schema version {found}; this version reads {SCHEMA_VERSION}."
            )
        best, num_valid_blocks = _best(connection, num_best)
        return Run(
            path=files.path,
            seed=seed if isinstance(seed, int) else None,
            config=config,
            provenance=provenance,
            generations=generations,
            task_names=tuple(meta.get("task_names", ())),
            scores=_rows(connection, _SCORES),
            statuses=_rows(connection, _STATUSES),
            evaluation_scores=np.array([row["score"] for row in _rows(connection, _NEW)], np.float64),
            best=best,
            num_valid_blocks=num_valid_blocks,
            blocks=_blocks(connection),
        )


def load_runs(path: str | os.PathLike, num_best: int = 20) -> tuple[Run, ...]:
    """Loads the run at `path`, or the runs in its folders `seed_0`, `seed_1`, ...

    Seeds that have not begun are left out, unless none has.

    Raises:
      RunError: as `load_run`.
    """
    root = run_dir(path).path
    folders = []
    if root.is_dir() and not run_dir(root).config.exists():
        found = [
            (int(match[1]), entry) for entry in root.iterdir() if (match := _SEED_FOLDER.match(entry.name))
        ]
        folders = [entry for _, entry in sorted(found) if entry.is_dir()]
    begun = [folder for folder in folders if run_dir(folder).archive.exists()]
    return tuple(load_run(folder, num_best) for folder in begun or folders[:1] or [root])


def candidates(run: Run | str | os.PathLike) -> list[dict]:
    """Returns every proposed candidate, by generation and place; metrics as a dict by task."""
    return _all_rows(run, "SELECT * FROM candidates ORDER BY generation, place", ("metrics", "candidate"))


def evaluations(run: Run | str | os.PathLike) -> list[dict]:
    """Returns every training, by generation and hash; metrics as a list in the order of tasks."""
    return _all_rows(run, "SELECT * FROM evaluations ORDER BY generation, hash, key", ("metrics",))


def data_frame(records: Iterable[Mapping[str, Any]]) -> Any:
    """Returns records as a pandas data frame; `metrics` becomes a column per task."""
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("data_frame needs pandas: pip install 'elenas_jax[data]'.") from error
    rows = []
    for record in records:
        row = dict(record)
        metrics = row.get("metrics")
        if isinstance(metrics, Mapping):
            del row["metrics"]
            row.update({f"metrics.{name}": value for name, value in metrics.items()})
        rows.append(row)
    return pandas.DataFrame(rows)


# Queries --------------------------------------------------------------------------------------

_SCORES = """
SELECT generation, COUNT(*) AS proposals, SUM(status = 0) AS valid,
  AVG(CASE WHEN status = 0 THEN score END) AS mean_score,
  MAX(CASE WHEN status = 0 THEN score END) AS best_score
FROM candidates GROUP BY generation ORDER BY generation"""

_STATUSES = """
SELECT generation, status, status_text, COUNT(*) AS count
FROM candidates GROUP BY generation, status, status_text ORDER BY generation, status"""

_NEW = """
SELECT CASE WHEN status = 0 THEN score END AS score
FROM candidates WHERE is_new ORDER BY generation, place"""

# The row of the first time each block was met, at each budget and replicate.
_VALID = """
SELECT hash, budget, replicate, score, metrics, parameters, flops, train_steps, generation,
  MIN(generation * 1e9 + place) AS met
FROM candidates WHERE status = 0 AND score IS NOT NULL GROUP BY hash, budget, replicate"""


def _best(connection: sqlite3.Connection, num: int) -> tuple[list[dict], int]:
    """Returns the `num` best different valid candidates, and how many there are.

    A candidate counts with its largest budget, and there with the mean over its replicates.
    Equal scores stand in the order in which they were met.
    """
    groups: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute(_VALID):
        group = groups.setdefault(row["hash"], [])
        if group and row["budget"] > group[0]["budget"]:
            group.clear()
        if not group or row["budget"] == group[0]["budget"]:
            group.append(row)
    scores = {digest: mean_score([row["score"] for row in group]) for digest, group in groups.items()}
    met = {digest: min(row["met"] for row in group) for digest, group in groups.items()}
    ranked = sorted(groups, key=lambda digest: (-scores[digest], met[digest]))
    best = []
    for digest in ranked[:num]:
        group = groups[digest]
        metrics: dict[str, list[float]] = {}
        for row in group:
            for name, value in json.loads(row["metrics"]).items():
                metrics.setdefault(name, []).append(math.nan if value is None else value)
        means = {name: sum(values) / len(values) for name, values in metrics.items()}
        best.append(
            {
                "hash": digest,
                "score": scores[digest],
                "metrics": {name: None if math.isnan(value) else value for name, value in means.items()},
                "replicates": len(group),
                **{name: group[0][name] for name in ("budget", "parameters", "flops", "train_steps")},
                "generation": min(row["generation"] for row in group),
            }
        )
    return best, len(groups)


def _blocks(connection: sqlite3.Connection) -> dict[str, dict]:
    return {
        row["hash"]: {"text": row["text"], "drawing": json.loads(row["drawing"])}
        for row in connection.execute("SELECT hash, text, drawing FROM blocks")
    }


def _rows(connection: sqlite3.Connection, query: str) -> list[dict]:
    return [dict(row) for row in connection.execute(query)]


def _all_rows(run: Run | str | os.PathLike, query: str, json_columns: tuple[str, ...]) -> list[dict]:
    files = run_dir(run.path if isinstance(run, Run) else run)
    with open_archive(files) as connection:
        rows = _rows(connection, query)
        for row in rows:
            for name in json_columns:
                row[name] = json.loads(row[name])
        return rows


# Files ----------------------------------------------------------------------------------------


def read_object(path: Path) -> dict:
    """Returns the object that a JSON file holds; RunError if it cannot be read or holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.")
    return value


@contextlib.contextmanager
def open_archive(files: RunDir) -> Iterator[sqlite3.Connection]:
    """Opens the archive of a run for reading, in one transaction; RunError for whatever goes wrong in it."""
    if not files.archive.exists():
        raise RunError(
            f"{files.path} has no {files.archive.name}: nothing was evaluated yet, or it was removed."
        )
    try:
        with contextlib.closing(_connect(files)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        text = " ".join(str(error).split())
        raise RunError(f"{files.archive} cannot be read ({text}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{files.archive} is damaged: a row holds what it should not ({error}).") from error


def _connect(files: RunDir) -> sqlite3.Connection:
    address = files.archive.as_uri()

    def attempt(mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{address}?{mode}", uri=True, isolation_level=None, timeout=60.0)
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    try:
        return attempt("mode=ro")
    except sqlite3.OperationalError:
        # A folder that cannot be written has no place for the lock file of a log that is not there.
        log = files.archive.with_name(files.archive.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise
        return attempt("mode=ro&immutable=1")
