import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elenas_jax.analysis import load, retrained, runs
from elenas_jax.experiment.loop import limit_reached
from elenas_jax.experiment.run_dir import RunError, locked, read_json, read_metrics, run_dir, write_json
from tests.analysis.synthetic import configure, write_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "runs.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds, another search with another config, and one that has not begun."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (2, 10):
        configure(write_run(root / "five" / f"seed_{seed}", seed=seed, num_generations=4), generations=4)
    strategy = {"name": "evolution", "population_size": 8}
    configure(write_run(root / "wide", num_generations=2), strategy=strategy, plan={"devices": "1 x cpu"})
    configure(write_run(root / "deep" / "er" / "new", num_generations=0))
    return root


@pytest.fixture
def one(folder, tmp_path):
    """A copy of a run, in a folder of its own."""
    return shutil.copytree(folder / "five" / "seed_2", tmp_path / "runs" / "one")


def by_name(root):
    return {row["name"]: row for row in runs.list_runs(root)}


RETRAINING = {
    "kind": "retrain",
    "seed": 3,
    "seeds": 2,
    "minutes": 0.5,
    "block": {"name": "gru"},
    "task": {"name": "tox21"},
}
TRAININGS = {
    "trial_0": {"status": "ok", "valid": 0.9, "parameters": 7},
    "seed_0": {"status": "ok", "valid": 0.5, "parameters": 1200},
    "seed_1": {"steps": 16, "parameters": 1200},
}
RESULT = {
    "metric": "roc_auc",
    "valid": [0.5, 0.7],
    "test": [0.4, 0.8],
    "parameters": 1200,
    "seeds": 2,
    "planned": 2,
}


def write_retraining(path, trainings=TRAININGS, result=None, **changes):
    path.mkdir(parents=True)
    write_json(path / "config.json", RETRAINING | changes)
    write_json(path / "provenance.json", {"seed": 3, "sessions": [{"commit": "0123abcdef+changes"}]})
    write_json(path / "trainings.json", trainings)
    if result:
        write_json(path / "result.json", result)
    return path


def test_runs_are_found_at_any_depth_with_what_they_found(folder):
    rows = by_name(folder)
    assert set(rows) == {"five/seed_2", "five/seed_10", "wide", "deep/er/new"}
    row, run = rows["five/seed_2"], load.load_run(folder / "five" / "seed_2")
    assert tuple(row) == runs.COLUMNS
    assert (row["kind"], row["status"], row["problem"]) == ("search", "finished", "")
    assert (row["space"], row["strategy"], row["seed"]) == ("elenas", "reinforce", 2)
    assert (row["tasks"], row["commit"]) == ("reber, embedded_reber", "0123abc")
    assert (row["generations"], row["seconds"]) == (4, 10.0)
    assert row["evaluations"] == len(load.evaluations(run)) > 0
    assert row["best_score"] == run.best[0]["score"] and row["parameters"] == run.best[0]["parameters"]
    assert row["path"] == str(folder / "five" / "seed_2")
    new = rows["deep/er/new"]
    assert (new["status"], new["generations"], new["evaluations"], new["best_score"]) == (
        "stopped",
        0,
        0,
        None,
    )


def test_a_run_folder_itself_is_listed(folder):
    assert [row["name"] for row in runs.list_runs(folder / "wide")] == ["wide"]


def test_sorting(folder):
    for sort, column in (("best", "best_score"), ("evaluations", "evaluations")):
        values = [row[column] for row in runs.list_runs(folder, sort)]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=True) and values[: len(known)] == known
    os.utime(folder / "wide" / "metrics.jsonl", (2e9, 2e9))
    newest = runs.list_runs(folder)[0]
    assert newest["name"] == "wide" and newest["date"].startswith("2033-05-")
    with pytest.raises(RunError, match="sort is 'name'; allowed are best, date, evaluations"):
        runs.list_runs(folder, "name")


def test_equal_rows_are_in_the_natural_order_of_their_names(tmp_path):
    for seed in (10, 9, 2):
        write_json(configure(write_run(tmp_path / f"seed_{seed}", num_generations=0)) / "plan.json", {})
    assert [row["name"] for row in runs.list_runs(tmp_path, "best")] == ["seed_2", "seed_9", "seed_10"]


@pytest.mark.parametrize(
    ("limits", "status"),
    (
        ({}, "stopped"),
        ({"generations": 5}, "stopped"),
        ({"generations": 4}, "finished"),
        ({"evaluations": 10_000}, "stopped"),
        ({"evaluations": 1}, "finished"),
        ({"minutes": 1.0}, "stopped"),
        ({"minutes": 10 / 60}, "finished"),
    ),
)
def test_a_run_is_finished_where_the_search_says_so(one, limits, status):
    configure(one, **({"generations": 0} | limits))
    assert by_name(one.parent)["one"]["status"] == status
    reached = limit_reached(read_metrics(run_dir(one)), read_json(one / "config.json"))
    assert bool(reached) == (status == "finished")


