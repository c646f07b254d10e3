"""Configs: every mistake is one line that names the key, its value and what is allowed."""

import subprocess
import sys
from pathlib import Path

import jax
import ml_collections
import pytest

from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.experiment.build import build
from elenas_jax.experiment.config import check_config, default_config, default_values
from elenas_jax.experiment.flags import load_recipe
from elenas_jax.experiment.rules import ConfigError, maker_rules
from elenas_jax.strategies import LEARNING, STRATEGIES

ROOT = Path(__file__).parents[2]
RECIPES = [path for path in sorted((ROOT / "configs").glob("*/*.py")) if path.parent.name != "retrain"]

MISTAKES = {
    "a typo": ({"evaluatons": 3}, ["evaluatons", "did you mean 'evaluations'"]),
    "a typo in a section": (
        {"evaluator": {"batchsize": 3}},
        ["evaluator.batchsize", "did you mean 'batch_size'"],
    ),
    "a key of another strategy": (
        {"strategy": {"name": "random_search", "population_size": 8}},
        ["strategy.population_size", "strategy.name='random_search'", "batch_size"],
    ),
    "a typo in a task": (
        {"tasks": {"reber": {"negative": "random"}}},
        ["tasks.reber.negative", "'negatives'"],
    ),
    "an unknown strategy": (
        {"strategy": {"name": "evolutoin"}},
        ["strategy.name='evolutoin'", "'evolution'"],
    ),
    "an unknown evaluator": (
        {"evaluator": {"name": "individal"}},
        ["evaluator.name='individal'", "'individual'", "population"],
    ),
    "a key of another evaluator": (
        {"evaluator": {"epochs": 3}},
        ["evaluator.epochs", "evaluator.name='population'", "learning_rate"],
    ),
    "a population of networks of many shapes": (
        {"ladder": ("cifar10",), "space": {"name": "einspace"}, "evaluator": {"name": "population"}},
        ["evaluator.name='population'", "space.name='einspace'", "'individual'"],
    ),
    "an unknown start": (
        {"strategy": {"name": "evolution", "start": "seeds"}},
        ["strategy.start='seeds'", "sample, starts"],
    ),
    "an unknown space": ({"space": {"name": "darts"}}, ["space.name='darts'", "elenas"]),
    "an unknown task": ({"ladder": ("rebre",)}, ["ladder='rebre'", "'reber'", "adding"]),
    "settings of an unknown task": ({"tasks": {"rebre": {}}}, ["tasks='rebre'", "'reber'"]),
    "a task twice": ({"ladder": ("reber", "reber")}, ["ladder=('reber', 'reber')"]),
    "a name for a ladder": ({"ladder": "reber"}, ["ladder='reber'", "('reber',)"]),
    "no ladder": ({"ladder": ()}, ["ladder=()"]),
    "a string for a number": ({"seed": "1"}, ["seed='1'", "str", "a whole number"]),
    "a fraction for a count": ({"evaluations": 2.5}, ["evaluations=2.5", "a whole number"]),
    "a truth for a number": ({"generations": True}, ["generations=True", "bool"]),
    "a number for a section": ({"evaluator": 3}, ["evaluator=3", "dict"]),
    "a number for a task": ({"tasks": {"reber": 3}}, ["tasks.reber=3", "dict"]),
    "a negative seed": ({"seed": -1}, ["seed=-1", "at least 0"]),
    "zero devices": ({"evaluator": {"num_devices": 0}}, ["evaluator.num_devices=0", "at least 1", "None"]),
    "a learning rate of zero": (
        {"evaluator": {"learning_rate": 0}},
        ["evaluator.learning_rate=0.0", "above 0"],
    ),
    "a learning rate that is no number": (
        {"evaluator": {"learning_rate": float("nan")}},
        ["evaluator.learning_rate=nan", "above 0"],
    ),
    "a budget of zero": ({"evaluator": {"budgets": (1.0, 0.0)}}, ["evaluator.budgets[1]=0.0", "above 0"]),
    "no budget": ({"evaluator": {"budgets": ()}}, ["evaluator.budgets=()", "a tuple of numbers"]),
    "an unknown head": ({"evaluator": {"head": "liner"}}, ["evaluator.head='liner'", "'linear'", "none"]),
    "unknown negatives": (
        {"tasks": {"reber": {"negatives": "near miss"}}},
        ["tasks.reber.negatives='near miss'", "'near_miss'", "random"],
    ),
    "shaping where nothing is shaped": (
        {"space": {"name": "einspace"}, "ladder": ("addnist",), "reward": {"excess": 1.0}},
        ["reward.excess", "space.name='einspace'"],
    ),
    "no trained candidates at all": (
        {"strategy": {"name": "reinforce", "num_trained": -1}},
        ["strategy.num_trained=-1", "at least 0"],
    ),
    "no minibatch": ({"strategy": {"name": "reinforce", "num_minibatches": 0}}, ["num_minibatches=0"]),
    "negative stages": (
        {"strategy": {"name": "reinforce", "generations_per_stage": -1}},
        ["strategy.generations_per_stage=-1", "at least 0"],
    ),
    "negative shaping": ({"reward": {"excess": -1.0}}, ["reward.excess=-1.0", "at least 0"]),
}
# What only makers can see; they are asked before anything is compiled or written.
DEEPER_MISTAKES = {
    "an unknown operation": (
        {"space": {"operations": (("none", "matmul", "addd"), ("identity",))}},
        ["space", "addd", "hadamard"],
    ),
    "more validation than there is": (
        {"tasks": {"reber": {"valid_samples": 3}}},
        ["valid_samples", "3", "32"],
    ),
    "an epoch without a batch": ({"tasks": {"reber": {"train_samples": 3}}}, ["train_samples=3", "32"]),
    "heads that do not divide the width": (
        {"strategy": {"name": "ppo", "num_heads": 3}},
        ["width (256)", "num_heads (3)"],
    ),
    "one budget for successive halving": (
        {"strategy": {"name": "successive_halving"}},
        ["strategy", "evaluator.budgets has length 1", "2 or more"],
    ),
    "starts of a space without any": (
        {"strategy": {"name": "evolution", "start": "starts"}},
        ["strategy", "space elenas was made without any"],
    ),
    "arrays without a path": (
        {"ladder": ("npy",), "space": {"name": "einspace"}},
        ["tasks.npy: npy: path is empty; it must be a folder of .npy files or an .npz file."],
    ),
    "arrays that are not there": (
        {"ladder": ("npy",), "tasks": {"npy": {"path": "nowhere"}}, "space": {"name": "einspace"}},
        ["tasks.npy: nowhere/train_x.npy: no such file"],
    ),
    "images of different numbers of classes": (
        {"ladder": ("cifar10", "cifar100"), "space": {"name": "einspace"}},
        ["ladder: outputs of cifar100 are 100, of cifar10 10", "space.name='einspace'"],
    ),
    "grading out of range": ({"reward": {"grading": 2.0}}, ["reward", "grading", "2.0"]),
}


