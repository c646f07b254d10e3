"""Retraining the best candidate of a search: on what, for how long, and that test data are read once."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from elenas_jax.evaluation.examples import Stored, measure
from elenas_jax.evaluation.network_training import compile_network, fit
from elenas_jax.evaluation.recipes import Course, Recipe
from elenas_jax.evaluation.training import canonical_digest, weights_key
from elenas_jax.experiment import build
from elenas_jax.experiment import retrain_best as best_module
from elenas_jax.experiment.archive import best_block, export_rows
from elenas_jax.experiment.retrain_best import joined, last_line, retrain_best
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError, read_json, run_dir, write_json
from elenas_jax.tasks.records import DataError
from tests.evaluation import toy_networks as toy
from tests.experiment.toy_individual import register, search, unregister

ROOT = Path(__file__).parents[2]
# The only modules that may read test data, each at its very end.
READERS = {"elenas_jax/experiment/retrain.py", "elenas_jax/experiment/retrain_best.py"}


@pytest.fixture(autouse=True, scope="module")
def tables():
    register()
    yield
    unregister()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "run"
    before = toy.Trap.reads
    search(folder, generations=2)
    assert toy.Trap.reads == before, "a search read test data"
    return folder


def test_nothing_else_reads_test_data():
    """In the source, nobody else calls `load_test`; that a search did not, `run` asserts."""
    callers = set()
    for path in [*(ROOT / "elenas_jax").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            # Any mention but as a keyword of the record counts: a function may be handed on.
            if isinstance(node, ast.Attribute) and node.attr == "load_test":
                callers.add(path.relative_to(ROOT).as_posix())
            if isinstance(node, ast.Constant) and node.value == "load_test":
                callers.add(path.relative_to(ROOT).as_posix())
    assert callers == READERS


def test_the_best_is_trained_on_training_and_validation_data_and_tested_once(run):
    before, done = toy.Trap.reads, []
    result = retrain_best(run, seeds=[0, 3], on_epoch=lambda *told: done.append(told))
    assert toy.Trap.reads == before + 1
    assert done == [(seed, epoch, 3) for seed in (0, 3) for epoch in (1, 2, 3)]
    best = best_block(run)
    for key in ("hash", "score", "text"):
        assert result[key] == best[key]
    assert result["examples"] == toy.TRAIN + toy.VALID and result["epochs"] == 3
    assert result["metric"] == "accuracy" and result["seeds"] == [0, 3] and len(result["test"]) == 2
    json.dumps(result)
    # By hand.
    candidate = np.array(json.loads(best["candidate"]))
    dataset, task = toy.make_dataset(), toy.make_task()
    both = joined(dataset.train, dataset.valid)
    np.testing.assert_array_equal(both.inputs[toy.TRAIN :], dataset.valid.inputs)
    recipe = Recipe(learning_rate=0.1, batch_size=16, epochs=3)
    examples = Stored(task, dataset, jax.random.key(0), 16, both)
    program = compile_network(toy.build(candidate, task), examples, recipe)
    for seed, found in zip((0, 3), result["test"]):
        key = weights_key(jax.random.key(0), canonical_digest(toy.canonical(candidate)), seed)
        state = fit(program, examples, recipe, Course(3, 4), key, seed).state
        test = dataset.load_test()
        padded = np.concatenate([test.inputs, np.zeros((12, 4), np.float32)])
        outputs = np.concatenate([program.outputs_of(state, part) for part in np.split(padded, 2)])
        batches = iter([(test.inputs, test.targets)])
        assert measure(lambda _, outputs=outputs: outputs[:20], batches, examples.metric) == found


def test_a_killed_retraining_goes_on_to_the_same_result(run):
    whole, told = retrain_best(run, seeds=[0, 1]), []

    def stop_or_tell(*epoch):
        told.append(epoch)
        if epoch == (1, 2, 3) and told.count(epoch) == 1:
            raise KeyboardInterrupt

    before = toy.Trap.reads
    with pytest.raises(KeyboardInterrupt):
        retrain_best(run, seeds=[0, 1], on_epoch=stop_or_tell)
    assert toy.Trap.reads == before and (run / "retrained").is_dir()
    # What a stop left serves the same data and settings only, and one seed leaves the others alone.
    (about,) = run.glob("retrained/*/about.json")
    kept = read_json(about)
    write_json(about, kept | {"data": "other data"})
    with pytest.raises(RunError, match="trainings with other data or settings; delete that folder"):
        retrain_best(run, seeds=[1])
    write_json(about, kept)
    told_result = []
    retrain_best(run, seeds=[2], on_result=told_result.append)
    assert told_result[0]["seeds"] == [2] and len(list(about.parent.glob("seed_*"))) == 2
    again = retrain_best(run, seeds=[0, 1], on_epoch=stop_or_tell)
    assert told == [(0, 1, 3), (0, 2, 3), (0, 3, 3), (1, 1, 3), (1, 2, 3), (1, 3, 3)]
    assert again | {"seconds": 0} == whole | {"seconds": 0}
    assert not (run / "retrained").exists()


def test_other_ranks_and_epochs(run):
    second = retrain_best(run, rank=2, epochs=1)
    assert second["hash"] != best_block(run)["hash"] and second["epochs"] == 1
    line = last_line(second | {"test": [0.5, None], "seeds": [0, 1]})
    assert line.endswith("1 epochs, test accuracy 0.5000 (2 seeds, 1 diverged)")
    assert "rank 2 of run" in last_line(second) and "none" in last_line(second | {"test": [None]})


def test_a_start_is_retrained_as_any_other_candidate(run, tmp_path):
    evolution = {"name": "evolution", "population_size": 2, "batch_size": 2, "start": "starts"}
    search(tmp_path, generations=2, strategy=evolution)
    large = retrain_best(tmp_path, start="large", epochs=1)
    rows = [row for row in export_rows(tmp_path) if json.loads(row["candidate"]) == [4, 2, 0]]
    assert large["hash"] == rows[0]["hash"] and large["score"] == rows[0]["score"]
    assert large["valid"] == json.loads(rows[0]["metrics"])["toy_data"]
    assert large["parameters"] == (4 * 4 + 4) + (4 * 4 + 4) + (4 * 3 + 3)
    assert (large["rank"], large["start"]) == (None, "large")
    assert last_line(large).startswith(f"toy_data: large of {tmp_path.name}, ")
    with pytest.raises(ConfigError, match="did not start from 'wide'; it started from small, large"):
        retrain_best(tmp_path, start="wide")
    with pytest.raises(ConfigError, match="has not evaluated large"):
        retrain_best(run, start="large")


def test_mistakes(run, tmp_path):
    with pytest.raises(ConfigError, match="no valid candidate of rank 99; 1 is the best"):
        retrain_best(run, rank=99)
    with pytest.raises(RunError, match="it is no run folder"):
        retrain_best(tmp_path)
    config = read_json(run_dir(run).config)
    write_json(run_dir(tmp_path).config, config | {"space": {"name": "nowhere"}})
    with pytest.raises(RunError, match=r"another version, or damaged: space.name='nowhere'"):
        retrain_best(tmp_path)
    write_json(run_dir(tmp_path).config, {"ladder": ["reber"]})
    with pytest.raises(ConfigError, match=r"evaluator.name='population'; here it must be 'individual'"):
        retrain_best(tmp_path)
    write_json(run_dir(tmp_path).config, {"ladder": ["reber"], "evaluator": {"name": "individual"}})
    with pytest.raises(ConfigError, match="reber draws its examples"):
        retrain_best(tmp_path)


def test_missing_data_are_named_and_leave_nothing_behind(run, monkeypatch):
    def missing():
        raise DataError("toy_data/train_x.npy: no such file;\nput it there.")

    def build_tasks(config):
        return tuple(task._replace(load=missing) for task in build.build_tasks(config))

    monkeypatch.setattr(best_module, "build_tasks", build_tasks)
    with pytest.raises(ConfigError, match="no such file; put it there"):
        retrain_best(run)
    assert not (run / "retrained").exists()


def test_the_command(tmp_path):
    """As a user meets its mistakes; what it does well is tested above, on a space that it does not know."""

    def call(*flags: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / "retrain_best.py"), *flags]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250)

    done = call(f"--run_dir={tmp_path}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "it is no run folder" in done.stderr
    # Known before the run is read, let alone trained.
    done = call(f"--run_dir={tmp_path}", "--json=nowhere/test.json")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"--json=nowhere/test.json: there is no folder {tmp_path / 'nowhere'}." in done.stderr
    done = call(f"--run_dir={tmp_path}", "--rank=1", "--start=transformer")
    assert done.returncode == 2 and "--start=transformer --rank=1: give one of the two." in done.stderr
    done = call("--rank=0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "rank" in done.stderr


UNWRITTEN = """
import runpy, sys
from elenas_jax.experiment import retrain_best, run_dir
def fail(path, value):
    raise run_dir.RunError(f"Cannot write {path}")
retrain_best.retrain_best = lambda *arguments, on_result, **settings: on_result({})
retrain_best.last_line = lambda result: "test accuracy 0.5"
run_dir.write_json = fail
sys.argv = ["retrain_best.py", "--run_dir=run", "--json=test.json"]
runpy.run_path(SCRIPT, run_name="__main__")
"""


def test_the_command_shows_its_result_even_if_the_file_cannot_be_written(tmp_path):
    code = UNWRITTEN.replace("SCRIPT", repr(str(ROOT / "scripts" / "retrain_best.py")))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250, env=environment)
    assert done.returncode == 2 and done.stdout == "test accuracy 0.5\n"
    assert done.stderr == "error: Cannot write test.json\n"
