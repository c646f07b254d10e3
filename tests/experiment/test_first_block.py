"""Searches for a first block: what is kept, when they end, and how they go on; in the toy's space."""

import io
import json

import pytest
from rich.console import Console

from elenas_jax.experiment import first_block
from elenas_jax.experiment.bars import Verdict
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.run_dir import RunError
from tests.experiment.toy import SPACE, use_toy

CONFIG = check_config({"ladder": ("reber",), "minutes": 5.0, "strategy": {"name": "random_search"}})


class Judge:
    """Finds the best candidate it is shown from its `after`-th call on; crashes where told to."""

    def __init__(self, after: int, crash_at: int = 0) -> None:
        self.after, self.crash_at = after, crash_at
        self.shown: list[list] = []

    def __call__(self, rows, config):
        self.shown.append([(row.generation, row.place) for row in rows])
        if len(self.shown) == self.crash_at:
            raise MemoryError("killed")
        if len(self.shown) < self.after:
            return None
        return Verdict(max(rows, key=lambda row: row.score or 0.0), {"reber": [0.5]})


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)
    monkeypatch.setattr(first_block, "build_tasks", lambda config: ())
    monkeypatch.setattr(first_block, "build_space", lambda config, tasks: SPACE)


def look_for(folder, judge, monkeypatch, **changes):
    monkeypatch.setattr(first_block, "ladder_passed", judge)
    return first_block.search_for(folder, CONFIG | changes, "paper", Console(file=io.StringIO()))


def test_a_search_ends_with_the_first_block_and_keeps_it(tmp_path, monkeypatch):
    judge = Judge(after=3)
    ended, result = look_for(tmp_path / "run", judge, monkeypatch)
    assert ended and result["found"] and result["metrics"] == {"reber": [0.5]}
    assert [{generation for generation, _ in shown} for shown in judge.shown] == [{0}, {1}, {2}]
    assert result["evaluations"] > 0 and result["seconds"] > 0 and len(result["graph"]) == 3
    assert result["equations"] == SPACE.describe(SPACE.from_json(result["graph"]))
    assert json.loads((tmp_path / "run" / "found.json").read_text()) == result
    # Again: nothing is searched, but another recipe is refused.
    assert look_for(tmp_path / "run", judge, monkeypatch) == (True, result)
    assert len(judge.shown) == 3
    with pytest.raises(RunError, match="batch_size"):
        look_for(tmp_path / "run", judge, monkeypatch, strategy={"name": "random_search", "batch_size": 7})


def test_what_a_killed_search_had_not_judged_is_judged_by_the_next(tmp_path, monkeypatch):
    with pytest.raises(MemoryError):
        look_for(tmp_path / "run", Judge(after=9, crash_at=2), monkeypatch)
    kept = json.loads((tmp_path / "run" / "found.json").read_text())
    assert not kept["found"] and kept["equations"] is None
    judge = Judge(after=1)
    _, result = look_for(tmp_path / "run", judge, monkeypatch)
    # The generation of the crash was saved, and its candidates are shown before any others are trained.
    assert [{generation for generation, _ in shown} for shown in judge.shown] == [{0, 1}]
    assert result["found"] and result["seconds"] > kept["seconds"] > 0
    assert result["evaluations"] == kept["evaluations"]


def test_a_search_that_was_killed_while_judging_finds_what_another_finds(tmp_path, monkeypatch):
    _, whole = look_for(tmp_path / "whole", Judge(after=3), monkeypatch)
    with pytest.raises(MemoryError):
        look_for(tmp_path / "killed", Judge(after=9, crash_at=3), monkeypatch)
    judge = Judge(after=1)
    _, killed = look_for(tmp_path / "killed", judge, monkeypatch, minutes=1e-3)  # no time is left
    assert killed["found"] and killed["evaluations"] == whole["evaluations"]
    assert {generation for generation, _ in judge.shown[0]} == {0, 1, 2}


def test_the_limit_is_of_all_seconds(tmp_path, monkeypatch):
    ended, result = look_for(tmp_path / "run", Judge(after=99), monkeypatch, minutes=0.001)
    assert ended and not result["found"] and result["seconds"] >= 0.06
    assert set(result) == {
        *("found", "bar", "seed", "seconds", "evaluations", "equations", "parameters", "graph", "metrics")
    }
    ended, again = look_for(tmp_path / "run", Judge(after=99), monkeypatch, minutes=0.001)
    assert ended and not again["found"] and again["evaluations"] == result["evaluations"]
    _, longer = look_for(tmp_path / "run", Judge(after=2), monkeypatch)
    assert longer["found"] and longer["seconds"] > result["seconds"]
    assert longer["evaluations"] > result["evaluations"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"found": "yes"}'])
def test_a_damaged_outcome_is_named_and_left_alone(tmp_path, monkeypatch, text):
    look_for(tmp_path / "run", Judge(after=99), monkeypatch, minutes=0.001)
    (tmp_path / "run" / "found.json").write_text(text)
    with pytest.raises(RunError, match=r"found.json"):
        look_for(tmp_path / "run", Judge(after=1), monkeypatch)
    assert (tmp_path / "run" / "found.json").read_text() == text