def one_line(error: pytest.ExceptionInfo, words: list[str]) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    given, words = MISTAKES[mistake]
    with pytest.raises(ConfigError) as error:
        check_config(given)
    one_line(error, words)


@pytest.mark.parametrize("mistake", DEEPER_MISTAKES)
def test_deeper_mistakes(mistake):
    given, words = DEEPER_MISTAKES[mistake]
    with pytest.raises(ConfigError) as error:
        build(check_config(given), MemoryCache())
    one_line(error, words)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_defaults_are_whole_and_stable(strategy):
    given = {"strategy": {"name": strategy}}
    if strategy == "successive_halving":
        given["evaluator"] = {"budgets": (0.5, 1.0)}
    config = default_config(**given)
    resolved = check_config(config)
    assert check_config(resolved) == resolved == check_config(given)
    own = set(maker_rules(STRATEGIES[strategy], ("space", "reward_fn", "initial_params", "num_budgets")))
    own |= {"pretrained"} if strategy in LEARNING else set()
    assert set(resolved["strategy"]) == {"name", *own}
    experiment = build(resolved, MemoryCache())
    assert experiment.evaluator.task_names == ("reber", "embedded_reber", "adding")


def test_given_values_arrive():
    given = {
        "ladder": ["adding"],
        "tasks": {"adding": {"steps": 10, "length": 8}, "reber": {"steps": 3}},
        "evaluator": {"num_devices": 2, "learning_rate": 1, "budgets": [0.5, 1]},
    }
    resolved = check_config(given)
    assert resolved["ladder"] == ("adding",) and set(resolved["tasks"]) == {"adding"}
    assert resolved["tasks"]["adding"]["steps"] == 10 and resolved["tasks"]["adding"]["length"] == 8
    assert resolved["evaluator"]["budgets"] == (0.5, 1.0)
    assert isinstance(resolved["evaluator"]["learning_rate"], float)


