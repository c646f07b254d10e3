"""Configs: which keys there are, what they may be, and what they are where nothing is said.

Sections `space`, `strategy` and `tasks` follow the signatures of what their names stand for: a new
argument of a maker is a new key, with its default, and needs no line here. `check_config` is the
gate before anything is compiled or written.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import ml_collections

from elenas_jax.evaluation.executors import AUTO, EXECUTORS
from elenas_jax.evaluation.recipes import OPTIMISERS, SCHEDULES, Recipe
from elenas_jax.experiment.rules import ConfigError, Rule, check_keys, check_name, check_section, maker_rules
from elenas_jax.graphs.program import HEADS
from elenas_jax.spaces import SPACES
from elenas_jax.spaces.elenas_shaping import ShapingWeights
from elenas_jax.strategies import STRATEGIES
from elenas_jax.strategies.rewards import make_reward
from elenas_jax.tasks import TASKS, make_task
from elenas_jax.types import Task

RUN: dict[str, Rule] = {
    "seed": Rule(0, (int,), low=0, high=2**32 - 1),
    "generations": Rule(0, (int,), low=0),  # limits: the first that is reached ends the run; 0 is no limit
    "evaluations": Rule(0, (int,), low=0),  # trainings
    "minutes": Rule(0.0, (float,), low=0),  # over all sessions; looked at after each generation
    "tensorboard": Rule(False, (bool,)),
    "compilation_cache": Rule("default", (str,)),  # a folder; "default" is in the user's cache, "off" is none
}
EVALUATOR: dict[str, Rule] = {
    "head": Rule("linear", (str,), choices=tuple(HEADS)),
    "hidden_features": Rule(64, (int,), low=1),
    "batch_size": Rule(32, (int,), low=1),
    "learning_rate": Rule(1e-3, (float,), above=0),
    "budgets": Rule((1.0,), (tuple,), above=0, items=float),  # rungs, as shares of the steps of each task
    "candidates_per_device": Rule(8, (int,), low=1),
    "num_devices": Rule(None, (int,), low=1, optional=True),  # None: all
    "executor": Rule(AUTO, (str,), choices=EXECUTORS),
    "memory_gib": Rule(0.0, (float,), low=0),  # for trainings; 0 is four fifths of what there is
    # Look evaluations up instead of training: name or path of a table, see scripts/make_table.py.
    "table": Rule("", (str,)),
}
_RECIPE: dict[str, dict[str, Any]] = {
    "optimiser": dict(choices=OPTIMISERS),
    "learning_rate": dict(above=0),
    "momentum": dict(low=0),
    "weight_decay": dict(low=0),
    "schedule": dict(choices=SCHEDULES),
    "batch_size": dict(low=1),
    "epochs": dict(low=1),
    "patience": dict(low=0),
}
INDIVIDUAL: dict[str, Rule] = {
    **{
        name: Rule(default, (type(default),), **_RECIPE[name])
        for name, default in Recipe._field_defaults.items()
    },
    "eval_epochs": Rule(64, (int,), low=1),  # of scripts/retrain_best.py, on training and validation data
    "budgets": Rule((1.0,), (tuple,), above=0, items=float),  # rungs, as multiples of the epochs
    "workers": Rule(0, (int,), low=0),  # processes that train; 0 trains in the one that searches
    "memory_gib": Rule(8.0, (float,), above=0),  # of a candidate
    "max_seconds": Rule(0.0, (float,), low=0),  # of a candidate; 0 is no limit
}
# Keys of the section by `evaluator.name`. Networks of one shape are trained as a population.
POPULATION_NAME, INDIVIDUAL_NAME = "population", "individual"
EVALUATORS = {POPULATION_NAME: EVALUATOR, INDIVIDUAL_NAME: INDIVIDUAL}
_POPULATION_SPACES = ("elenas",)  # others are evaluated individually if nothing is said
SHAPING: dict[str, Rule] = {
    name: Rule(default, (float,), low=0) for name, default in ShapingWeights._field_defaults.items()
}
# No result depends on these, so a run may go on with others.
FREE_KEYS = (
    "generations",
    "evaluations",
    "minutes",
    "tensorboard",
    "compilation_cache",
    "evaluator.num_devices",
    "evaluator.workers",
    "evaluator.eval_epochs",
)
DEFAULT_LADDER = ("reber", "embedded_reber", "adding")

# Arguments of makers that `build` hands in, so they are no keys; those of the evaluator's section only where
# it has them.
SPACE_HANDED_IN = ("signatures", "in_shape", "out_features", "shaping", "threshold", "status_fn")
SPACE_FROM_EVALUATOR = ("head", "hidden_features")
PRETRAINED = "pretrained"  # key of strategies that learn a policy
LIMIT = "max_parameters"  # key of spaces, which the evaluator keeps to as well
STRATEGY_HANDED_IN = ("space", "reward_fn", "initial_params", "num_budgets")
# Bounds of arguments by their names; what else there is to check, makers check themselves.
_BOUNDS: dict[str, dict[str, Any]] = {
    "negatives": dict(choices=("random", "near_miss")),
    "order": dict(choices=("subgraphs", "random")),
    "length": dict(low=1),
    "train_samples": dict(low=1),
    "valid_samples": dict(low=1),
    "num_nodes": dict(low=3, high=1024),
    "max_draws": dict(low=1),
    "most_changes": dict(low=1),
    LIMIT: dict(low=0),
    "batch_size": dict(low=1),
    "population_size": dict(low=1),
    "tournament_size": dict(low=1),
    "num_candidates": dict(low=2),
    "eta": dict(low=2),
    "learning_rate": dict(above=0),
    "num_trained": dict(low=0),
    "num_minibatches": dict(low=1),
    "num_elites": dict(low=0),
    "imitation_weight": dict(low=0),
    "generations_per_stage": dict(low=0),
    "width": dict(low=1),
    "num_rounds": dict(low=0),
    "num_layers": dict(low=1),
    "num_heads": dict(low=1),
    "max_gradient_norm": dict(low=0),
}
_TASK_SCORES = ("threshold", "untrained", "weight")
_TASK_FIELDS = ("train_samples", "valid_samples", *_TASK_SCORES)
_SECTIONS = ("space", "strategy", "reward", "tasks", "evaluator")


def default_config(
    parent: Mapping[str, Any] | ml_collections.ConfigDict | None = None, /, **given: Any
) -> ml_collections.ConfigDict:
    """Returns a config with every key there is: those given, those of `parent`, and defaults.

    A recipe is one call of this; a section is a dict, and replaces the parent's as a whole.

    Raises:
      ConfigError: as `check_config`.
    """
    resolved = check_config((_as_dict(parent) if parent else {}) | given)
    rules = _all_rules(resolved)

    def as_config(tree: Mapping[str, Any], prefix: str) -> ml_collections.ConfigDict:
        config = ml_collections.ConfigDict()
        for key, value in tree.items():
            rule = rules.get(f"{prefix}{key}")
            if isinstance(value, Mapping):
                config[key] = as_config(value, f"{prefix}{key}.")
            elif value is None and rule and rule.kinds[0] in (bool, int, float, str):
                # A gap with a type, so that a flag knows how to read a value for it.
                config[key] = ml_collections.config_dict.placeholder(rule.kinds[0])
            else:
                config[key] = value
        return config

    return as_config(resolved, "")


def check_config(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns `config` with all defaults filled in, as nested dicts; lists are tuples.

    Settings of tasks that are not in the ladder are checked by name and left out.

    Raises:
      ConfigError: for the first unknown key, unknown name, wrong type or value out of range.
    """
    given = _as_dict(config)
    check_keys("", given, (*RUN, "ladder", *_SECTIONS))
    sections = {section: given.get(section, {}) for section in _SECTIONS}
    for section, values in sections.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section}={values!r}: it is a section of keys, so a dict.")
    ladder = _check_ladder(given.get("ladder", DEFAULT_LADDER))
    space = check_name("space.name", sections["space"].get("name", "elenas"), SPACES)
    strategy = check_name("strategy.name", sections["strategy"].get("name", "reinforce"), STRATEGIES)
    for name in sections["tasks"]:
        check_name("tasks", name, TASKS)
    usual = POPULATION_NAME if space in _POPULATION_SPACES else INDIVIDUAL_NAME
    evaluator = check_name("evaluator.name", sections["evaluator"].get("name", usual), EVALUATORS)
    if evaluator == POPULATION_NAME and space not in _POPULATION_SPACES:
        raise ConfigError(
            f"evaluator.name={evaluator!r} trains networks of one shape; with space.name={space!r} it must be"
            f" {INDIVIDUAL_NAME!r}."
        )
    return {
        **check_section("", {key: value for key, value in given.items() if key in RUN}, RUN),
        "ladder": ladder,
        "space": {
            "name": space,
            **_check_named("space", space, sections["space"], _space_rules(space, evaluator)),
        },
        "strategy": {
            "name": strategy,
            **_check_named("strategy", strategy, sections["strategy"], _strategy_rules(strategy)),
        },
        "reward": check_section(
            "reward.",
            _without_no_shaping(sections["reward"], space),
            _reward_rules(space),
            f" with space.name={space!r}",
        ),
        "tasks": {
            name: check_section(f"tasks.{name}.", sections["tasks"].get(name, {}), _task_rules(name))
            for name in ladder
        },
        "evaluator": {
            "name": evaluator,
            **_check_named("evaluator", evaluator, sections["evaluator"], EVALUATORS[evaluator]),
        },
    }


