"""The archive: every candidate of a run in one SQLite file, which is also the evaluator's cache.

Tables (schema version 1; `meta` holds the version, the task names and the space's reasons):
  evaluations  a row for every training: its cache key, the generation during which it was
    trained, its record. Written as each chunk of trainings ends.
  candidates   a row for every proposed candidate, by (generation, place). Written as a
    generation ends, in one transaction.
  blocks       text and drawing of every candidate that was among the best `NUM_BEST` when its
    generation ended.

`is_new` says that a candidate was trained in its own generation, and that this row is the first of
it there. It follows from `evaluations.generation`, so a resumed generation, which finds in the
archive what it had trained before the kill, gets the same rows.

One process writes (`run_dir.locked`); any number may read meanwhile (write-ahead logging). With
`synchronous = FULL` what is committed survives a kill and a power cut. No column but `seconds`
holds a time.
"""

import contextlib
import itertools
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elenas_jax.evaluation.cache import Record
from elenas_jax.experiment.best_first import Ranked, best_first
from elenas_jax.experiment.run_dir import RunDir, RunError, run_dir, write_atomically

SCHEMA_VERSION = 1
NUM_BEST = 20
_AT_ONCE = 500  # keys per SELECT, below SQLite's limit on parameters

_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE evaluations(
  key BLOB PRIMARY KEY, hash TEXT NOT NULL, generation INTEGER NOT NULL, score REAL, status INTEGER NOT NULL,
  parameters INTEGER NOT NULL, flops REAL, train_steps INTEGER NOT NULL, seconds REAL, metrics TEXT NOT NULL);
CREATE TABLE candidates(
  generation INTEGER NOT NULL, place INTEGER NOT NULL, hash TEXT NOT NULL, is_new INTEGER NOT NULL,
  status INTEGER NOT NULL, status_text TEXT NOT NULL, budget INTEGER NOT NULL, replicate INTEGER NOT NULL,
  score REAL, parameters INTEGER NOT NULL, flops REAL, train_steps INTEGER NOT NULL, seconds REAL,
  metrics TEXT NOT NULL, candidate TEXT NOT NULL, PRIMARY KEY(generation, place));
CREATE INDEX candidates_by_score ON candidates(score DESC, generation, place);
CREATE TABLE blocks(
  hash TEXT PRIMARY KEY, text TEXT NOT NULL, drawing TEXT NOT NULL, candidate TEXT NOT NULL);
"""
# Apart from the schema, so that archives of earlier versions get it when their run goes on.
_BY_HASH = "CREATE INDEX IF NOT EXISTS candidates_by_hash ON candidates(hash)"


class Row(NamedTuple):
    """A row of `candidates`; fields are its columns."""

    generation: int
    place: int
    hash: str
    is_new: int
    status: int
    status_text: str
    budget: int
    replicate: int
    score: float | None
    parameters: int
    flops: float | None
    train_steps: int
    seconds: float | None
    metrics: str  # JSON object, task -> value or null
    candidate: str  # JSON of `SearchSpace.to_json`


class Block(NamedTuple):
    """A row of `blocks`."""

    hash: str
    text: str
    drawing: str
    candidate: str


class Archive:
    """The open archive of a run; satisfies `evaluation.cache.Cache`.

    `generation` is the generation in flight; what is put in the cache is marked with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._connection: sqlite3.Connection | None = None

    def open(self, meta: Mapping[str, Any]) -> None:
        """Opens the file, or makes it with `meta`; raises RunError if it is damaged or of another kind."""
        wanted = {"schema_version": SCHEMA_VERSION, **meta}
        with self._errors():
            self._connection = _connect(self.path)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            tables = {
                name
                for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            if not tables:
                rows = [(name, json.dumps(value)) for name, value in wanted.items()]
                with self._transaction() as connection:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            elif "meta" not in tables:
                raise sqlite3.DatabaseError("it holds no table named meta")
            found = {
                name: json.loads(value) for name, value in self._connection.execute("SELECT * FROM meta")
            }
        for name, value in wanted.items():
            if found.get(name) != json.loads(json.dumps(value)):
                self.close()
                raise RunError(
                    f"{self.path} was written with {name} {found.get(name)}, this version has {value}; "
                    "use another --run_dir."
                )
        with self._errors():
            self._open_connection().execute(_BY_HASH)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # The cache of the evaluator.

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Returns the records of those keys that were trained before."""
        columns = "key, score, metrics, status, parameters, flops, train_steps, seconds"
        return {
            row[0]: Record(
                score=_number(row[1]),
                metrics=tuple(_number(value) for value in json.loads(row[2])),
                status=row[3],
                parameters=row[4],
                flops=_number(row[5]),
                train_steps=row[6],
                seconds=_number(row[7]),
            )
            for row in self._select_by_key(columns, keys)
        }

    def put(self, items: Sequence[tuple[bytes, str, Record]]) -> None:
        """Keeps what a chunk of trainings gave; it is on the disk when this returns."""
        rows = [
            (
                key,
                digest,
                self.generation,
                float(record.score),
                int(record.status),
                int(record.parameters),
                float(record.flops),
                int(record.train_steps),
                float(record.seconds),
                json.dumps([_finite(value) for value in record.metrics]),
            )
            for key, digest, record in items
        ]
        with self._errors(), self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO evaluations VALUES (?,?,?,?,?,?,?,?,?,?)", rows)

    # The rows of a run.

    def trained_in(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Returns the generation during which each key was trained, for those that were."""
        return dict(self._select_by_key("key, generation", keys))

    def num_evaluations(self, num_generations: int) -> int:
        """Returns how many trainings the first `num_generations` generations took."""
        return self._value("SELECT COUNT(*) FROM evaluations WHERE generation < ?", (num_generations,))

    def cut_back(self, num_generations: int) -> None:
        """Forgets the candidate rows of a generation that was not checkpointed; trainings stay.

        Raises:
          RunError: if rows of a checkpointed generation are missing.
        """
        query = "SELECT COALESCE(MAX(generation), -1) FROM candidates WHERE generation < ?"
        last = self._value(query, (num_generations,))
        if last != num_generations - 1:
            raise RunError(
                f"{self.path} is damaged: it ends with generation {last} where the newest checkpoint ends "
                f"with {num_generations - 1}; restore it or start in a new folder."
            )
        with self._errors(), self._transaction() as connection:
            connection.execute("DELETE FROM candidates WHERE generation >= ?", (num_generations,))

    def end_generation(self, rows: Sequence[Row], blocks: Sequence[Block]) -> None:
        """Writes a generation's candidates, and the best among them as blocks, in one transaction."""
        with self._errors(), self._transaction() as connection:
            marks = ",".join("?" * len(Row._fields))
            connection.executemany(f"INSERT OR REPLACE INTO candidates VALUES ({marks})", rows)
            connection.executemany("INSERT OR IGNORE INTO blocks VALUES (?,?,?,?)", blocks)

    def best(self) -> list[Ranked]:
        """Returns the best `NUM_BEST` candidates, see `best_first`."""
        with self._errors():
            return best_rows(self._open_connection())

    def known_blocks(self) -> set[str]:
        with self._errors():
            return {digest for (digest,) in self._open_connection().execute("SELECT hash FROM blocks")}

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError(f"The archive {self.path} is not open.")
        return self._connection

    def _select_by_key(self, columns: str, keys: Sequence[bytes]) -> list[tuple]:
        found: list[tuple] = []
        with self._errors():
            for start in range(0, len(keys), _AT_ONCE):
                some = list(keys[start : start + _AT_ONCE])
                marks = ",".join("?" * len(some))
                query = f"SELECT {columns} FROM evaluations WHERE key IN ({marks})"
                found += self._open_connection().execute(query, some).fetchall()
        return found

    def _value(self, query: str, arguments: tuple) -> int:
        with self._errors():
            return self._open_connection().execute(query, arguments).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            raise _run_error(self.path, error) from error


def _connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=60.0)


