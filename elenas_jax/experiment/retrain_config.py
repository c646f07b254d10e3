"""Configs of retraining: which keys there are and what they may be."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from elenas_jax.evaluation.stacked import POOLS
from elenas_jax.experiment.rules import ConfigError, Rule, check_keys, check_section, maker_rules, suggestion
from elenas_jax.experiment.run_dir import flatten
from elenas_jax.tasks.datasets import DATASETS

KIND = "retrain"  # in config.json, which tells these folders from those of searches

RUN: dict[str, Rule] = {
    "minutes": Rule(5.0, (float,), above=0),  # for tuning and training; measuring and compiling count
    "seeds": Rule(3, (int,), low=1),  # trainings with the settings that tuning has found
    "seed": Rule(0, (int,), low=0, high=2**31 - 1),
    "num_devices": Rule(None, (int,), low=1, optional=True),  # None: all; trainings run side by side on them
    "compilation_cache": Rule("default", (str,)),  # as in searches
}
STACK: dict[str, Rule] = {
    "width": Rule(64, (int,), low=1),
    "max_parameters": Rule(0, (int,), low=0),  # above 0: the largest width with at most so many, at any depth
    "dropout": Rule(0.0, (float,), low=0, high=0.95),
    "norm": Rule(True, (bool,)),
    "residual": Rule(True, (bool,)),
    "pool": Rule("last", (str,), choices=POOLS),  # the steps that a classifier reads
}
RECIPE: dict[str, Rule] = {
    "weight_decay": Rule(0.0, (float,), low=0),
    "clip": Rule(1.0, (float,), above=0),
    "bptt": Rule(35, (int,), low=2),  # words of a piece of text
    "carry": Rule(True, (bool,)),  # whether a piece goes on from the state that the one before left
    "max_epochs": Rule(100.0, (float,), above=0),  # a training takes no more, whatever the time
    "evaluations": Rule(
        10, (int,), low=1
    ),  # on validation data during a training; the best one's weights stay
}
TUNING: dict[str, Rule] = {
    # Learning rates are tried at the first depth and batch size, then the others at the best of them.
    "depths": Rule((1, 2), (tuple,), low=1, items=int),
    "batch_sizes": Rule((64, 32), (tuple,), low=1, items=int),
    "learning_rates": Rule((3e-3, 1e-2, 1e-3), (tuple,), above=0, items=float),
    "share": Rule(0.4, (float,), above=0, high=0.9),  # of the time
}
_SECTIONS = {"stack": STACK, "recipe": RECIPE, "tuning": TUNING}
# No training depends on these.
FREE_KEYS = ("seeds", "num_devices", "compilation_cache")


def default_retrain_config(**given: Any) -> ml_collections.ConfigDict:
    """Returns a config with every key there is: those given, sections as dicts, and defaults."""
    config = ml_collections.ConfigDict()
    for key, rule in RUN.items():
        value = given.get(key, rule.default)
        config[key] = ml_collections.config_dict.placeholder(int) if value is None else value
    for section, rules in _SECTIONS.items():
        config[section] = check_section(f"{section}.", given.get(section, {}), rules)
    return config


def check_retrain_config(
    config: Mapping[str, Any] | ml_collections.ConfigDict,
    task: str,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns `config` with all defaults filled in, as nested dicts.

    Args:
      config: keys at the top and sections.
      task: name of a data set, see `DATASETS`.
      settings: of its loader, as text.

    Raises:
      ConfigError: for the first unknown key, unknown task, wrong type or value out of range.
    """
    given = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    check_keys("", given, (*RUN, *_SECTIONS))
    top = check_section("", {key: value for key, value in given.items() if key in RUN}, RUN)
    sections = {
        name: check_section(f"{name}.", given.get(name, {}), rules) for name, rules in _SECTIONS.items()
    }
    return {"kind": KIND, **top, **sections, "task": _check_task(task, settings or {})}


def _check_task(name: str, settings: Mapping[str, str]) -> dict[str, Any]:
    usages = {usage.partition(":")[0]: usage for usage in DATASETS}
    kind, _, path = name.partition(":")
    if kind not in usages or (":" in usages[kind]) != bool(path):
        raise ConfigError(f"--task={name}: no such data set{suggestion(name, DATASETS)}.")
    rules = maker_rules(DATASETS[usages[kind]])
    rules.pop(next(iter(rules)))  # the folder or the path
    typed = {key: int(text) if text.isdecimal() else text for key, text in settings.items()}
    return {"name": name, **check_section("task_settings.", typed, rules, f" with task {name!r}")}


def changed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a resolved config is not as it is by default, by full key.

    Left out are the task, see `changed_task_settings`, and what no training depends on but their number.
    """
    default = {key: rule.default for key, rule in RUN.items() if key in ("minutes", "seeds", "seed")}
    for section, rules in _SECTIONS.items():
        default |= {f"{section}.{key}": rule.default for key, rule in rules.items()}
    given = flatten(config)
    return {key: given[key] for key, value in default.items() if given[key] != value}


def changed_task_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a resolved config's data set that are not as they are by default."""
    default = _check_task(config["task"]["name"], {})
    return {key: value for key, value in config["task"].items() if value != default[key]}
