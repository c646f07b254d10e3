"""Blocks that a user names."""

import json

import numpy as np
import pytest

from elenas_jax.experiment.archive import Archive, Row
from elenas_jax.experiment.blocks import described_blocks, read_blocks
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.spaces.elenas import to_json

GRAPH = to_json(KNOWN_BLOCKS["elman"])


@pytest.mark.parametrize("data", [GRAPH, {"found": True, "graph": GRAPH}])
def test_names_and_files(tmp_path, data):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    blocks = read_blocks(["lstm", str(path)])
    assert list(blocks) == ["lstm", "mine"] and blocks["lstm"] is KNOWN_BLOCKS["lstm"]
    np.testing.assert_array_equal(blocks["mine"].edges, KNOWN_BLOCKS["elman"].edges)
    assert described_blocks(blocks) == {"lstm": None, "mine": GRAPH}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the file is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"found": false, "graph": null}', "the file holds no graph: its search found none"),
        ('{"nodes": 3}', "A graph is an object with"),
        ('{"num_nodes": 100000000, "edges": []}', "must be 1024 at most"),
        (None, "the file cannot be read: No such file"),
    ],
    ids=("not JSON", "deep", "none found", "no graph", "huge", "missing"),
)
def test_files_that_hold_no_graph(tmp_path, text, message):
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_blocks([str(path)])
    assert str(error.value).startswith(f"block {str(path)!r}: ") and "\n" not in str(error.value)
    assert str(error.value).count("block ") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lstn"], "'lstn' is no file that ends in .json, no run folder.* did you mean 'lstm'"),
        (["lstm", "lstm"], "^block 'lstm': there is another named 'lstm'; rename the file"),
        ([], "^Name at least one block"),
    ],
)
def test_names_that_are_none(names, message):
    with pytest.raises(ConfigError, match=message):
        read_blocks(names)


def test_the_best_blocks_of_a_run(tmp_path):
    graphs = [to_json(KNOWN_BLOCKS[name]) for name in ("elman", "lstm", "elena1")]
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open({"task_names": ("reber",), "reasons": ("valid",)})
        rows = [
            Row(
                0,
                place,
                f"h{place}",
                1,
                0,
                "ok",
                0,
                0,
                score,
                1,
                1.0,
                1,
                0.5,
                "{}",
                json.dumps(graphs[place]),
            )
            for place, score in enumerate((0.2, 0.3, 0.1))
        ]
        archive.end_generation(rows, [])
    blocks = read_blocks([str(tmp_path), f"{tmp_path}:2", f"{tmp_path}:3"])
    assert list(blocks) == [f"{tmp_path.name}:{rank}" for rank in (1, 2, 3)]
    for found, name in zip(blocks.values(), ("lstm", "elman", "elena1"), strict=True):
        np.testing.assert_array_equal(found.edges, KNOWN_BLOCKS[name].edges)
    for rank in (0, 4):
        with pytest.raises(ConfigError, match=f"no valid block of rank {rank}; 1 is the best"):
            read_blocks([f"{tmp_path}:{rank}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"has no archive.sqlite"):
        read_blocks([str(tmp_path / "empty")])
