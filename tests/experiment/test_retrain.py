"""Retraining from end to end on a toy: what is written, going on after a stop, test data read once."""

import ast
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from elenas_jax.experiment import retrain as module
from elenas_jax.experiment import training_jobs
from elenas_jax.experiment.retrain import last_line, retrain
from elenas_jax.experiment.retrain_config import check_retrain_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.experiment.training_jobs import load_params, save_params, summarise
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.tasks.records import Dataset, Split

PACKAGE = Path(module.__file__).parents[1]


def split(num, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 5, (num, 4)).astype(np.int32)
    return Split(tokens, np.eye(2, dtype=np.float32)[(tokens[:, 0] > 2).astype(int)])


@pytest.fixture
def toy(monkeypatch):
    """Makes the data set "ptb" a toy; returns the list of what was asked for."""
    asked = []

    def load_test():
        asked.append("test")
        return split(40, 2)

    def load(name, data_dir, **settings):
        asked.append(name)
        return Dataset(
            "toy",
            True,
            5,
            2,
            4,
            "categorical",
            "accuracy",
            split(64, 0),
            split(40, 1),
            load_test,
            (),
            "a toy",
        )

    monkeypatch.setattr(module, "load_dataset", load)
    return asked


def config_of(**changes):
    given = {
        "minutes": 0.001,  # so every training takes the fewest steps: one segment an evaluation
        "seeds": 2,
        "num_devices": 1,
        "compilation_cache": "off",
        "task": {"name": "mnist_rows"},
        "stack": {"width": 8},
        "recipe": {"evaluations": 4},
        "tuning": {"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e-2, 3e-2)},
    }
    return check_retrain_config(given | changes)


def run(folder, config=None, block="gru"):
    console = Console(quiet=True)
    return retrain(block, KNOWN_BLOCKS[block], config or config_of(), folder, data_dir=None, console=console)


def test_a_stopped_retraining_goes_on_to_the_same_result(toy, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    assert toy == ["mnist_rows", "test"]
    assert last_line(whole).startswith("gru on mnist_rows: ") and "2 seeds" in last_line(whole)
    trainings = json.loads((tmp_path / "whole" / "trainings.json").read_text())
    assert list(trainings) == ["seed_0", "seed_1", "trial_0", "trial_1"]
    assert all(each["steps"] == 32 + 32 * (name[:4] == "seed") for name, each in trainings.items())
    assert np.shape(trainings["seed_1"]["curve"]) == (4, 3)
    best = max(("trial_0", "trial_1"), key=lambda name: (trainings[name]["valid"], name == "trial_0"))
    assert whole["learning_rate"] == trainings[best]["learning_rate"]
    assert whole["valid"] == [trainings[f"seed_{n}"]["valid"] for n in range(2)]

    # Stops after the second evaluation of the first seed, whose checkpoint is there.
    asked, stop = [], []
    monkeypatch.setattr(training_jobs, "_SAVE_SECONDS", 0.0)
    said = Console.print

    def listen(self, text="", **settings):
        if str(text).startswith("seed_0: step 32"):
            stop.append(True)
        said(self, text, **settings)

    monkeypatch.setattr(Console, "print", listen)
    monkeypatch.setattr(module, "stopping", lambda on_request: _Stop(stop))
    del toy[:]
    assert run(tmp_path / "cut") is None
    assert toy == ["mnist_rows"] and not (tmp_path / "cut" / "result.json").exists() and not asked
    assert (tmp_path / "cut" / "checkpoints" / "seed_0" / "2").exists()
    stop.append("no more")
    monkeypatch.setattr(module, "stopping", lambda on_request: _Stop([]))
    assert run(tmp_path / "cut") == whole
    for name in ("seed_0", "seed_1"):
        one, other = (load_params(tmp_path / where / "weights" / f"{name}.npz") for where in ("whole", "cut"))
        jax.tree.map(np.testing.assert_array_equal, one, other)

    # A finished folder is read, and test data with it not again; another config does not fit it.
    del toy[:]
    assert run(tmp_path / "cut") == whole and toy == []
    with pytest.raises(RunError, match=r"stack.width \(8 there, 16 now\)"):
        run(tmp_path / "cut", config_of(stack={"width": 16}))
    # More seeds go on from those that are there.
    more = run(tmp_path / "cut", config_of(seeds=3))
    assert more["valid"][:2] == whole["valid"] and more["test"][:2] == whole["test"] and more["seeds"] == 3


class _Stop:
    def __init__(self, flag):
        self.flag = flag

    def __enter__(self):
        return lambda: bool(self.flag)

    def __exit__(self, *exception):
        return False


def test_text_takes_recurrent_blocks_only(monkeypatch, tmp_path):
    words = np.arange(4000, dtype=np.int32) % 5
    data = Dataset("t", True, 5, 5, None, "language", "perplexity", words, words, None, (), "")
    monkeypatch.setattr(module, "load_dataset", lambda name, data_dir, **settings: data)
    with pytest.raises(ConfigError, match="recurrent blocks only"):
        run(tmp_path / "run", block="linear_attention")
    with pytest.raises(ConfigError, match="The text has 4,000 words; 200 streams of pieces of 35 need 7,001"):
        run(tmp_path / "run", config_of(tuning={"batch_sizes": (200,)}))
    assert not (tmp_path / "run").exists()


def test_nothing_but_the_end_touches_test_data():
    """`load_test` is called in one place of the package: `retrain._test`."""
    calls = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Call) and getattr(inner.func, "attr", "") == "load_test":
                        calls.append((path.name, node.name))
    assert calls == [("retrain.py", "_test")]


def test_weights_round_trip(tmp_path):
    params = {"input": {"kernel": np.eye(2, dtype=np.float32)}, "block_0": {"W1": np.arange(3.0)}}
    save_params(tmp_path / "weights" / "one.npz", params)
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path / "weights" / "one.npz"), params)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["one.npz"]


def test_summaries():
    assert summarise([0.5, 0.7]) == "0.6000 ± 0.1000" and summarise([185.7]) == "185.70"
