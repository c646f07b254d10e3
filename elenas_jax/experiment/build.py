"""From names to objects: the only place that turns a config into what it describes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from elenas_jax.evaluation.cache import Cache
from elenas_jax.evaluation.population import Evaluator, make_population_evaluator
from elenas_jax.evaluation.tabular import Table, load_table, make_tabular_evaluator
from elenas_jax.experiment.config import LIMIT, PRETRAINED, SHAPING
from elenas_jax.experiment.loop import Experiment
from elenas_jax.experiment.pretrained import load_params
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.spaces import SPACES
from elenas_jax.spaces.elenas_sampling import operation_codes
from elenas_jax.strategies import STRATEGIES
from elenas_jax.strategies.rewards import make_reward
from elenas_jax.tasks import make_task
from elenas_jax.types import SearchSpace, Strategy, Task

# Keys on which metrics depend, and those on which only the score does, for what a table was made with.
_EVALUATOR_TRAINS = ("head", "hidden_features", "batch_size", "learning_rate")
_TASK_SCORES = ("threshold", "untrained", "weight")


def build(config: dict[str, Any], cache: Cache) -> Experiment:
    """Returns the objects of a config that `check_config` has resolved.

    Args:
      config: resolved.
      cache: what was trained before; nothing is asked of it here.

    Raises:
      ConfigError: for what only the makers can see, such as bounds that depend on each other.
    """
    run_key = jax.random.key(config["seed"])
    tasks = build_tasks(config)
    space = build_space(config, tasks)
    strategy = build_strategy(config, space)
    return Experiment(config, space, strategy, build_evaluator(config, tasks, cache), run_key)


def build_tasks(config: Mapping[str, Any]) -> tuple[Task, ...]:
    """Returns the tasks of the ladder, easiest first."""
    tasks = []
    for name in config["ladder"]:
        settings = {key: value for key, value in config["tasks"][name].items() if key != "steps"}
        with _in_section(f"tasks.{name}"):
            tasks.append(make_task(name, **settings))
    return tuple(tasks)


def build_space(
    config: Mapping[str, Any], tasks: tuple[Task, ...], status_fn: Callable | None = None
) -> SearchSpace:
    """Returns the space; `status_fn` says what is valid where it is known without constructing."""
    settings = {key: value for key, value in config["space"].items() if key != "name"}
    with _in_section("space"):
        return SPACES[config["space"]["name"]](
            **settings,
            head=config["evaluator"]["head"],
            hidden_features=config["evaluator"]["hidden_features"],
            signatures=tuple((task.in_features, task.out_features, task.time_steps) for task in tasks),
            shaping={name: config["reward"][name] for name in SHAPING},
            threshold=tasks[0].threshold,
            status_fn=status_fn,
        )


def training_steps(config: Mapping[str, Any], tasks: tuple[Task, ...]) -> tuple[int, ...]:
    """Returns the steps of a training on each task: those of the config, else one epoch."""
    batch_size = config["evaluator"]["batch_size"]
    steps = []
    for task in tasks:
        steps.append(config["tasks"][task.name]["steps"] or task.train_samples // batch_size)
        if not steps[-1]:
            raise ConfigError(
                f"tasks.{task.name}.train_samples={task.train_samples} is out of range; it must be at least "
                f"evaluator.batch_size, which is {batch_size}."
            )
    return tuple(steps)


def build_evaluator(config: Mapping[str, Any], tasks: tuple[Task, ...], cache: Cache) -> Evaluator:
    """Returns the evaluator; also for blocks that no search found, as the quickstart does."""
    settings = config["evaluator"]
    steps = training_steps(config, tasks)
    if settings["table"]:
        return make_tabular_evaluator(
            load_matching_table(config),
            tasks,
            steps=steps,
            head=settings["head"],
            hidden_features=settings["hidden_features"],
            cache=cache,
        )
    with _in_section("evaluator"):
        return make_population_evaluator(
            tasks,
            run_key=jax.random.key(config["seed"]),
            steps=steps,
            head=settings["head"],
            hidden_features=settings["hidden_features"],
            batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            budgets=settings["budgets"],
            candidates_per_device=settings["candidates_per_device"],
            num_devices=settings["num_devices"] or 0,
            executor=settings["executor"],
            memory_gib=settings["memory_gib"],
            max_parameters=config["space"].get(LIMIT, 0),
            cache=cache,
        )


def load_matching_table(config: Mapping[str, Any]) -> Table:
    """Returns the table of `evaluator.table`.

    Raises:
      ConfigError: if there is none, or it is of another space or ladder: the first key that differs.
    """
    name = config["evaluator"]["table"]
    if limit := config["space"].get(LIMIT, 0):
        raise ConfigError(f"space.{LIMIT}={limit}: with a table (evaluator.table) it must be 0.")
    with _in_section("evaluator.table"):
        table = load_table(name)
    try:
        theirs = _what_is_trained(table.config)
    except KeyError as error:
        raise ConfigError(f"evaluator.table={name!r}: its config lacks {error}.") from error
    for key, ours in _what_is_trained(config).items():
        if ours != theirs.get(key):
            raise ConfigError(
                f"evaluator.table={name!r} was made with {key} {theirs.get(key)!r}, not {ours!r}."
            )
    if config["evaluator"]["budgets"] != (1.0,):
        raise ConfigError(
            f"evaluator.budgets={config['evaluator']['budgets']}: evaluator.table={name!r} has (1.0,) alone."
        )
    return table


def _what_is_trained(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what metrics in a table depend on, by key; what scores are made of them with is left out."""
    combining, transforming = operation_codes(config["space"]["operations"])
    found = {
        "ladder": tuple(config["ladder"]),
        "space.name": config["space"]["name"],
        "space.num_nodes": config["space"]["num_nodes"],
        "space.operations": (
            tuple(COMBINING[code].name for code in combining),
            tuple(TRANSFORMING[code].name for code in transforming),
        ),
    }
    found |= {f"evaluator.{key}": config["evaluator"][key] for key in _EVALUATOR_TRAINS}
    for name in config["ladder"]:
        settings = config["tasks"][name].items()
        found |= {f"tasks.{name}.{key}": value for key, value in settings if key not in _TASK_SCORES}
    return found


def build_strategy(config: Mapping[str, Any], space: SearchSpace) -> Strategy:
    """Returns the strategy; one that learns a policy starts from `strategy.pretrained` if that is set."""
    settings = {key: value for key, value in config["strategy"].items() if key not in ("name", PRETRAINED)}
    if PRETRAINED in config["strategy"]:
        settings["initial_params"] = load_params(config)
    reward = {name: value for name, value in config["reward"].items() if name not in SHAPING}
    with _in_section("reward"):
        reward_fn = make_reward(space, **reward)
    with _in_section("strategy"):
        return STRATEGIES[config["strategy"]["name"]](space, reward_fn=reward_fn, **settings)


@contextlib.contextmanager
def _in_section(name: str) -> Iterator[None]:
    """Makes what a maker says about its arguments an error of the config."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