@pytest.mark.parametrize(
    ("found", "status"),
    (
        ({"found": True, "seconds": 1.0}, "finished"),
        ({"found": False, "seconds": 60.0}, "finished"),
        ({"found": False, "seconds": 59.0}, "stopped"),
    ),
)
def test_a_search_for_a_first_block_ends_with_it_or_with_its_own_minutes(one, found, status):
    write_json(configure(one, generations=0, minutes=1.0) / "found.json", found)
    assert by_name(one.parent)["one"]["status"] == status


def test_a_run_whose_folder_is_held_is_running(one):
    with locked(run_dir(one)):
        assert by_name(one.parent)["one"]["status"] == "running"
    assert by_name(one.parent)["one"]["status"] == "finished"
    with locked(run_dir(one)):  # looking has not taken the lock
        pass


def damage(path, what):
    if what == "config is no JSON":
        (path / "config.json").write_text("{")
    elif what == "config is a list":
        (path / "config.json").write_text("[]")
    elif what == "no config":
        (path / "config.json").unlink()
    elif what == "a ladder that is none":
        configure(path, ladder=3)
    elif what == "a space that is text":
        configure(path, space="elenas")
    elif what == "metrics are damaged":
        (path / "metrics.jsonl").write_text('{"generation": 1}\n')
    elif what == "a line lacks a number":
        (path / "metrics.jsonl").write_text('{"generation": 0}\n')
    elif what == "provenance is damaged":
        (path / "provenance.json").write_text("{}")
    elif what == "no archive":
        (path / "archive.sqlite").unlink()
    elif what == "archive is text":
        (path / "archive.sqlite").write_text("this is no database " * 500)
    else:
        with sqlite3.connect(path / "archive.sqlite") as connection:
            connection.execute("ALTER TABLE candidates RENAME COLUMN parameters TO words")
        connection.close()


@pytest.mark.parametrize(
    "what",
    (
        "config is no JSON",
        "config is a list",
        "no config",
        "a ladder that is none",
        "a space that is text",
        "metrics are damaged",
        "a line lacks a number",
        "provenance is damaged",
        "no archive",
        "archive is text",
        "a column is missing",
    ),
)
def test_what_is_damaged_is_a_row_that_says_why(one, what):
    other = shutil.copytree(one, one.parent / "sound")
    for log in one.glob("archive.sqlite-*"):
        log.unlink()
    damage(one, what)
    rows = by_name(one.parent)
    assert rows["sound"]["status"] == "finished" and rows["sound"]["path"] == str(other)
    row = rows["one"]
    assert row["status"] == "damaged" and str(one) in row["problem"] and "\n" not in row["problem"]
    assert tuple(row) == runs.COLUMNS and row["date"]
    if what == "no archive":  # what could be read is there
        assert row["generations"] == 4 and row["strategy"] == "reinforce"


def test_other_folders_are_told_apart_or_passed_over(tmp_path):
    def write(name, file, content):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            write_json(tmp_path / name / file, content)
        else:
            (tmp_path / name / file).write_text(content)

    write("rank_memory", "config.json", {"seed": 0, "steps": 2000, "evaluator": {"head": "linear"}})
    write("rank_memory", "archive.sqlite", "")
    write("make_table", "archive.sqlite", "")
    write("policy", "pretraining.json", {"space": {}, "strategy": {}, "updates": 3})
    write("taught", "pretraining.json", {"space": {}, "updates": 3, "after": {"policy": 0.9}})
    write("blocks/lstm", "config.json", RETRAINING)
    write("other", "config.json", {"kind": "other", "seed": 4})
    write("other", "result.json", {})
    write("foreign", "config.json", "not JSON")
    write("foreign/below", "config.json", {"model": "resnet"})
    write("notes", "read.me", "text")
    write(".hidden", "config.json", {"kind": "retrain"})
    (tmp_path / "circle").symlink_to(tmp_path, target_is_directory=True)
    found = {row["name"]: (row["kind"], row["status"]) for row in runs.list_runs(tmp_path)}
    assert found == {
        "rank_memory": ("trainings", None),
        "make_table": ("trainings", None),
        "policy": ("pretraining", "stopped"),
        "taught": ("pretraining", "finished"),
        "blocks/lstm": ("retrain", "stopped"),
        "other": ("other", "finished"),
    }


