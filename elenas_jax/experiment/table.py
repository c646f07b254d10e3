"""Makes a table of trainings from a config, see `evaluation.tabular`.

That trains every block of the config's space on every task of its ladder, whatever thresholds
say. Each training is kept in an archive as it ends, so that a kill loses one chunk and calling again
goes on; the file is written at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.tabular import write_text
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.experiment.archive import Archive
from elenas_jax.experiment.build import build_evaluator, build_space, build_tasks
from elenas_jax.experiment.config import LIMIT
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError, locked, plain, run_dir, session, write_atomically
from elenas_jax.graphs import ComputationGraph, canonical_graph, canonical_hash
from elenas_jax.graphs.computation import to_edges
from elenas_jax.spaces.elenas_enumeration import enumerate_blocks
from elenas_jax.spaces.elenas_sampling import make_choices
from elenas_jax.types import SearchSpace

# Blocks that go through all replicates before the next ones come: what is compiled for them is kept.
_AT_ONCE = 16


def make_table(
    config: Mapping[str, Any],
    folder: Path,
    to: Path,
    *,
    replicates: int = 3,
    limit: int = 0,
    on_start: Callable[[int, dict[str, Any]], None] = lambda num_blocks, plan: None,
    on_chunk: Callable[[int, int, int], None] = lambda done, total, trained: None,
) -> None:
    """Trains the blocks of a config's space and writes the table.

    Args:
      config: resolved.
      folder: of the archive; made if need be, gone on with if it is there.
      to: file of the table.
      replicates: trainings of each block, with data and weights of their own.
      limit: blocks at most, the first by hash, which is as good as random; 0 is all.
      on_start: told how many blocks there are, and the evaluator's plan.
      on_chunk: told (done, to do, trained by this call) as chunks end; a block counts once a replicate.

    Raises:
      ConfigError: if the space is not of this kind or has too many graphs.
      RunError: if the folder cannot be used.
    """
    space = build_space(config, build_tasks(config))
    graphs = all_blocks(config, space)
    graphs = graphs[:limit] if limit else graphs
    # Nobody stops: no metric is below 0.
    training = {
        **config,
        "tasks": {name: {**values, "threshold": 0.0} for name, values in config["tasks"].items()},
        "evaluator": {**config["evaluator"], "table": ""},
    }
    run = run_dir(folder)
    with locked(run), Archive(run.archive) as archive:
        archive.open({"task_names": config["ladder"]})
        evaluator = build_evaluator(training, build_tasks(training), archive)
        on_start(len(graphs), evaluator.plan)
        rows, trained = [], 0
        for first in range(0, len(graphs), _AT_ONCE):
            some = graphs[first : first + _AT_ONCE]
            found: list[list[Record]] = []
            for replicate in range(replicates):
                keys = [evaluator.cache_key(space.canonical(graph), 0, replicate) for graph in some]
                trained += len(keys) - len(archive.get(keys))
                evaluator.evaluate(ComputationGraph(stack_graphs(some)), 0, replicate)
                records = archive.get(keys)
                if len(records) < len(keys):
                    raise RunError("There is not enough memory for some blocks; see evaluator.memory_gib.")
                found.append([records[key] for key in keys])
                done = first * replicates + (replicate + 1) * len(some)
                on_chunk(done, len(graphs) * replicates, trained)
            rows += [
                table_row(graph, each, config["evaluator"]["head"])
                for graph, each in zip(some, zip(*found, strict=True), strict=True)
            ]
    ran = session(evaluator.plan["devices"])
    provenance = {name: ran[name] for name in ("commit", "versions", "devices")}
    provenance["executors"] = evaluator.plan["executors"]
    write_atomically(to, write_text(plain(config), provenance, replicates, rows))


def all_blocks(config: Mapping[str, Any], space: SearchSpace) -> list[ComputationGraph]:
    """Returns the representatives of all blocks of a space, sorted by hash."""
    settings = config["space"]
    if settings["name"] != "elenas":
        raise ConfigError(f"space.name={settings['name']!r}: only blocks of 'elenas' can be enumerated.")
    if settings[LIMIT]:
        raise ConfigError(f"space.{LIMIT}={settings[LIMIT]}: a table is of all blocks; it must be 0.")
    choices = make_choices(settings["num_nodes"], settings["operations"])
    try:
        blocks = enumerate_blocks(space, choices)
    except ValueError as error:
        raise ConfigError(f"space: {error}") from error
    head = config["evaluator"]["head"]
    graphs = [canonical_graph(ComputationGraph(edges), head) for edges in blocks.values()]
    return sorted(graphs, key=lambda graph: canonical_hash(graph, head))


def table_row(graph: ComputationGraph, records: Sequence[Record], head: str) -> list[Any]:
    """Returns the plain values of `tabular.COLUMNS`; records are those of the replicates."""
    return [
        canonical_hash(graph, head),
        plain(to_edges(graph)),
        records[0].parameters,
        records[0].flops,
        [record.status for record in records],
        plain([record.metrics for record in records]),
    ]
