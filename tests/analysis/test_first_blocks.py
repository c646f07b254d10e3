"""Tables of searches for a first block, from run folders."""

import pytest

from elenas_jax.analysis.first_blocks import class_table, load_searches, searches_table
from elenas_jax.experiment.run_dir import RunError, run_dir, write_json

FOUND = {
    "found": True,
    "seconds": 12.3,
    "evaluations": 7,
    "parameters": 50,
    "equations": "h1 = x W1\ny = tanh(h1)",
    "metrics": {"reber": [0.5, 0.7], "adding": [1.0, 1.0]},
}
NOTHING = {"found": False, "seconds": 200.0, "evaluations": 32}
REFERENCE = {"parameters": 101, "metrics": {"reber": [0.4, 0.6], "adding": [0.9, 0.9]}}


def write_search(folder, name, result=FOUND, reference=None, commits=("0123456789",), **config):
    run = run_dir(folder / name)
    run.path.mkdir(parents=True)
    seed = int(name.rpartition("_")[2])
    write_json(
        run.config,
        {"seed": seed, "minutes": 10.0 + seed, "ladder": ["reber", "adding"], "evaluator": {"head": "none"}}
        | config,
    )
    write_json(run.provenance, {"sessions": [{"commit": commit} for commit in commits]})
    write_json(run.path / "found.json", result)
    if reference:
        write_json(run.path / "reference.json", reference)


@pytest.fixture
def folder(tmp_path):
    write_search(tmp_path, "lstm_0", reference=REFERENCE)
    write_search(tmp_path, "paper_no_head_1", NOTHING)
    write_search(tmp_path, "paper_10", commits=("abcdefghij+changes", "0123456789"))
    write_search(tmp_path, "paper_9")
    (tmp_path / "lstm_0").rename(tmp_path / "lstm_old")
    write_search(tmp_path, "lstm_0", reference=REFERENCE)
    (tmp_path / "paper_3").mkdir()  # not begun
    return tmp_path


def test_a_row_a_search_in_order(folder):
    columns, rows = searches_table(load_searches(folder))
    assert len(columns) == len(rows[0])
    assert [row[:2] for row in rows] == [["paper", 9], ["paper", 10], ["paper_no_head", 1], ["lstm", 0]]
    assert rows[0][2:] == ["12", 7, 50, "0123456"]
    assert rows[1][5] == "0123456 abcdefg+changes"
    assert rows[2][2:] == ["none in 200", 32, None, "0123456"]


def test_blocks_of_a_class_stand_beside_their_reference(folder):
    columns, rows, equations = class_table(load_searches(folder), "lstm")
    assert columns == ["block", "parameters", "reber", "adding"]
    assert rows == [
        ["found, seed 0", 50, "0.600 ± 0.100", "1.000 ± 0.000"],
        ["LSTM, seed 0", 101, "0.500 ± 0.100", "0.900 ± 0.000"],
    ]
    assert "`h1 = x W1; y = tanh(h1)`" in equations


def test_the_bar_of_memory_has_a_column_a_length(folder):
    metrics = {"reber": [0.5], "memory_80": [1.0], "memory_20": [0.75]}
    write_search(
        folder,
        "memory_3",
        FOUND | {"metrics": metrics},
        {"parameters": 101, "metrics": {"reber": [0.4]}},
        ladder=["reber", "memory"],
    )
    for length, value in ((80, 0.1), (20, 0.25)):
        write_json(folder / "memory_3" / f"reference_memory_{length}.json", {"metrics": {"memory": [value]}})
    searches = load_searches(folder)
    columns, rows, _ = class_table(searches, "memory")
    assert columns == ["block", "parameters", "reber", "memory 20", "memory 80"]
    assert rows == [
        ["found, seed 3", 50, "0.500 ± 0.000", "0.750 ± 0.000", "1.000 ± 0.000"],
        ["LSTM, seed 3", 101, "0.400 ± 0.000", "0.250 ± 0.000", "0.100 ± 0.000"],
    ]
    assert len(class_table(searches, "lstm")[1]) == 2
    (folder / "memory_3" / "reference_memory_20.json").unlink()
    with pytest.raises(RunError, match=r"memory_3 is damaged: .* are missing: memory_20"):
        load_searches(folder)


def test_without_searches_it_says_so(tmp_path):
    with pytest.raises(RunError, match="holds no searches"):
        load_searches(tmp_path)
    write_search(tmp_path, "lstm_0", NOTHING)
    with pytest.raises(RunError, match="No block is over"):
        class_table(load_searches(tmp_path), "lstm")


def test_damage_and_other_settings_are_named(folder):
    write_search(folder, "paper_11", ladder=["reber"])
    with pytest.raises(RunError, match=r"paper_11 and paper_\d+ have other settings"):
        load_searches(folder)
    (folder / "paper_11" / "found.json").write_text("[]")
    with pytest.raises(RunError, match="paper_11 is damaged: TypeError"):
        load_searches(folder)
