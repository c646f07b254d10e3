"""Curves and tables of retraining folders, from folders written by hand."""

import json
import math

import matplotlib.image
import pytest

from elenas_jax.analysis.retraining import load_results, results_note, results_table, save_curves, spread
from elenas_jax.experiment.run_dir import RunError


def make_folder(
    path, block="gru", task="tox21", metric="roc_auc", valid=(0.7, 0.8), test=(0.6, None), failed=0, **config
):
    path.mkdir(parents=True)
    training = {"depth": 1, "batch_size": 64, "learning_rate": 0.01, "steps": 32}
    curve = [[16, 0.5, 0.6], [32, 0.4, None]]
    names = ["trial_0", *(f"seed_{n}" for n in range(len(valid)))]
    trainings = {name: training | {"name": name, "curve": curve} for name in names} | {"trial_1": training}
    result = {
        "block": {"name": block},
        "task": {"name": task},
        "data": f"{task}, a split",
        "metric": metric,
        "parameters": 1234,
        "depth": 2,
        "width": 64,
        "steps": 32,
        "minutes": 5.0,
        "valid": list(valid),
        "test": list(test),
        "seeds": len(valid),
        "planned": len(valid) + failed,
        "stack_version": 2,
        "settings": {"minutes": 7.0} | ({"stack.width": 32, "tuning.depths": [1]} if failed else {}),
        "task_settings": {"length": 64} if failed else {},
    }
    files = {
        "config": {"kind": "retrain", "block": {"name": block}, "task": {"name": task}} | config,
        "provenance": {"sessions": [{"commit": "0123456789"}]},
        "trainings": trainings,
        "result": result,
    }
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_curves_are_drawn_with_gaps_and_for_what_has_not_begun(tmp_path):
    picture = save_curves(make_folder(tmp_path / "one"))
    assert picture == tmp_path / "one" / "curves.png"
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (546, 910) and pixels[..., :3].std() > 0.05
    with pytest.raises(RunError, match="Cannot read"):
        save_curves(tmp_path)


def test_tables_hold_finished_retrainings_by_task_and_block(tmp_path):
    make_folder(tmp_path / "b", valid=(0.7, 0.8), test=(0.6, 0.7), failed=1)
    make_folder(
        tmp_path / "a", block="elena2", task="ptb", metric="perplexity", valid=(200.0,), test=(190.04,)
    )
    make_folder(tmp_path / "search", kind="search")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text("{}")
    results = load_results(tmp_path)
    columns, rows = results_table(results)
    assert rows[0] == ["ptb (perplexity)", "elena2", 1234, "2 x 64", 32, "200.0", "190.0", 1, ""]
    assert rows[1] == [
        "tox21 (roc auc)",
        "gru",
        1234,
        "2 x 64",
        32,
        "75.0 ± 5.0",
        "65.0 ± 5.0",
        "2, 1 diverged",
        "--config.stack.width=32 '--config.tuning.depths=(1,)' --task_settings=length=64",
    ]
    assert len(rows) == 2 and len(columns) == len(rows[0])
    note = results_note(results)
    assert "--task=TASK --config.minutes=7.0` with the settings of its row, at commit 0123456;" in note
    assert "ptb, a split. tox21, a split." in note
    with pytest.raises(RunError, match="no finished folders"):
        load_results(tmp_path / "unfinished")


def test_the_best_is_first_and_what_all_have_set_is_said_once(tmp_path):
    for name, test in (("a", 0.6), ("b", None), ("c", 0.8)):
        make_folder(tmp_path / name, block=name, test=(test, test))
    results = load_results(tmp_path)
    columns, rows = results_table(results)
    assert [row[1] for row in rows] == ["c", "a", "b"] and "settings" not in columns
    assert "--config.minutes=7.0`, at commit" in results_note(results)


def test_results_that_lack_something_are_one_line(tmp_path):
    folder = make_folder(tmp_path / "old")
    result = json.loads((folder / "result.json").read_text())
    missing = {key: value for key, value in result.items() if key != "planned"}
    for broken in (missing, []):
        (folder / "result.json").write_text(json.dumps(broken))
        with pytest.raises(RunError, match=r"old/result\.json is damaged, or of another version"):
            load_results(tmp_path)


def test_versions_of_stacks_do_not_share_a_table(tmp_path):
    make_folder(tmp_path / "new")
    folder = make_folder(tmp_path / "old")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"stack_version": 1}))
    with pytest.raises(RunError, match="holds stacks of versions 1, 2, whose figures"):
        load_results(tmp_path)


def test_a_seed_that_failed_shows():
    assert spread((0.5, None), 100.0, 1) == "nan ± nan" and spread((math.nan,), 1.0, 1) == "nan"
