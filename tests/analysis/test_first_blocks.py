"""Tables of searches for a first block, from run folders."""

import json

import pytest

from elenas_jax.analysis.first_blocks import class_table, load_searches, searches_table
from elenas_jax.experiment.run_dir import RunError, run_dir, write_json

FOUND = {
    "seconds": 12.3,
    "evaluations": 7,
    "parameters": 50,
    "equations": "h1 = x W1\ny = tanh(h1)",
    "metrics": {"reber": [0.5, 0.7], "adding": [1.0, 1.0]},
}
REFERENCE = {"parameters": 101, "metrics": {"reber": [0.4, 0.6], "adding": [0.9, 0.9]}}


def write_search(folder, name, found=None, reference=None):
    run = run_dir(folder / name)
    run.path.mkdir(parents=True)
    write_json(run.config, {})
    write_json(run.provenance, {"sessions": [{"commit": "0123456789"}]})
    rows = [{"generation": g, "seconds": 100.0, "total_evaluations": 16 * (g + 1)} for g in (0, 1)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if found:
        write_json(run.path / "found.json", found)
    if reference:
        write_json(run.path / "reference.json", reference)


@pytest.fixture
def folder(tmp_path):
    write_search(tmp_path, "lstm_0", FOUND, REFERENCE)
    write_search(tmp_path, "paper_no_head_1")
    write_search(tmp_path, "paper_10", FOUND)
    write_search(tmp_path, "paper_9", FOUND)
    write_search(tmp_path, "lstm_other", FOUND)
    (tmp_path / "paper_3").mkdir()  # not begun
    return tmp_path


def test_a_row_a_search_in_order(folder):
    columns, rows = searches_table(load_searches(folder))
    assert len(columns) == len(rows[0])
    assert [row[:2] for row in rows] == [["paper", 9], ["paper", 10], ["paper_no_head", 1], ["lstm", 0]]
    assert rows[0][2:] == ["12", 7, 50, "0123456"]
    assert rows[2][2:] == ["none in 200", 32, None, "0123456"]


def test_blocks_of_a_class_stand_beside_their_reference(folder):
    columns, rows, equations = class_table(load_searches(folder))
    assert columns == ["block", "parameters", "adding", "reber"]
    assert rows == [
        ["found, seed 0", 50, "1.000 ± 0.000", "0.600 ± 0.100"],
        ["LSTM, seed 0", 101, "0.900 ± 0.000", "0.500 ± 0.100"],
    ]
    assert "`h1 = x W1; y = tanh(h1)`" in equations


def test_without_searches_it_says_so(tmp_path):
    with pytest.raises(RunError, match="holds no searches"):
        load_searches(tmp_path)
    write_search(tmp_path, "lstm_0")
    with pytest.raises(RunError, match="No block is over"):
        class_table(load_searches(tmp_path))
