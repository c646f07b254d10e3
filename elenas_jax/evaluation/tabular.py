"""Looks evaluations up in a table of trainings: a space small enough that every block was trained.

A table is one JSON file: `format`, `config` (resolved, with which the blocks were trained, but that
nothing stopped at a threshold), `provenance`, `replicates`, `columns`, and `blocks`, one line each:
hash, edges, parameters, FLOPs, statuses by replicate, metrics by replicate and task. JSON, so that
a change of it can be read, and so that every number is the one that was measured, to the bit.

`make_tabular_evaluator` answers as `make_population_evaluator` would that trains on the same
tasks: where a task's threshold is missed, later tasks count as not reached.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.evaluation.cache import Cache, MemoryCache, Record
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.population import Evaluator, gather
from elenas_jax.evaluation.trainer import construct_on_host, widths_of
from elenas_jax.graphs import ComputationGraph, canonical_bytes, canonical_hash
from elenas_jax.types import NOT_EVALUATED, OK, Task

FORMAT = 1
FOLDER = Path(__file__).parent / "tables"  # those that come with the package
COLUMNS = ("hash", "edges", "parameters", "flops", "status", "metrics")


class Table(NamedTuple):
    """Trainings of N blocks, R replicates each, on D tasks; on the host."""

    name: str
    digest: str  # of the file: part of cache keys
    config: dict[str, Any]  # as resolved when it was made
    provenance: dict[str, Any]
    places: dict[str, int]  # canonical hash -> row
    edges: tuple[tuple[tuple[int, int, str], ...], ...]  # of each block, as `from_edges` takes them
    parameters: np.ndarray  # [N] int64
    flops: np.ndarray  # [N] float64
    status: np.ndarray  # [N, R] int64; what failed has NaN from the task on where it did
    metrics: np.ndarray  # [N, R, D] float64

    @property
    def num_replicates(self) -> int:
        return self.status.shape[1]


def find_table(name: str) -> Path:
    """Returns the file of a table: one of the package by its name, any by its path, which ends in .json.

    Raises:
      ValueError: if there is none.
    """
    path = Path(name).expanduser() if name.endswith(".json") else FOLDER / f"{name}.json"
    if path.is_file():
        return path
    if name.endswith(".json"):
        raise ValueError(f"there is no file {path}; scripts/make_table.py makes tables.")
    known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json"))) or "none"
    raise ValueError(f"there is no table {name!r}; known are {known}, or the path of a .json file.")


def load_table(name: str) -> Table:
    """Reads a table by name or path.

    Raises:
      ValueError: if there is none, or the file is no table of this format.
    """
    path = find_table(name)
    data = path.read_bytes()
    try:
        content = json.loads(data)
        if content["format"] != FORMAT or tuple(content["columns"]) != COLUMNS:
            raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}")
        columns = dict(zip(COLUMNS, zip(*content["blocks"], strict=True), strict=True))
        table = Table(
            name=path.stem,
            digest=hashlib.blake2b(data, digest_size=16).hexdigest(),
            config=content["config"],
            provenance=content["provenance"],
            places={digest: place for place, digest in enumerate(columns["hash"])},
            edges=tuple(tuple(tuple(edge) for edge in edges) for edges in columns["edges"]),
            parameters=np.array(columns["parameters"], np.int64),
            flops=np.array(columns["flops"], np.float64),
            status=np.array(columns["status"], np.int64),
            metrics=np.array(columns["metrics"], np.float64),  # null is NaN
        )
        shape = (len(columns["hash"]), content["replicates"])
        if table.status.shape != shape or table.metrics.shape != (*shape, len(table.config["ladder"])):
            raise ValueError("its columns differ in size")
    except (ValueError, KeyError, TypeError) as error:
        text = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{path} is no table: {text}.") from error
    return table


def write_text(
    config: dict[str, Any], provenance: dict[str, Any], replicates: int, blocks: Sequence[Sequence[Any]]
) -> str:
    """Returns the text of a table's file; `blocks` are rows of `COLUMNS`, all plain data."""
    head = {"format": FORMAT, "config": config, "provenance": provenance, "replicates": replicates}
    lines = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}," for name, value in head.items()]
    rows = ",\n".join(json.dumps(block, separators=(",", ":"), allow_nan=False) for block in blocks)
    return "\n".join(["{", *lines, f'"columns": {json.dumps(COLUMNS)},', f'"blocks": [\n{rows}\n]', "}\n"])