def test_a_parent_and_changes():
    parent = default_config(seed=3, strategy={"name": "random_search", "batch_size": 5})
    config = default_config(parent, strategy={"name": "evolution"}, minutes=1)
    assert config.seed == 3 and config.minutes == 1.0
    assert config.strategy.name == "evolution" and config.strategy.batch_size == 16
    assert isinstance(config.evaluator, ml_collections.ConfigDict) and config.evaluator.num_devices is None
    config.evaluator.num_devices = 2  # what has no value yet has a type
    with pytest.raises(TypeError):
        config.evaluator.num_devices = "two"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_can_be_built(path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    config = load_recipe(str(path))
    experiment = build(check_config(config), MemoryCache())
    assert jax.tree.leaves(jax.eval_shape(experiment.strategy.init, jax.random.key(0)))
    text = path.read_text()
    assert f"--config=configs/{path.parent.name}/{path.name}" in text  # says how to run it


def test_signatures_become_rules():
    def make(
        space,
        *,
        count: int = 1,
        rate: float | None = None,
        names: tuple[str, ...] = ("a",),
        odds: dict[str, float] | None = None,
        **more,
    ):
        pass

    rules = maker_rules(make, ("space",), {"count": {"low": 1}})
    assert rules["count"].kinds == (int,) and rules["count"].low == 1
    assert rules["rate"].kinds == (float,) and rules["rate"].optional
    assert rules["names"].kinds == (tuple,) and rules["names"].items is str
    assert rules["odds"].kinds == (dict,) and rules["odds"].optional
    assert "more" not in rules


RECIPE = """
from elenas_jax.experiment.config import default_config
def get_config():
    return default_config({arguments})
"""
COMMANDS = {
    "no such recipe": (["--config={folder}/recpe.py"], ["recpe.py", "no such file"]),
    "an unknown key": (["--config={recipe}", "--config.sed=3"], ["--config.sed", "'seed'"]),
    "an unknown key in a section": (
        ["--config={recipe}", "--config.evaluator.heads=3"],
        ["'heads'", "'head'"],
    ),
    "a wrong type": (["--config={recipe}", "--config.seed=abc"], ["config.seed=abc"]),
    "out of range": (
        ["--config={recipe}", "--config.evaluator.num_devices=0"],
        ["num_devices=0", "at least 1"],
    ),
    "a typo in the recipe": (["--config={typo}"], ["typo.py", "sede", "'seed'"]),
    "an error in the recipe": (["--config={broken}"], ["broken.py line 4", "NameError"]),
    "an unknown flag": (["--config={recipe}", "--run_dri=x"], ["run_dri"]),
    "a stray word": (["--config={recipe}", "resume"], ["'resume'"]),
    "bad seeds": (["--config={recipe}", "--seeds=0-4"], ["--seeds=0-4", "0..4"]),
    "no config": ([], ["--config"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_mistakes_on_the_command_line(name, tmp_path):
    """As a user meets them: one line on standard error, code 2, and nothing written."""
    arguments, words = COMMANDS[name]
    files = {"recipe": "seed=0", "typo": "sede=0", "broken": "nothing"}
    for stem, text in files.items():
        (tmp_path / f"{stem}.py").write_text(RECIPE.format(arguments=text))
    paths = {stem: tmp_path / f"{stem}.py" for stem in files}
    command = [sys.executable, str(ROOT / "scripts" / "search.py"), f"--run_dir={tmp_path / 'run'}"]
    command += [argument.format(folder=tmp_path, **paths) for argument in arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), (
        done.stderr
    )
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "run").exists()


def test_configs_of_einspace_from_before_may_have_shaping_at_its_defaults():
    given = {"space": {"name": "einspace"}, "ladder": ("addnist",)}
    old = check_config(given | {"reward": {"excess": 0.001, "unused_nodes": 0.0, "invalid": 0.1}})
    assert old == check_config(given | {"reward": {"invalid": 0.1}}) and "excess" not in old["reward"]
    assert default_values(old)["reward.excess"] == 0.001
