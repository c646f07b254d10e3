import contextlib
import math
import random
import shutil
import sqlite3
import sys

import numpy as np
import pytest

from elenas_jax.analysis import load
from elenas_jax.experiment.archive import best_rows
from elenas_jax.experiment.run_dir import RunError, run_dir
from tests.analysis.synthetic import TASKS, write_run


def test_a_run(run_path):
    run = load.load_run(run_path)
    rows = load.candidates(run)
    assert run.seed == 0 and run.task_names == TASKS
    assert (
        [row["generation"] for row in run.scores]
        == list(range(12))
        == [r["generation"] for r in run.generations]
    )
    assert sum(row["proposals"] for row in run.scores) == len(rows) == 240
    assert sum(row["count"] for row in run.statuses) == 240
    valid = [row for row in rows if row["status"] == 0]
    assert sum(row["valid"] for row in run.scores) == len(valid)
    of_last = [row["score"] for row in valid if row["generation"] == 11]
    assert run.scores[11]["best_score"] == max(of_last)
    assert run.scores[11]["mean_score"] == pytest.approx(np.mean(of_last))
    assert len(run.evaluation_scores) == len(load.evaluations(run)) == sum(row["is_new"] for row in rows)


def test_best_blocks_are_different_sorted_and_have_their_text(run_path):
    run = load.load_run(run_path, num_best=1000)
    rows = [row for row in load.candidates(run_path) if row["status"] == 0]
    assert {row["hash"] for row in rows} == {row["hash"] for row in run.best}
    assert len(run.best) == run.num_valid_blocks
    assert [row["score"] for row in run.best] == sorted((row["score"] for row in run.best), reverse=True)
    assert run.best[0]["score"] == max(row["score"] for row in rows)
    assert run.best[0]["generation"] == min(r["generation"] for r in rows if r["hash"] == run.best[0]["hash"])
    assert {row["hash"] for row in run.best} == set(run.blocks)
    assert len(load.load_run(run_path, num_best=3).best) == 3


def test_replicates_are_averaged_at_the_largest_budget(run_path, tmp_path):
    path = shutil.copytree(run_path, tmp_path / "run")
    digest = load.load_run(path).best[0]["hash"]
    with sqlite3.connect(path / "archive.sqlite") as connection:
        found = connection.execute("SELECT * FROM candidates WHERE hash = ? LIMIT 1", (digest,)).fetchone()
        for place, (budget, replicate, score) in enumerate(((1, 0, 0.1), (1, 1, 0.3))):
            row = list(found)
            row[0], row[1], row[3], row[6], row[7], row[8] = 50, place, 0, budget, replicate, score
            connection.execute(f"INSERT INTO candidates VALUES ({','.join('?' * len(row))})", row)
    connection.close()
    (record,) = [row for row in load.load_run(path, num_best=1000).best if row["hash"] == digest]
    assert (record["score"], record["replicates"], record["budget"]) == (pytest.approx(0.2), 2, 1)


def test_there_is_one_order_of_candidates(run_path, tmp_path):
    path = shutil.copytree(run_path, tmp_path / "run")
    numbers = random.Random(0)
    with contextlib.closing(sqlite3.connect(path / "archive.sqlite")) as connection, connection:
        for generation, place in connection.execute("SELECT generation, place FROM candidates").fetchall():
            # Few different scores, so that many are equal.
            values = numbers.randrange(2), numbers.randrange(4), numbers.randrange(5) / 10, generation, place
            connection.execute(
                "UPDATE candidates SET budget = ?, replicate = ?, score = ? "
                "WHERE generation = ? AND place = ?",
                values,
            )
    best = load.load_run(path, num_best=1000).best
    assert {(row["budget"], row["replicates"] > 1) for row in best} >= {(0, True), (1, True), (1, False)}
    with load.open_archive(run_dir(path)) as connection:
        rows = best_rows(connection, 1000)
        assert best_rows(connection, 3) == rows[:3]
    reported = [(row["score"], row["hash"], row["parameters"]) for row in best]
    assert reported == [(row.score, row.hash, row.parameters) for row in rows]
    assert len({row[0] for row in rows}) < len(rows) / 2


