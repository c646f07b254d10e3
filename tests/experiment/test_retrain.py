"""Retraining from end to end on a toy: what is written, going on after a stop, test data read once."""

import errno
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from elenas_jax.evaluation import parallel
from elenas_jax.experiment import retrain as module
from elenas_jax.experiment import training_jobs
from elenas_jax.experiment.retrain import last_line, retrain, summarise
from elenas_jax.experiment.retrain_config import check_retrain_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.experiment.training_jobs import Job, Jobs, load_params, save_params
from elenas_jax.experiment.tuning import Stacks
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.tasks.records import DataError, Dataset, Split

PACKAGE = Path(module.__file__).parents[1]


def split(num, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 5, (num, 4)).astype(np.int32)
    return Split(tokens, np.eye(2, dtype=np.float32)[(tokens[:, 0] > 2).astype(int)])


def load_toy(name, data_dir, asked=None, **settings):
    asked = [] if asked is None else asked
    asked.append(name)

    def load_test():
        asked.append("test")
        return split(40, 2)

    return Dataset(
        "toy", True, 5, 2, 4, "categorical", "accuracy", split(64, 0), split(40, 1), load_test, (), "a toy"
    )


@pytest.fixture
def toy(monkeypatch):
    """Makes every data set a toy; returns the list of what was asked for."""
    asked = []
    monkeypatch.setattr(module, "load_dataset", functools.partial(load_toy, asked=asked))
    return asked