def table_record(table: Table, place: int, replicate: int, tasks: Sequence[Task], steps) -> Record:
    """Returns what training a block on a ladder gives.

    Args:
      place: row of the block.
      replicate: of data and weights.
      tasks, steps: of the ladder, with the thresholds to stop at.
    """
    metrics = np.full(len(tasks), np.nan)
    status, taken = OK, 0
    for level, task in enumerate(tasks):
        metrics[level] = table.metrics[place, replicate, level]
        taken += steps[level]
        if np.isnan(metrics[level]):
            status = int(table.status[place, replicate])
        if not passes(task, metrics[level]):
            break
    return Record(
        ladder_score(metrics.tolist(), tasks) if status == OK else 0.0,
        tuple(metrics.tolist()),
        status,
        int(table.parameters[place]),
        float(table.flops[place]),
        int(taken),
        0.0,
    )


def make_tabular_evaluator(
    table: Table,
    tasks: Sequence[Task],
    *,
    steps: Sequence[int],
    head: str = "linear",
    hidden_features: int = 64,
    cache: Cache | None = None,
) -> Evaluator:
    """Makes an evaluator that looks up.

    Args:
      table: of these tasks, trained for as many steps; thresholds, untrained metrics and weights may differ.
      tasks: in the order of the ladder; a candidate stops at the first threshold it misses.
      steps: training steps of each task.
      head, hidden_features: as of `construct`.
      cache: of what was looked up before; what is new to it counts as an evaluation.

    Returns:
      As `make_population_evaluator`, but `evaluate` raises ValueError for a valid block that is not in the
      table, and for a replicate it does not have.
    """
    tasks, steps = tuple(tasks), tuple(steps)
    known = MemoryCache() if cache is None else cache
    settings = {
        "table": table.digest,
        "tasks": [(task.name, task.threshold, task.untrained, task.weight) for task in tasks],
        "steps": steps,
    }
    encoded = json.dumps(settings, sort_keys=True).encode()
    met: dict[bytes, tuple[int, bytes, str]] = {}  # edges -> status, canonical bytes, hash

    def look_at(edges: np.ndarray) -> list[tuple[int, bytes, str]]:
        """Returns status, canonical bytes and hash of each graph; the last two only if it is valid."""
        texts = [one.tobytes() for one in edges]
        new = {text: place for place, text in enumerate(texts) if text not in met}
        if new:
            some = edges[list(new.values())]
            status = np.zeros(len(some), np.int32)
            for task in widths_of(tasks):
                found = construct_on_host(some, task, head, hidden_features).status[: len(some)]
                status = np.where(status == OK, found, status)
            for text, one, reason in zip(new, some, status.tolist(), strict=True):
                graph = ComputationGraph(one)
                names = (canonical_bytes(graph, head), canonical_hash(graph, head))
                met[text] = (reason, *(names if reason == OK else (b"", "")))
        return [met[text] for text in texts]

    def cache_key(canonical: bytes, budget: int, replicate: int) -> bytes:
        """Everything that a score depends on, as bytes."""
        return b"|".join((canonical, str(int(budget)).encode(), str(int(replicate)).encode(), encoded))

    def evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None):
        edges = np.ascontiguousarray(candidates.edges, np.int8)
        num = len(edges)
        if np.any(np.asarray(budget) != 0):
            raise ValueError(f"budget holds {np.max(budget)}; a table has budget 0 alone.")
        replicates = np.broadcast_to(np.asarray(replicate, np.int32), (num,))
        for one in np.unique(replicates):
            if not 0 <= one < table.num_replicates:
                raise ValueError(
                    f"replicate is {one}; table {table.name} has 0 to {table.num_replicates - 1}."
                )
        asked = np.ones(num, bool) if valid_candidates is None else np.asarray(valid_candidates, bool)
        seen = look_at(edges)
        status = np.where(asked, [reason for reason, _, _ in seen], NOT_EVALUATED)
        chosen = np.flatnonzero(status == OK).tolist()
        keys = {place: cache_key(seen[place][1], 0, replicates[place]) for place in chosen}
        records = known.get(list(dict.fromkeys(keys.values())))
        missing: dict[bytes, tuple[bytes, str, Record]] = {}
        for place in chosen:
            key, digest = keys[place], seen[place][2]
            if key in records or key in missing:
                continue
            if digest not in table.places:
                raise ValueError(f"Block {digest} is not in table {table.name}; it has {len(table.places)}.")
            record = table_record(table, table.places[digest], int(replicates[place]), tasks, steps)
            missing[key] = key, digest, record
        if missing:
            known.put(list(missing.values()))
            records |= {key: record for key, _, record in missing.values()}
            if on_chunk is not None:
                on_chunk(len(missing), len(missing))
        return gather(num, len(tasks), status, keys, records)

    plan = {"devices": "1 x table", "num_devices": 1, "table": f"{table.name}, {len(table.places)} blocks"}
    return Evaluator(evaluate, cache_key, tuple(task.name for task in tasks), plan)