def default_values(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the defaults of a resolved config by their full keys: what a config of before a key means.

    Weights of shaping are among them, which spaces that shape nothing once had in their configs.
    """
    known = {f"reward.{key}": rule for key, rule in SHAPING.items()} | _all_rules(resolved)
    return {key: rule.default for key, rule in known.items()} | {"evaluator.name": POPULATION_NAME}


def _without_no_shaping(reward: Mapping[str, Any], space: str) -> dict[str, Any]:
    """Leaves out weights of shaping that a space without any once had in its configs, at their defaults."""
    rules = _reward_rules(space)
    return {
        key: value
        for key, value in reward.items()
        if key in rules or key not in SHAPING or value != SHAPING[key].default
    }


def _check_named(
    section: str, name: str, given: Mapping[str, Any], rules: Mapping[str, Rule]
) -> dict[str, Any]:
    settings = {key: value for key, value in given.items() if key != "name"}
    return check_section(f"{section}.", settings, rules, f" with {section}.name={name!r}")


def _check_ladder(ladder: Any) -> tuple[str, ...]:
    if not isinstance(ladder, (tuple, list)) or not ladder:
        raise ConfigError(
            f"ladder={ladder!r}: it must be a tuple of task names, easiest first, such as ('reber',)."
        )
    for name in ladder:
        check_name("ladder", name, TASKS)
    if len(set(ladder)) < len(ladder):
        raise ConfigError(f"ladder={tuple(ladder)!r}: a task stands in it once.")
    return tuple(ladder)


def _space_rules(name: str, evaluator: str) -> dict[str, Rule]:
    handed_in = (*SPACE_HANDED_IN, *(key for key in SPACE_FROM_EVALUATOR if key in EVALUATORS[evaluator]))
    return maker_rules(SPACES[name], handed_in, _BOUNDS)


def _reward_rules(space: str) -> dict[str, Rule]:
    """Returns the rules of rewards; those of shaping where the space shapes."""
    shapes = "shaping" in inspect.signature(SPACES[space]).parameters
    return maker_rules(make_reward, without=("space",)) | (SHAPING if shapes else {})


def _strategy_rules(name: str) -> dict[str, Rule]:
    rules = maker_rules(STRATEGIES[name], STRATEGY_HANDED_IN, _BOUNDS)
    if "initial_params" in inspect.signature(STRATEGIES[name]).parameters:
        # A folder of scripts/pretrain.py; "" starts from scratch.
        rules[PRETRAINED] = Rule("", (str,))
    return rules


def _task_rules(name: str) -> dict[str, Rule]:
    """Rules of `tasks.<name>`: what its maker takes, numbers of its record, and the steps of a training."""
    rules = maker_rules(TASKS[name], (), _BOUNDS)
    if set(_TASK_SCORES) <= rules.keys():
        return rules  # numbers that follow from the files: there is no task without its settings
    task = make_task(name)
    numbers = {field: getattr(task, field) for field in _TASK_FIELDS if field in task._fields}
    rules |= {
        field: Rule(value, (type(value),), **_BOUNDS.get(field, {})) for field, value in numbers.items()
    }
    if isinstance(task, Task):
        # Steps: None is one epoch, train_samples // batch_size. Those of a data set follow from its size.
        rules["steps"] = Rule(None, (int,), low=1, optional=True)
    return rules


def _all_rules(resolved: Mapping[str, Any]) -> dict[str, Rule]:
    """Returns the rules of a resolved config by their full keys."""
    sections = {
        "space": _space_rules(resolved["space"]["name"], resolved["evaluator"]["name"]),
        "strategy": _strategy_rules(resolved["strategy"]["name"]),
        "reward": _reward_rules(resolved["space"]["name"]),
        "evaluator": EVALUATORS[resolved["evaluator"]["name"]],
        **{f"tasks.{name}": _task_rules(name) for name in resolved["ladder"]},
    }
    return RUN | {
        f"{section}.{key}": rule for section, rules in sections.items() for key, rule in rules.items()
    }


def _as_dict(config: Any) -> dict[str, Any]:
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return {key: _as_dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
