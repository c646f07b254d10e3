"""From names to objects: the only place that turns a config into what it describes."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from elenas_jax.evaluation.cache import Cache
from elenas_jax.evaluation.individual import Workers, make_individual_evaluator
from elenas_jax.evaluation.individual_trainer import IndividualTrainer
from elenas_jax.evaluation.population import Evaluator, make_population_evaluator
from elenas_jax.evaluation.recipes import Recipe
from elenas_jax.evaluation.tabular import Table, load_table, make_tabular_evaluator
from elenas_jax.experiment.config import INDIVIDUAL_NAME, LIMIT, PRETRAINED, SHAPING, SPACE_FROM_EVALUATOR
from elenas_jax.experiment.loop import Experiment
from elenas_jax.experiment.pretrained import load_params
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import plain
from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.spaces import SPACES
from elenas_jax.spaces.elenas_sampling import operation_codes
from elenas_jax.strategies import LEARNING, STRATEGIES
from elenas_jax.strategies.rewards import make_reward
from elenas_jax.tasks import make_task
from elenas_jax.types import AnyTask, SearchSpace, Strategy, Task

# Keys on which metrics depend, and those on which only the score does, for what a table was made with.
_EVALUATOR_TRAINS = ("head", "hidden_features", "batch_size", "learning_rate")
_TASK_SCORES = ("threshold", "untrained", "weight")
WORKER = (sys.executable, "-m", "elenas_jax.experiment.worker")


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
    return Experiment(config, space, strategy, build_evaluator(config, tasks, cache, space), run_key)


def build_tasks(config: Mapping[str, Any]) -> tuple[AnyTask, ...]:
    """Returns the tasks of the ladder, easiest first."""
    tasks: list[AnyTask] = []
    for name in config["ladder"]:
        settings = {key: value for key, value in config["tasks"][name].items() if key != "steps"}
        with _in_section(f"tasks.{name}"):
            tasks.append(make_task(name, **settings))
    return tuple(tasks)


def build_space(
    config: Mapping[str, Any], tasks: tuple[AnyTask, ...], status_fn: Callable | None = None
) -> SearchSpace:
    """Returns the space; `status_fn` says what is valid where it is known without constructing.

    Of what can be handed in a maker gets what its signature names.
    """
    name = config["space"]["name"]
    settings = {key: value for key, value in config["space"].items() if key != "name"}
    offers: dict[str, Callable[[], Any]] = {
        "signatures": lambda: tuple(
            (task.in_features, task.out_features, task.time_steps)
            for task in _sequence_tasks(tasks, f"space.name={name!r}")
        ),
        "in_shape": lambda: _alike(tasks, "in_shape", "inputs", name),
        "out_features": lambda: _alike(tasks, "out_features", "outputs", name),
        "shaping": lambda: {key: config["reward"][key] for key in SHAPING},
        "threshold": lambda: tasks[0].threshold,
        "status_fn": lambda: status_fn,
    }
    evaluator = config["evaluator"]
    offers |= {key: functools.partial(evaluator.get, key) for key in SPACE_FROM_EVALUATOR if key in evaluator}
    maker: Callable[..., SearchSpace] = SPACES[name]
    taken = inspect.signature(maker).parameters
    with _in_section("space"):
        return maker(**settings, **{key: offers[key]() for key in taken if key in offers})


def build_sequence_tasks(config: Mapping[str, Any]) -> tuple[Task, ...]:
    """As `build_tasks`, for what trains on sequences that are drawn, and on nothing else."""
    return _sequence_tasks(build_tasks(config), f"evaluator.name={config['evaluator']['name']!r}")


def _sequence_tasks(tasks: tuple[AnyTask, ...], who: str) -> tuple[Task, ...]:
    """Returns the tasks if all of them draw sequences."""
    found = tuple(task for task in tasks if isinstance(task, Task))
    for task in tasks:
        if not isinstance(task, Task):
            raise ConfigError(f"ladder={task.name!r} is a data set; {who} takes sequences that are drawn.")
    return found


def _alike(tasks: tuple[AnyTask, ...], field: str, words: str, space: str) -> Any:
    """Returns a field of the tasks of a space whose networks are made for one value of it."""
    first = getattr(tasks[0], field)
    for task in tasks[1:]:
        if getattr(task, field) != first:
            raise ConfigError(
                f"ladder: {words} of {task.name} are {getattr(task, field)}, of {tasks[0].name} {first}; "
                f"with space.name={space!r} they must be alike."
            )
    return first


def training_steps(config: Mapping[str, Any], tasks: tuple[AnyTask, ...]) -> tuple[int, ...]:
    """Returns the steps of a training on each task that draws its examples: of the config, else one epoch."""
    batch_size = config["evaluator"]["batch_size"]
    steps = []
    for task in _sequence_tasks(tasks, f"evaluator.name={config['evaluator']['name']!r}"):
        steps.append(config["tasks"][task.name]["steps"] or task.train_samples // batch_size)
        if not steps[-1]:
            raise ConfigError(
                f"tasks.{task.name}.train_samples={task.train_samples} is out of range; it must be at least "
                f"evaluator.batch_size, which is {batch_size}."
            )
    return tuple(steps)


def build_evaluator(
    config: Mapping[str, Any], tasks: tuple[AnyTask, ...], cache: Cache, space: SearchSpace | None = None
) -> Evaluator:
    """Returns the evaluator; also for blocks that no search found, as the quickstart does.

    Args:
      config: resolved.
      tasks: of `build_tasks`.
      cache: of what was trained before.
      space: of `build_space`; built where it is needed and not given.
    """
    settings = config["evaluator"]
    if settings["name"] == INDIVIDUAL_NAME:
        return _build_individual(config, tasks, cache, space or build_space(config, tasks))
    steps = training_steps(config, tasks)
    sequences = _sequence_tasks(tasks, f"evaluator.name={settings['name']!r}")
    if settings["table"]:
        return make_tabular_evaluator(
            load_matching_table(config),
            sequences,
            steps=steps,
            head=settings["head"],
            hidden_features=settings["hidden_features"],
            cache=cache,
        )
    with _in_section("evaluator"):
        return make_population_evaluator(
            sequences,
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


def build_trainer(
    config: Mapping[str, Any],
    tasks: tuple[AnyTask, ...],
    space: SearchSpace,
) -> IndividualTrainer:
    """Returns what trains candidates one by one, in this process.

    Args:
      config: resolved, of the individual evaluator.
      tasks: of `build_tasks`.
      space: of `build_space`.
    """
    settings = config["evaluator"]
    steps = [training_steps(config, (task,))[0] if isinstance(task, Task) else None for task in tasks]
    with _in_section("evaluator"):
        return IndividualTrainer(
            space.build,
            tasks,
            run_key=jax.random.key(config["seed"]),
            recipe=build_recipe(config),
            steps=steps,
            budgets=settings["budgets"],
            memory=_memory(config),
            max_seconds=settings["max_seconds"],
        )


def build_recipe(config: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of trainings of the individual evaluator."""
    return Recipe(**{name: config["evaluator"][name] for name in Recipe._fields})