def config_of(**changes):
    given = {
        "minutes": 100.0,  # so that the most epochs say how long: 24 of 4 steps
        "seeds": 2,
        "num_devices": 1,
        "compilation_cache": "off",
        "stack": {"width": 8},
        "recipe": {"evaluations": 4, "max_epochs": 17.0},
        "tuning": {"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e-2, 3e-2)},
    }
    return check_retrain_config(given | changes, "mnist_rows")


ONE = config_of(seeds=1, tuning={"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e-2,)})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("done") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_dataset", load_toy)
        run(folder, ONE)
    return folder


def run(folder, config=None, block="gru"):
    console = Console(quiet=True)
    return retrain(block, KNOWN_BLOCKS[block], config or config_of(), folder, data_dir=None, console=console)


def test_a_stopped_retraining_goes_on_to_the_same_result(toy, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    assert toy == ["mnist_rows", "test"]
    assert last_line(whole).startswith("gru on mnist_rows: ") and "2 seeds" in last_line(whole)
    trainings = json.loads((tmp_path / "whole" / "trainings.json").read_text())
    assert list(trainings) == ["seed_0", "seed_1", "trial_0", "trial_1"]
    assert all(each["steps"] == 64 for each in trainings.values())  # 4 segments, of at most 68 steps
    assert np.shape(trainings["seed_1"]["curve"]) == (4, 3)
    best = max(("trial_0", "trial_1"), key=lambda name: (trainings[name]["valid"], name == "trial_0"))
    assert whole["learning_rate"] == trainings[best]["learning_rate"]
    assert whole["valid"] == [trainings[f"seed_{n}"]["valid"] for n in range(2)]

    # Stops after the second evaluation of the first seed, and keeps what is there.
    stop = []
    said = Console.print

    def listen(self, text="", **settings):
        if str(text).startswith("seed_0: step 32"):
            stop.append(True)
        said(self, text, **settings)

    monkeypatch.setattr(Console, "print", listen)
    monkeypatch.setattr(module, "stopping", lambda on_request: _Stop(stop))
    del toy[:]
    assert run(tmp_path / "cut") is None
    assert toy == ["mnist_rows"] and not (tmp_path / "cut" / "result.json").exists()
    assert (tmp_path / "cut" / "checkpoints" / "seed_0" / "2").exists()
    stop.append("no more")
    monkeypatch.setattr(module, "stopping", lambda on_request: _Stop([]))
    assert run(tmp_path / "cut") == whole
    for name in ("seed_0", "seed_1"):
        one, other = (load_params(tmp_path / where / "weights" / f"{name}.npz") for where in ("whole", "cut"))
        jax.tree.map(np.testing.assert_array_equal, one, other)

    # A finished folder is read, and test data with it not again; another config does not fit it.
    del toy[:]
    assert run(tmp_path / "cut") == whole and toy == ["mnist_rows"]
    with pytest.raises(RunError, match=r"stack.width \(8 there, 16 now\)"):
        run(tmp_path / "cut", config_of(stack={"width": 16}))
    with pytest.raises(
        RunError, match=r"block.hash .*, block.name \(\"gru\" there, \"elman\" now\)"
    ) as error:
        run(tmp_path / "cut", block="elman")
    assert len(str(error.value)) < 400
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


def test_other_data_do_not_fit_the_folder(monkeypatch, tmp_path, toy):
    run(tmp_path / "run", ONE)
    before = module.load_dataset

    def relabelled(*arguments, **settings):
        data = before(*arguments, **settings)
        return data._replace(train=data.train._replace(targets=data.train.targets[:, ::-1].copy()))

    monkeypatch.setattr(module, "load_dataset", relabelled)
    with pytest.raises(RunError, match=r"data\.digest"):
        run(tmp_path / "run", ONE)


def test_what_diverges_is_no_result(monkeypatch, tmp_path, toy):
    many = config_of(seeds=1, tuning={"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e35, 1e36)})
    with pytest.raises(ConfigError, match="Every trial diverged"):
        run(tmp_path / "many", many)
    one = config_of(seeds=1, tuning={"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e35,)})
    with pytest.raises(ConfigError, match="Every seed diverged"):
        run(tmp_path / "one", one)
    assert "test" not in toy and not (tmp_path / "one" / "result.json").exists()
    result = {
        "block": {"name": "gru"},
        "task": {"name": "toy"},
        "parameters": 5,
        "metric": "accuracy",
        "valid": [0.5, 0.7],
        "test": [0.25, 0.25],
        "seeds": 2,
        "planned": 3,
    }
    assert last_line(result) == (
        "gru on toy: 5 parameters, validation accuracy 0.6000 ± 0.1000, test accuracy 0.2500 ± 0.0000 "
        "(2 seeds; 1 diverged)"
    )


def test_time_bounds_steps_and_evaluations(monkeypatch):
    """Fake clock: a segment takes 2 s, an evaluation 4 s, compiling 10 s more."""
    now, compiled = [0.0], []
    monkeypatch.setattr(training_jobs.time, "perf_counter", lambda: now[0])

    class Slow:
        def init(self, seed):
            return SimpleNamespace(params=None, loss=0.0)

        def advance(self, state, course, taken):
            now[0] += 2.0 + 10.0 * (not compiled)
            compiled.append(True)
            return state

        def measure(self, params, split):
            now[0] += 4.0
            return 0.5

    def affordable(seconds, sharing=1, evaluations=5, most=10_000):
        now[0] = 0.0
        del compiled[:]
        job = Job("trial_0", 1, 16, 1e-2, 0, seconds, sharing, evaluations, most)
        return training_jobs._affordable(job, Slow(), SimpleNamespace(valid=None), 0.0)

    # Measuring takes 12 + 4 + 4 + 2 = 22 s.
    assert affordable(122.0) == (40, 5)  # 100 s are left: 5 evaluations of 4 s, 40 segments
    assert affordable(62.0) == (16, 2)  # 40 s: a quarter of them for evaluations
    assert affordable(51.0, sharing=2) == (16, 2)
    assert affordable(1.0) == (1, 1) and affordable(122.0, most=50) == (3, 3)


def test_late_trials_are_left_out(toy, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Console, "print", lambda self, text="", **settings: said.append(str(text)))
    monkeypatch.setattr(Jobs, "seconds", lambda self: 1e6)
    retrain(
        "gru", KNOWN_BLOCKS["gru"], config_of(seeds=1), tmp_path, data_dir=None, console=Console(quiet=True)
    )
    assert "No time to try depth 1, batch 16, learning rate 0.03." in said
    assert any("100 minutes are too few" in text for text in said)


def test_bad_test_data_are_one_line(monkeypatch, tmp_path, toy):
    def broken():
        raise DataError("toy_TEST.ts: line 3")

    before = module.load_dataset
    monkeypatch.setattr(
        module,
        "load_dataset",
        lambda *given, **settings: before(*given, **settings)._replace(load_test=broken),
    )
    with pytest.raises(ConfigError, match=r"toy_TEST\.ts: line 3"):
        run(tmp_path, ONE)


def test_the_script_uses_all_cores_and_reports_mistakes_in_one_line(tmp_path):
    script = PACKAGE.parent / "scripts" / "retrain.py"
    rows = [f"s{n},{'ab'[n % 2]},{n % 2 + t}" for n in range(30) for t in range(3)]
    (tmp_path / "toy.csv").write_text("\n".join(["series,label,x", *rows]) + "\n")
    folder = tmp_path / "run"
    task = f"--task=csv:{tmp_path / 'toy.csv'}"
    small = ["--config.stack.width=8", "--config.recipe.max_epochs=20", "--seeds=2", "--minutes=100"]
    small += ["--config.tuning.learning_rates=(0.01,)", "--config.tuning.batch_sizes=(16,)"]

    def call(*arguments):
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    done = call("--block=elman", task, f"--run_dir={folder}", *small, "--config.tuning.depths=(1,)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("elman on csv:") and (folder / "curves.png").exists()
    sessions = json.loads((folder / "provenance.json").read_text())["sessions"]
    assert sessions[0]["devices"].startswith(f"{parallel.usable_cores()} x ")
    for wrong, message in (
        ("--config.bogus=1", "'bogus' is no key of"),
        ("--config.num_devices=9999", "num_devices is 9999; this host has"),
        ("--task_settings=length", "it must look like length=64"),
    ):
        failed = call("--block=elman", task, f"--run_dir={tmp_path / 'new'}", wrong)
        assert failed.returncode == 2 and message in failed.stderr, failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1 and not (tmp_path / "new").exists()


def test_the_choice_of_settings_stays(toy, tmp_path, monkeypatch):
    """A later session finds less time or more, and tries no other settings."""
    config = config_of(seeds=1, tuning={"depths": (1,), "batch_sizes": (16,), "learning_rates": (1e-2, 3e-2)})
    monkeypatch.setattr(Jobs, "seconds", lambda self: 1e6)  # the second rate is left out
    first = run(tmp_path, config)
    assert json.loads((tmp_path / "plan.json").read_text())["chosen"] == "trial_0"
    monkeypatch.setattr(Jobs, "seconds", lambda self: 0.0)
    more = run(tmp_path, config | {"seeds": 2})
    assert more["valid"][:1] == first["valid"] and more["learning_rate"] == first["learning_rate"] == 1e-2
    assert "trial_1" not in json.loads((tmp_path / "trainings.json").read_text())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainings.json", "[]", "must hold an object of objects"),
        ("trainings.json", "", "is not JSON"),
        ("plan.json", "[]", "plan.json is damaged"),
        ("plan.json", '{"chosen": "trial_9"}', "chose 'trial_9'"),
        ("provenance.json", "[]", "delete it to begin a new one"),
        ("result.json", "[]", "delete it to test again"),
        ("weights/seed_0.npz", "", "Cannot read .*seed_0.npz"),
        ("weights/seed_0.npz", "PK", "Cannot read .*seed_0.npz"),
    ],
)
def test_damaged_files_are_one_line(done, tmp_path, toy, name, text, message):
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    (folder / name).write_text(text)
    if name != "result.json":
        (folder / "result.json").unlink()
    with pytest.raises(RunError, match=message) as error:
        run(folder, ONE)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line(toy, tmp_path, monkeypatch):
    def full(*arguments, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training_jobs.np, "savez", full)
    with pytest.raises(RunError, match=r"Cannot write .*seed_0\.npz: No space left on device"):
        run(tmp_path / "run", ONE)


def test_text_takes_recurrent_blocks_only(monkeypatch, tmp_path):
    words = np.arange(4000, dtype=np.int32) % 5
    data = Dataset("t", True, 5, 5, None, "language", "perplexity", words, words, None, (), "")
    monkeypatch.setattr(module, "load_dataset", lambda name, data_dir, **settings: data)
    with pytest.raises(ConfigError, match="recurrent blocks only"):
        run(tmp_path / "run", block="linear_attention")
    with pytest.raises(ConfigError, match="The text has 20 words; 1 streams of pieces of 35 need 36"):
        monkeypatch.setattr(module, "load_dataset", lambda *_, **__: data._replace(valid=words[:20]))
        run(tmp_path / "run")
    monkeypatch.setattr(module, "load_dataset", lambda *_, **__: data)
    with pytest.raises(ConfigError, match="The text has 4,000 words; 200 streams of pieces of 35 need 7,001"):
        run(tmp_path / "run", config_of(tuning={"batch_sizes": (200,)}))
    with pytest.raises(ConfigError, match=r"stack\.pool='max': there is nothing to pool"):
        run(tmp_path / "run", config_of(stack={"pool": "max"}))
    assert not (tmp_path / "run").exists()


def test_settings_without_effect_are_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"recipe\.carry=False: only a text has pieces"):
        run(tmp_path / "run", config_of(recipe={"carry": False}))


def test_pooling_reaches_the_network(toy):
    dataset = module.load_dataset("toy", None)
    settings = [config_of(stack={"width": 8, "pool": pool}) for pool in ("last", "mean")]
    stacks = [Stacks(KNOWN_BLOCKS["elman"], config, dataset, 1) for config in settings]
    assert [each.stacking(1).pool for each in stacks] == ["last", "mean"]


def test_weights_round_trip(tmp_path):
    params = {"input": {"kernel": np.eye(2, dtype=np.float32)}, "block_0": {"W1": np.arange(3.0)}}
    save_params(tmp_path / "weights" / "one.npz", params)
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path / "weights" / "one.npz"), params)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["one.npz"]
    with pytest.raises(RunError, match=r"Cannot read .*two\.npz"):
        load_params(tmp_path / "weights" / "two.npz")


def test_summaries():
    assert summarise([0.5, 0.7]) == "0.6000 ± 0.1000" and summarise([185.7]) == "185.70"
