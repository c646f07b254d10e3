"""Run folders: files that are whole at any moment, and errors in one line."""

import json

import numpy as np
import pytest

from elenas_jax.experiment.run_dir import (
    RunError,
    append_metrics,
    check_same_config,
    flatten,
    keep_metrics,
    locked,
    plain,
    read_json,
    read_metrics,
    run_dir,
    session,
    write_json,
)

ROWS = [{"generation": number, "best": number / 3} for number in range(4)]


@pytest.fixture
def run(tmp_path):
    return run_dir(tmp_path)


def test_json_holds_plain_values_only(run):
    value = {"a": (1, 2.5), "b": np.float32(0.5), "c": np.arange(2), "d": float("nan"), 3: {"e": None}}
    assert plain(value) == {"a": [1, 2.5], "b": 0.5, "c": [0, 1], "d": None, "3": {"e": None}}
    write_json(run.config, value)
    assert read_json(run.config) == plain(value)
    assert [entry.name for entry in run.path.iterdir()] == ["config.json"]


def test_what_cannot_be_read_is_said(run):
    with pytest.raises(RunError, match="Cannot read"):
        read_json(run.config)
    run.config.write_text('{"a": ')
    with pytest.raises(RunError, match=r"config\.json is damaged") as error:
        read_json(run.config)
    assert "\n" not in str(error.value)


def test_metrics_are_cut_back(run):
    for row in ROWS:
        append_metrics(run, row)
    with open(run.metrics, "a") as file:
        file.write('{"generation": 4, "be')
    assert read_metrics(run) == ROWS
    assert keep_metrics(run, 2) == ROWS[:2]
    assert read_metrics(run) == ROWS[:2]
    append_metrics(run, ROWS[2])
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == ROWS[:3]
    with pytest.raises(RunError, match="holds 3 generations where the newest checkpoint has 5"):
        keep_metrics(run, 5)


def test_metrics_with_a_hole(run):
    for row in (ROWS[0], ROWS[2]):
        append_metrics(run, row)
    with pytest.raises(RunError, match="damaged at line 2"):
        read_metrics(run)


def test_no_metrics_yet(run):
    assert read_metrics(run) == keep_metrics(run, 0) == []
    assert not run.metrics.exists()


def test_a_new_folder_and_one_that_was_killed_early(run):
    assert check_same_config(run_dir(run.path / "new"), {}, ()) is None
    assert not (run.path / "new").exists()
    with locked(run):
        assert check_same_config(run, {}, ()) is None
    (run.path / ".config.json.tmp").write_text("{")
    assert check_same_config(run, {}, ()) is None


def test_differing_keys_are_named(run):
    write_json(run.config, {"seed": 0, "old": 1, "minutes": 3.0, "a": {"b": [1, 2]}, "plan": {"devices": 2}})
    same = {"seed": 0, "old": 1, "minutes": 4.0, "a": {"b": (1, 2)}}
    stored = check_same_config(run, same, ("minutes",))
    assert stored is not None and stored["plan"] == {"devices": 2}
    with pytest.raises(RunError) as error:
        check_same_config(run, {"seed": 1, "a": {"b": (1, 3)}, "new": True, "minutes": 3.0}, ())
    message = str(error.value)
    for words in ("seed (0 there, 1 now)", "a.b ([1, 2] there, [1, 3] now)", "old (1 there, not set now)"):
        assert words in message
    assert "new (not set there, true now)" in message and "minutes" not in message and "\n" not in message


def test_the_lock_is_free_again(run):
    with locked(run), pytest.raises(RunError, match="in use by process"), locked(run):
        pass
    with locked(run):
        pass


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": (3,)}) == {"a.b": 1, "a.c.d": 2, "e": (3,)}


def test_provenance_of_a_session():
    found = session("2 x cpu")
    assert found["devices"] == "2 x cpu" and {"python", "jax", "numpy"} <= set(found["versions"])
    assert found["commit"] is None or len(found["commit"].removesuffix("+changes")) == 40
