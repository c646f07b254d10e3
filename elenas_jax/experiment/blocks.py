"""Blocks that a user names: known ones, files that hold a graph, or the best of a search."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.experiment.archive import best_block
from elenas_jax.experiment.rules import ConfigError, suggestion
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.spaces.elenas import from_json, to_json


def read_blocks(names: Sequence[str]) -> dict[str, ComputationGraph]:
    """Returns graphs by the names that tables give them: that of a known block, a file's or a folder's.

    Args:
      names: keys of `KNOWN_BLOCKS`; JSON files that hold a graph, {"num_nodes": ..., "edges": ...},
        or an object whose "graph" is one, as scripts/first_block.py writes it; or run folders of
        searches, with a rank behind a colon unless the best is meant: runs/small:3.

    Raises:
      ConfigError: for a name that is none of these, or two blocks of one name.
      RunError: for a run folder that cannot be read.
    """
    blocks: dict[str, ComputationGraph] = {}
    if not names:
        raise ConfigError("Name at least one block.")
    for name in names:
        shown, graph = _read_block(name)
        if shown in blocks:
            raise ConfigError(f"block {name!r}: there is another named {shown!r}; rename the file.")
        blocks[shown] = graph
    return blocks


def _read_block(name: str) -> tuple[str, ComputationGraph]:
    if name in KNOWN_BLOCKS:
        return name, KNOWN_BLOCKS[name]
    if name.endswith(".json"):
        return Path(name).stem, _read_file(name)
    folder, _, rank = name.rpartition(":") if re.fullmatch(r".+:\d+", name) else (name, "", "1")
    if not Path(folder).is_dir():
        raise ConfigError(
            f"block {name!r} is no file that ends in .json, no run folder, and no known "
            f"block{suggestion(name, KNOWN_BLOCKS)}."
        )
    found = best_block(folder, int(rank)) if int(rank) else None
    if found is None:
        raise ConfigError(f"block {name!r}: the run has no valid block of rank {rank}; 1 is the best.")
    try:
        graph = from_json(json.loads(found["candidate"]))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"block {name!r}: its candidates are no graphs ({error}).") from error
    path = Path(folder).absolute()
    return f"{path.name}:{rank}", graph


def described_blocks(blocks: Mapping[str, ComputationGraph]) -> dict[str, Any]:
    """Returns what a result keeps of blocks: null for a known block, the graph as JSON for any other."""
    return {
        name: None if graph is KNOWN_BLOCKS.get(name) else to_json(graph) for name, graph in blocks.items()
    }


def _read_file(name: str) -> ComputationGraph:
    try:
        data = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"block {name!r}: the file cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise ConfigError(f"block {name!r}: the file holds no graph: it is nested too deeply.") from error
    except ValueError as error:
        raise ConfigError(f"block {name!r}: the file is not JSON ({error}).") from error
    graph = data["graph"] if isinstance(data, dict) and "graph" in data else data
    if graph is None:
        raise ConfigError(f"block {name!r}: the file holds no graph: its search found none.")
    try:
        return from_json(graph)
    except (ValueError, RecursionError) as error:  # deep lists may be read and yet not be shown
        raise ConfigError(f"block {name!r}: {error}") from error