def _run_error(path: Path, error: sqlite3.Error) -> RunError:
    text = " ".join(str(error).split())
    if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only: the file may well be sound
        return RunError(f"Cannot use {path}: {text}.")
    return RunError(f"{path} is damaged ({text}); restore it or start in a new folder.")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def best_rows(connection: sqlite3.Connection, num: int = NUM_BEST) -> list[Ranked]:
    """Returns the `num` best different candidates of an archive."""
    return list(itertools.islice(best_first(connection), num))


@contextlib.contextmanager
def reading(run: RunDir) -> Iterator[sqlite3.Connection]:
    """Opens the archive of a run for reading; rows come as dicts' worth of `sqlite3.Row`."""
    if not run.archive.exists():
        raise RunError(
            f"{run.path} has no {run.archive.name}: it is no run folder, or its run has not begun."
        )
    try:
        connection = _connect(run.archive, read_only=True)
        connection.row_factory = sqlite3.Row
        with contextlib.closing(connection):
            yield connection
    except sqlite3.Error as error:
        raise _run_error(run.archive, error) from error


def export_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns all candidate rows by generation and place, without the wall-clock column."""
    with reading(run_dir(path)) as connection:
        rows = connection.execute("SELECT * FROM candidates ORDER BY generation, place")
        return [{name: row[name] for name in Row._fields if name != "seconds"} for row in rows]


def best_block(path: str | os.PathLike, rank: int = 1) -> dict[str, Any] | None:
    """Returns the candidate of a run at `rank`, the best is 1, as in `export_rows` with its text.

    None if so many are not valid. Its score is what it is ranked by, see `best_first`. Only the best have a
    text; of others it is None.
    """
    return _block(path, lambda ranked: next(itertools.islice(ranked, rank - 1, None), None))


def block_of_hash(path: str | os.PathLike, digest: str) -> dict[str, Any] | None:
    """As `best_block`, of the valid candidate with this canonical digest; None if the run met none."""
    return _block(path, lambda ranked: next((one for one in ranked if one.hash == digest), None))


def _block(
    path: str | os.PathLike, choose: Callable[[Iterator[Ranked]], Ranked | None]
) -> dict[str, Any] | None:
    with reading(run_dir(path)) as connection:
        chosen = choose(best_first(connection))
        if chosen is None:
            return None
        query = "SELECT * FROM candidates WHERE generation = ? AND place = ?"
        row = connection.execute(query, (chosen.generation, chosen.place)).fetchone()
        block = connection.execute("SELECT text FROM blocks WHERE hash = ?", (chosen.hash,)).fetchone()
    text = block["text"] if block else None
    found = {name: row[name] for name in Row._fields if name != "seconds"}
    return found | {"score": chosen.score, "text": text}


def write_export(path: str | os.PathLike, to: str | os.PathLike) -> None:
    """Writes `export_rows` of the run at `path` as JSON lines; the last line is {"best": `best_block`}."""
    rows = [*export_rows(path), {"best": best_block(path)}]
    write_atomically(Path(to), "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
