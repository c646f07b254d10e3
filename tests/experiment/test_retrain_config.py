"""Configs of retraining: defaults, and one line for every mistake."""

import importlib
from pathlib import Path

import pytest

from elenas_jax.experiment.flags import load_recipe
from elenas_jax.experiment.retrain_config import check_retrain_config, default_retrain_config
from elenas_jax.experiment.rules import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "retrain").glob("*.py"))


def test_defaults_are_filled_in():
    config = check_retrain_config({"task": {"name": "tox21"}})
    assert config["kind"] == "retrain" and config["minutes"] == 5.0 and config["seeds"] == 3
    assert config["task"] == {"name": "tox21", "length": 128, "validation": "leaderboard"}
    assert check_retrain_config(default_retrain_config("tox21")) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    config = load_recipe(str(path))
    config.task.name = "ptb"
    assert check_retrain_config(config)["task"]["name"] == "ptb"
    assert importlib.util.spec_from_file_location("recipe", path)


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "--task=: no such data set; allowed are ptb, tox21"),
        ({"task": {"name": "tox"}}, "--task=tox: no such data set; did you mean 'tox21'?"),
        ({"task": {"name": "csv:"}}, "--task=csv:: no such data set"),
        ({"task": {"name": "ptb:x"}}, "--task=ptb:x: no such data set"),
        ({"task": {"name": "ptb", "length": 3}}, "task.length is no key"),
        ({"task": {"name": "tox21", "length": "long"}}, "task.length='long' is of type str"),
        ({"task": {"name": "ptb"}, "stack": {"dropout": 1.0}}, "stack.dropout=1.0 is out of range"),
        ({"task": {"name": "ptb"}, "tuning": {"depths": (1, 0)}}, "tuning.depths[1]=0 is out of range"),
        ({"task": {"name": "ptb"}, "tuning": {"learning_rates": ()}}, "tuning.learning_rates=() is empty"),
        ({"task": {"name": "ptb"}, "minuets": 3}, "minuets is no key of a config; did you mean 'minutes'?"),
    ],
)
def test_mistakes_are_one_line(given, message):
    with pytest.raises(ConfigError) as error:
        check_retrain_config(given)
    assert message in str(error.value) and "\n" not in str(error.value)
