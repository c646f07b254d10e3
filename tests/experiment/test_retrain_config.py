"""Configs of retraining: defaults, and one line for every mistake."""

from pathlib import Path

import pytest

from elenas_jax.experiment.flags import load_recipe
from elenas_jax.experiment.retrain_config import (
    changed_settings,
    changed_task_settings,
    check_retrain_config,
    default_retrain_config,
)
from elenas_jax.experiment.rules import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "retrain").glob("*.py"))


def test_defaults_are_filled_in():
    config = check_retrain_config({}, "tox21")
    assert config["kind"] == "retrain" and config["minutes"] == 5.0 and config["seeds"] == 3
    assert config["task"] == {"name": "tox21", "length": 128, "validation": "leaderboard"}
    assert check_retrain_config(default_retrain_config(), "tox21") == config
    given = check_retrain_config({}, "tox21", {"length": "64", "validation": "fold"})
    assert given["task"] == {"name": "tox21", "length": 64, "validation": "fold"}


def test_what_was_changed_is_told():
    config = check_retrain_config(
        {"minutes": 7.0, "seeds": 2, "num_devices": 1, "stack": {"width": 8}}, "tox21"
    )
    assert changed_settings(config) == {"minutes": 7.0, "seeds": 2, "stack.width": 8}
    assert changed_settings(config | {"block": {"name": "x"}}) == changed_settings(config)
    assert changed_task_settings(config) == {}
    given = check_retrain_config({}, "tox21", {"length": "64"})
    assert changed_task_settings(given) == {"length": 64} and changed_settings(given) == {}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    assert check_retrain_config(load_recipe(str(path)), "ptb")["task"] == {"name": "ptb", "level": "word"}


@pytest.mark.parametrize(
    "task, settings, given, message",
    [
        ("", {}, {}, "--task=: no such data set; allowed are ptb, tox21"),
        ("tox", {}, {}, "--task=tox: no such data set; did you mean 'tox21'?"),
        ("csv:", {}, {}, "--task=csv:: no such data set"),
        ("ptb:x", {}, {}, "--task=ptb:x: no such data set"),
        ("ptb", {"length": "3"}, {}, "task_settings.length is no key"),
        ("tox21", {"length": "long"}, {}, "task_settings.length='long' is of type str"),
        ("ptb", {}, {"stack": {"dropout": 1.0}}, "stack.dropout=1.0 is out of range"),
        ("ptb", {}, {"tuning": {"depths": (1, 0)}}, "tuning.depths[1]=0 is out of range"),
        ("ptb", {}, {"tuning": {"learning_rates": ()}}, "tuning.learning_rates=() is empty"),
        ("ptb", {}, {"minuets": 3}, "minuets is no key of a config; did you mean 'minutes'?"),
    ],
)
def test_mistakes_are_one_line(task, settings, given, message):
    with pytest.raises(ConfigError) as error:
        check_retrain_config(given, task, settings)
    assert message in str(error.value) and "\n" not in str(error.value)
