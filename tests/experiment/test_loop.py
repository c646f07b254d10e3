"""The loop: what is written, and that a kill at any moment changes nothing."""

import json
from collections.abc import Callable

import pytest

from elenas_jax.experiment import loop
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import Archive, best_block, export_rows, reading, write_export
from elenas_jax.experiment.checkpoint import Checkpoints
from tests.experiment.toy import BATCH, run_toy

NO_TIMES = ("seconds", "seconds_evaluating", "seconds_strategy")


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def kill_at(count: int) -> Callable[..., None]:
    """Returns a function that raises when it is called for the `count`-th time."""
    left = [count]

    def fail(*arguments: object, **named: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return fail


def contents(path) -> tuple[bytes, list[dict], list[tuple]]:
    """Returns all that must not depend on kills: the export, the metrics, the other tables."""
    run = files.run_dir(path)
    write_export(path, run.path / "export.jsonl")
    metrics = [{k: v for k, v in row.items() if k not in NO_TIMES} for row in files.read_metrics(run)]
    with reading(run) as connection:
        tables = [tuple(row) for row in connection.execute("SELECT * FROM blocks ORDER BY hash")]
        tables += [
            tuple(row)
            for row in connection.execute("SELECT key, generation, score FROM evaluations ORDER BY key")
        ]
    return (run.path / "export.jsonl").read_bytes(), metrics, tables


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    outcome, evaluator = run_toy(path)
    assert outcome == loop.Outcome(6, "6 generations")
    return path, contents(path), evaluator


def test_every_proposed_candidate_is_a_row(whole):
    path, _, evaluator = whole
    rows = export_rows(path)
    assert [(row["generation"], row["place"]) for row in rows] == [
        (g, p) for g in range(6) for p in range(BATCH - 1)
    ]
    assert sum(row["is_new"] for row in rows) == len(evaluator.trained) == len(set(evaluator.trained))
    assert "seconds" not in rows[0]
    new = [row["hash"] for row in rows if row["is_new"]]
    assert len(new) == len(set(new))
    assert {row["status_text"] for row in rows} == {"ok", "invalid: sum is a multiple of five", "diverged"}


def test_metrics_count_what_the_archive_holds(whole):
    path, _, evaluator = whole
    rows, metrics = export_rows(path), files.read_metrics(files.run_dir(path))
    for line in metrics:
        mine = [row for row in rows if row["generation"] == line["generation"]]
        valid = [row for row in mine if row["status"] != 1]
        assert line["proposals"] == len(mine) == BATCH - 1
        assert line["valid"] == len(valid) and line["unique"] == len({row["hash"] for row in valid})
        assert line["new_evaluations"] == sum(row["is_new"] for row in mine)
        assert sum(line["statuses"].values()) == len(mine)
        so_far = [
            row["score"] for row in rows if row["generation"] <= line["generation"] and row["status"] == 0
        ]
        assert line["best_score"] == max(so_far)
    assert metrics[-1]["total_evaluations"] == len(evaluator.trained)
    assert metrics[-1]["total_draws"] == len(rows)
    best = best_block(path)
    assert best is not None
    assert best["hash"] == metrics[-1]["best_hash"] and best["score"] == metrics[-1]["best_score"]
    assert best["text"] == " + ".join(map(str, json.loads(best["candidate"])))


@pytest.mark.parametrize("count", (2, 5, 8, 11))
def test_killed_while_evaluating(whole, tmp_path, count):
    with pytest.raises(Killed):
        run_toy(tmp_path, fail_at=kill_at(count))
    _, evaluator = run_toy(tmp_path)
    assert contents(tmp_path) == whole[1]
    assert set(evaluator.trained) < set(whole[2].trained)  # what was kept was not trained again


STAGES = {
    "before the archive": (Archive, "end_generation", False),
    "between archive and metrics": (Archive, "end_generation", True),
    "between metrics and checkpoint": (files, "append_metrics", True),
    "after the checkpoint": (Checkpoints, "save", True),
}


@pytest.mark.parametrize("generation", (0, 4))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_the_end_of_a_generation(whole, tmp_path, monkeypatch, stage, generation):
    owner, name, after = STAGES[stage]
    real, fail = getattr(owner, name), kill_at(generation + 1)

    def stand_in(*arguments, **named):
        if not after:
            fail()
        result = real(*arguments, **named)
        if after:
            fail()
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, stand_in)
        run_toy(tmp_path)
    outcome, _ = run_toy(tmp_path)
    assert outcome.num_generations == 6
    assert contents(tmp_path) == whole[1]


def test_killed_within_a_line_of_metrics(whole, tmp_path):
    run_toy(tmp_path, generations=3)
    run = files.run_dir(tmp_path)
    with open(run.metrics, "a") as file:
        file.write('{"generation": 3, "propo')
    run_toy(tmp_path)
    assert contents(tmp_path) == whole[1]


def test_killed_within_a_checkpoint(whole, tmp_path):
    run_toy(tmp_path, generations=3)
    half = files.run_dir(tmp_path).checkpoints / "4.orbax-checkpoint-tmp-7"
    half.mkdir()
    (half / "state").write_text("half")
    run_toy(tmp_path)
    assert contents(tmp_path) == whole[1]
    assert not half.exists()


def test_goes_on_from_an_older_checkpoint(whole, tmp_path):
    run_toy(tmp_path, generations=5)
    checkpoints = files.run_dir(tmp_path).checkpoints
    assert sorted(entry.name for entry in checkpoints.iterdir()) == ["3", "4", "5"]
    for name in ("4", "5"):
        for file in sorted((checkpoints / name).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (checkpoints / name).rmdir()
    run_toy(tmp_path)
    assert contents(tmp_path) == whole[1]


def test_a_stop_between_chunks_is_clean(whole, tmp_path):
    stops = iter([False] * 6 + [True] * 2)
    real = loop.search

    def stopping(*arguments, **named):
        return real(*arguments, stop_requested=lambda: next(stops), **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.experiment.toy.search", stopping)
        outcome, _ = run_toy(tmp_path)
    assert outcome.why == "" and outcome.num_generations < 6
    run_toy(tmp_path)
    assert contents(tmp_path) == whole[1]


def test_limits(whole, tmp_path):
    outcome, evaluator = run_toy(tmp_path / "a", generations=0, evaluations=12)
    assert outcome.why == "12 evaluations" and len(evaluator.trained) >= 12
    again, idle = run_toy(tmp_path / "a", generations=0, evaluations=12)
    assert again == outcome and not idle.trained
    outcome, _ = run_toy(tmp_path / "b", generations=0, minutes=1e-4)
    assert outcome.why == "0.0001 minutes" and outcome.num_generations >= 1
    longer, _ = run_toy(tmp_path / "a", generations=6)
    assert longer.num_generations == 6
    assert contents(tmp_path / "a") == whole[1]


def test_minutes_are_decided_by_what_was_recorded(tmp_path):
    """A run that was killed after its last checkpoint stops where it would have stopped."""
    outcome, _ = run_toy(tmp_path, generations=0, minutes=1e-3)
    again, idle = run_toy(tmp_path, generations=0, minutes=1e-3)
    assert again == outcome and not idle.trained


def test_keys_differ_between_generations_and_uses():
    import jax

    keys = [key for g in range(3) for key in loop.generation_keys(jax.random.key(0), g)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 6
