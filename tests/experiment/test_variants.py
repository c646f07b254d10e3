"""Variants: what a name changes."""

import pytest

from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.variants import MODIFIERS, apply_changes, parse_variant
from elenas_jax.strategies import STRATEGIES

LEARNING = ("reinforce", "ppo")


def parse(name):
    return parse_variant(name, STRATEGIES, LEARNING)


def test_a_strategy_alone_changes_nothing():
    variant = parse("random_search")
    assert (variant.strategy, dict(variant.changes), variant.pretrained) == ("random_search", {}, False)


@pytest.mark.parametrize("modifier", list(MODIFIERS))
def test_every_modifier_makes_a_config_that_can_be_run(modifier):
    variant = parse(f"ppo{modifier}")
    before = check_config({"strategy": {"name": "ppo", "num_elites": 8}})
    after = check_config(apply_changes(before, variant))
    assert (after != before) == (modifier != "+pretrained")
    assert variant.pretrained == (modifier == "+pretrained")


def test_modifiers_add_up():
    changed = apply_changes(check_config({}), parse("reinforce-positions-shaping+masks"))
    assert changed["space"]["positions"] is False and changed["space"]["masks"] is True
    assert changed["reward"]["excess"] == 0.0 and changed["reward"]["invalid"] > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppo-positions-elites", r"-elites changes nothing, as strategy.num_elites is 0"),
        ("ppo-positions+masks", r"\+masks changes nothing, as space.masks is True"),
    ],
)
def test_a_modifier_that_changes_nothing_is_named(name, message):
    config = check_config({"strategy": {"name": "ppo", "num_elites": 0}, "space": {"masks": True}})
    with pytest.raises(ConfigError, match=message):
        apply_changes(config, parse(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annealing", "no strategy"),
        ("ppo+luck", r"unknown '\+luck'"),
        ("evolution+pretrained", "learns no policy"),
        ("ppo+masks+masks", "stands once"),
    ],
)
def test_wrong_names_are_said(name, message):
    with pytest.raises(ConfigError, match=message):
        parse(name)