def test_seeds_are_found_in_order_of_their_numbers(seeds_path):
    assert [run.seed for run in load.load_runs(seeds_path)] == [0, 2, 10]
    assert [run.seed for run in load.load_runs(seeds_path / "seed_2")] == [2]


def test_data_frame(run_path):
    pandas = pytest.importorskip("pandas")
    frame = load.data_frame(load.candidates(run_path))
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 240
    assert set(frame.columns) >= {"score", "status_text", "metrics.reber", "metrics.embedded_reber"}


def test_data_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"elenas_jax\[data\]"):
        load.data_frame([])


def test_a_run_without_valid_candidates(tmp_path):
    run = load.load_run(write_run(tmp_path / "run", valid_share=0.0))
    assert run.best == [] and run.blocks == {} and run.evaluation_scores.size == 0
    assert all(row["best_score"] is None and row["valid"] == 0 for row in run.scores)


def test_a_run_without_generations(tmp_path):
    run = load.load_run(write_run(tmp_path / "run", num_generations=0))
    assert run.scores == [] and run.statuses == [] and run.generations == []


def test_failed_evaluations_count_and_have_no_score(run_path, tmp_path):
    path = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(path / "archive.sqlite") as connection:
        connection.execute("UPDATE candidates SET status = 100, status_text = 'diverged' WHERE is_new")
    connection.close()
    scores = load.load_run(path).evaluation_scores
    assert scores.size and all(math.isnan(score) for score in scores)


@pytest.mark.parametrize("name", ("a b", "100%?#&<'\"", "häß-数", "new\nline", ";mode=rw"))
def test_odd_names_of_folders(run_path, tmp_path, name):
    path = shutil.copytree(run_path, tmp_path / name)
    assert load.load_run(path).num_valid_blocks == load.load_run(run_path).num_valid_blocks


def test_reading_changes_no_row(run_path, tmp_path):
    path = shutil.copytree(run_path, tmp_path / "run")
    before = (path / "archive.sqlite").read_bytes()
    load.load_run(path)
    assert (path / "archive.sqlite").read_bytes() == before


def damage(path, what):
    archive = path / "archive.sqlite"
    if what == "no folder":
        shutil.rmtree(path)
    elif what == "empty folder":
        shutil.rmtree(path)
        path.mkdir()
    elif what == "a file":
        shutil.rmtree(path)
        path.write_text("x")
    elif what == "no config":
        (path / "config.json").unlink()
    elif what == "config is no JSON":
        (path / "config.json").write_text("{")
    elif what == "config is a list":
        (path / "config.json").write_text("[]")
    elif what == "no archive":
        archive.unlink()
    elif what == "archive is text":
        archive.write_text("this is not a database, it is a text of some length" * 100)
    elif what == "archive is cut short":
        archive.write_bytes(archive.read_bytes()[:9000])
    elif what == "archive is empty":
        archive.write_bytes(b"")
    elif what == "metrics are damaged":
        (path / "metrics.jsonl").write_text('{"generation": 0}\nrubbish\n{"generation": 2}\n')
    else:
        statement = {
            "another schema version": "UPDATE meta SET value = '99' WHERE name = 'schema_version'",
            "a metric is no JSON": "UPDATE candidates SET metrics = '{'",
            "a drawing is no JSON": "UPDATE blocks SET drawing = 'x'",
            "a column is missing": "ALTER TABLE blocks RENAME COLUMN text TO words",
        }[what]
        with sqlite3.connect(archive) as connection:
            connection.execute(statement)
        connection.close()


DAMAGES = (
    "no folder",
    "empty folder",
    "a file",
    "no config",
    "config is no JSON",
    "config is a list",
    "no archive",
    "archive is text",
    "archive is cut short",
    "archive is empty",
    "metrics are damaged",
    "another schema version",
    "a metric is no JSON",
    "a drawing is no JSON",
    "a column is missing",
)


@pytest.mark.parametrize("what", DAMAGES)
def test_what_cannot_be_read_is_one_line_that_names_the_file(run_path, tmp_path, what):
    path = shutil.copytree(run_path, tmp_path / "run")
    for log in path.glob("archive.sqlite-*"):
        log.unlink()
    damage(path, what)
    with pytest.raises(RunError) as error:
        load.load_runs(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
