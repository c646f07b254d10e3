"""Blocks that a user names: known ones, or files that hold a graph."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.experiment.rules import ConfigError, suggestion
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.spaces.elenas import from_json, to_json


def read_blocks(names: Sequence[str]) -> dict[str, ComputationGraph]:
    """Returns graphs by the names that tables give them: that of a known block, or a file's without ".json".

    Args:
      names: keys of `KNOWN_BLOCKS`, or JSON files that hold a graph, {"num_nodes": ..., "edges": ...},
        or an object whose "graph" is one, as scripts/first_block.py writes it.

    Raises:
      ConfigError: for a name or a file that is neither, or two blocks of one name.
    """
    blocks: dict[str, ComputationGraph] = {}
    if not names:
        raise ConfigError("--blocks: name at least one block.")
    for name in names:
        is_file = name.endswith(".json")
        if not is_file and name not in KNOWN_BLOCKS:
            raise ConfigError(
                f"--blocks: {name!r} is neither a file that ends in .json nor a known "
                f"block{suggestion(name, KNOWN_BLOCKS)}."
            )
        shown = Path(name).stem if is_file else name
        if shown in blocks:
            raise ConfigError(f"--blocks: two blocks are named {shown!r}; rename the file.")
        blocks[shown] = _read_file(name) if is_file else KNOWN_BLOCKS[name]
    return blocks


def described_blocks(blocks: Mapping[str, ComputationGraph]) -> dict[str, Any]:
    """Returns what a result keeps of blocks: null for a known block, the graph as JSON for any other."""
    return {
        name: None if graph is KNOWN_BLOCKS.get(name) else to_json(graph) for name, graph in blocks.items()
    }


def _read_file(name: str) -> ComputationGraph:
    try:
        data = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--blocks: cannot read {name}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"--blocks: {name} is not JSON ({error}).") from error
    graph = data["graph"] if isinstance(data, dict) and "graph" in data else data
    if graph is None:
        raise ConfigError(f"--blocks: {name} holds no graph: its search found none.")
    try:
        return from_json(graph)
    except ValueError as error:
        raise ConfigError(f"--blocks: {name}: {error}") from error