def test_retrained_blocks(tmp_path):
    write_retraining(tmp_path / "done", result=RESULT)
    write_retraining(tmp_path / "begun")
    write_retraining(tmp_path / "more", result=RESULT, seeds=3)
    write_retraining(tmp_path / "lost", result=RESULT | {"valid": [0.5], "test": [0.4], "seeds": 1})
    write_retraining(tmp_path / "new", trainings={})
    rows = by_name(tmp_path)
    assert {name: row["status"] for name, row in rows.items()} == {
        "done": "finished",
        "begun": "stopped",
        "more": "stopped",
        "lost": "finished",
        "new": "stopped",
    }
    done = rows["done"]
    assert tuple(done) == runs.COLUMNS and done["kind"] == "retrain"
    assert (done["block"], done["tasks"], done["metric"], done["seed"]) == ("gru", "tox21", "roc_auc", 3)
    assert (done["parameters"], done["seeds"], done["minutes"], done["commit"]) == (
        1200,
        2,
        0.5,
        "0123abc+changes",
    )
    assert (done["validation"], done["validation_sd"]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert (done["test"], done["test_sd"]) == (pytest.approx(0.6), pytest.approx(0.2))
    begun = rows["begun"]
    assert (begun["validation"], begun["test"], begun["seeds"], begun["parameters"]) == (0.5, None, 1, 1200)
    assert (rows["new"]["validation"], rows["new"]["seeds"], rows["new"]["parameters"]) == (None, 0, None)
    table = retrained.retrained_table([done, rows["lost"], rows["new"]])
    cells = [dict(zip(table.columns, line, strict=True)) for line in table.rows]
    assert table.title == "3 retrained blocks"
    assert [cell["validation"] for cell in cells] == ["0.6000 ± 0.1000", "0.5000", "-"]
    assert cells[0]["test"] == "0.6000 ± 0.2000" and cells[0]["parameters"] == "1,200"
    assert retrained.retrained_table([done | {"test": 99.5, "test_sd": 1.25}]).rows[0][6] == "99.50 ± 1.25"


@pytest.mark.parametrize(
    ("file", "content"),
    (
        ("config.json", "{"),
        ("config.json", '{"kind": "retrain"}'),
        ("config.json", None),
        ("trainings.json", "[]"),
        ("trainings.json", '{"seed_0": 3}'),
        ("result.json", "{"),
        ("result.json", '{"metric": "r2"}'),
        ("result.json", "[" * 100_000),
    ),
    ids=str,
)
def test_damaged_retrainings_are_rows_that_say_so(tmp_path, file, content):
    path = write_retraining(tmp_path / "runs" / "one", result=RESULT)
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_text(content)
    row = by_name(path.parent)["one"]
    assert (row["kind"], row["status"]) == ("retrain", "damaged")
    assert str(path) in row["problem"] and "\n" not in row["problem"]
    assert len(retrained.retrained_table([row]).rows) == 1


def test_folders_below_something_foreign_are_found(one):
    write_json(one.parent / "config.json", {"model": "resnet"})
    assert set(by_name(one.parent)) == {"one"}


def test_no_folder():
    with pytest.raises(RunError, match=r"There is no folder .*/nowhere"):
        runs.list_runs("nowhere")


def test_rows_are_a_data_frame(folder):
    pytest.importorskip("pandas")
    frame = load.data_frame(runs.list_runs(folder))
    assert list(frame.columns) == list(runs.COLUMNS) and len(frame) == 4


def test_tables_show_shared_settings_once(folder):
    rows = runs.list_runs(folder, "best")
    table = runs.runs_table(rows)
    assert table.title == "4 searches; all with space elenas, tasks reber, embedded_reber, commit 0123abc"
    assert "tasks" not in table.columns and {"strategy", "seed"} <= set(table.columns)
    alone = runs.runs_table(rows[:1])
    assert alone.title == "1 search" and {"space", "tasks", "commit"} <= set(alone.columns)
    assert runs.runs_table([]).rows == []


def test_two_hundred_folders_are_quick(folder, tmp_path):
    for number in range(200):
        shutil.copytree(folder / "wide", tmp_path / f"run_{number}")
    before = time.process_time()
    assert len(runs.list_runs(tmp_path)) == 200
    assert time.process_time() - before < 2.0


def test_the_script(folder, tmp_path):
    home = shutil.copytree(folder, tmp_path / "runs")
    (home / "wide" / "metrics.jsonl").write_text("rubbish\n")
    write_retraining(home / os.fsdecode(b"gru\xff"), result=RESULT)
    (home / "policy").mkdir()
    write_json(home / "policy" / "pretraining.json", {"updates": 3})
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    assert 'jax' not in sys.modules"
    )

    def call(*flags):
        command = [sys.executable, "-c", f"import sys; sys.argv[0] = {str(SCRIPT)!r}\n{code}", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = call("--sort=best", "--csv=rows.csv")
    assert done.returncode == 0, done.stderr
    assert "4 searches" in done.stdout and "five/seed_10" in done.stdout
    assert f"damaged: wide: {home / 'wide' / 'metrics.jsonl'} is damaged at line 1" in done.stdout
    assert "Folders of other kinds: policy (pretraining)" in done.stdout
    assert "1 retrained block" in done.stdout and "0.6000 ± 0.2000" in done.stdout
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["name"].startswith("five/")
    assert {row["name"]: row["kind"] for row in rows}.items() >= {
        ("gru?", "retrain"),
        ("policy", "pretraining"),
    }
    done = call("--csv=more.csv", "--json=runs")
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "more.csv").exists()
    assert done.stderr == "error: --json=runs: it is a folder; name a file.\n"
    done = call("--compare=runs/five", "--json=compared.json")
    assert "config.seed" in done.stdout and "best score" in done.stdout
    compared = json.loads((tmp_path / "compared.json").read_text())
    assert [each["name"] for each in compared] == ["five/seed_2", "five/seed_10"]
    done = call("--compare=five,nothing")
    assert done.returncode == 2 and done.stderr.startswith("error: There is no search 'nothing'")
    assert len(done.stderr.splitlines()) == 1