def compilation_cache() -> str | None:
    """Returns the folder of the compilation cache of this process, None if it has none."""
    return getattr(jax.config, "jax_compilation_cache_dir", None)


def _memory(config: Mapping[str, Any]) -> int:
    return int(config["evaluator"]["memory_gib"] * 2**30)


def _build_individual(
    config: Mapping[str, Any], tasks: tuple[AnyTask, ...], cache: Cache, space: SearchSpace
) -> Evaluator:
    settings = config["evaluator"]
    workers = None
    if settings["workers"]:
        # They share the compilation cache of this process, if it has one.
        setup = {"config": plain(config), "compilation_cache": compilation_cache()}
        workers = Workers(settings["workers"], WORKER, setup)
    return make_individual_evaluator(
        space,
        build_trainer(config, tasks, space),
        settings={"space": plain(config["space"])},
        memory=_memory(config),
        max_seconds=settings["max_seconds"],
        workers=workers,
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
    trained = tuple(table.config["evaluator"].get("budgets", (1.0,)))
    if trained[0] != 1.0:
        raise ConfigError(f"evaluator.table={name!r} was trained on a part of the steps: budgets {trained}.")
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
    if len(config["space"].get("stages", ())) > 1 and config["strategy"]["name"] not in LEARNING:
        raise ConfigError(
            f"space.stages={tuple(config['space']['stages'])}: {config['strategy']['name']} does not grow "
            f"graphs step by step, so that it has no stages; those with stages: {', '.join(LEARNING)}."
        )
    if PRETRAINED in config["strategy"]:
        settings["initial_params"] = load_params(config)
    if "num_budgets" in inspect.signature(STRATEGIES[config["strategy"]["name"]]).parameters:
        settings["num_budgets"] = len(config["evaluator"]["budgets"])
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
