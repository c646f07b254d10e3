"""Retraining: a block is stacked, tuned on validation data, trained on some seeds, and tested once.

The run folder holds config.json, provenance.json, trainings.json (settings, steps, curve and validation
metric of every training), plan.json, weights/ (of the best evaluation of each) and at the end result.json,
which alone holds test metrics. Test data are read after the last training has ended, by `_test` and nobody
else.
"""

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.retraining import (
    Recipe,
    Trainer,
    interface_of,
    make_trainer,
    steps_per_epoch,
    streams_of,
)
from elenas_jax.evaluation.stacked import Stacking, make_stack, widest
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.retrain_config import FREE_KEYS
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import prepare, stopping
from elenas_jax.experiment.training_jobs import Job, Jobs, load_params, summarise
from elenas_jax.graphs import ComputationGraph, equations
from elenas_jax.spaces.elenas import to_json
from elenas_jax.tasks.datasets import load_dataset
from elenas_jax.tasks.records import DataError, Dataset


def retrain(
    name: str,
    graph: ComputationGraph,
    config: dict[str, Any],
    path: Path,
    *,
    data_dir: str | None,
    console: Console,
) -> dict[str, Any] | None:
    """Retrains a block in a run folder, or goes on with it.

    Args:
      name: of the block, for people.
      graph: the block.
      config: from `check_retrain_config`.
      path: of the run folder: new, empty, or of the same block and config.
      data_dir: see `load_dataset`.
      console: where to say what happens.

    Returns:
      What result.json holds, or None if it was stopped.

    Raises:
      ConfigError: for a block or data that cannot be used; nothing was written.
      RunError: if the folder cannot be used.
    """
    run = files.run_dir(path)
    kept = config | {"block": {"name": name, "graph": to_json(graph), "equations": equations(graph)}}
    done = run.path / "result.json"
    if files.check_same_config(run, kept, FREE_KEYS) and done.exists():
        result = files.read_json(done)
        if result["seeds"] == config["seeds"]:
            console.print(f"Nothing to do: {done} is there.", soft_wrap=True)
            return result
    prepare(config | {"evaluator": {"num_devices": config["num_devices"]}}, console)
    dataset = _load(config, data_dir)
    stacks = _Stacks(graph, config, dataset)
    for depth in config["tuning"]["depths"]:
        stacks.check(depth)
    console.print(dataset.note, soft_wrap=True)
    with files.locked(run):
        files.check_same_config(run, kept, FREE_KEYS)
        files.write_json(run.config, kept)
        sessions = files.read_json(run.provenance)["sessions"] if run.provenance.exists() else []
        sessions.append(files.session(parallel.describe_devices(stacks.devices)))
        files.write_json(run.provenance, {"seed": config["seed"], "sessions": sessions})

        def stop_asked() -> None:
            console.print("stopping; what was trained is kept; Ctrl-C again to stop at once")

        with stopping(stop_asked) as stop_requested:
            jobs = Jobs(run.path, functools.partial(console.print, soft_wrap=True), stop_requested)
            best = _tune(jobs, stacks, console)
            seeds = best and jobs.run(
                _seed_jobs(stacks, best, jobs.seconds()), stacks.trainer, dataset, stacks.devices
            )
        if not seeds:
            return None
        result = _test(jobs, seeds, stacks, dataset, kept)
        files.write_json(done, result)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return result


def _load(config: Mapping[str, Any], data_dir: str | None) -> Dataset:
    settings = dict(config["task"])
    try:
        return load_dataset(settings.pop("name"), data_dir, **settings)
    except DataError as error:
        raise ConfigError(str(error)) from error


class _Stacks:
    """Networks and trainers of one block and one data set."""

    def __init__(self, graph: ComputationGraph, config: Mapping[str, Any], dataset: Dataset) -> None:
        self.graph, self.config, self.dataset = graph, config, dataset
        self.interface = interface_of(dataset, config["recipe"]["bptt"])
        self.devices = parallel.count_devices(config["num_devices"] or 0)

    def check(self, depth: int) -> None:
        """Raises ConfigError for a block that cannot be stacked like this."""
        try:
            network = make_stack(self.graph, self.stacking(depth), self.interface)
            if self.dataset.time_steps is None:
                if not jax.tree.leaves(_states(network, self.interface)):
                    raise ValueError(
                        "Language modelling takes recurrent blocks only: this one sees the whole sequence, "
                        "the word that it is to predict included."
                    )
                for size in self.config["tuning"]["batch_sizes"]:
                    streams_of(np.asarray(self.dataset.train), size, self.interface.time_steps)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @functools.cache  # noqa: B019 (lives as long as the session)
    def stacking(self, depth: int) -> Stacking:
        stack = self.config["stack"]
        stacking = Stacking(depth, stack["width"], stack["dropout"], stack["norm"], stack["residual"])
        if stack["max_parameters"]:
            width = widest(self.graph, stacking, self.interface, stack["max_parameters"])
            stacking = stacking._replace(width=width)
        return stacking

    def recipe(self, batch_size: int) -> Recipe:
        recipe = self.config["recipe"]
        return Recipe(batch_size, recipe["weight_decay"], recipe["clip"], recipe["bptt"])

    def most_steps(self, batch_size: int) -> int:
        epoch = steps_per_epoch(self.dataset, self.recipe(batch_size))
        return max(1, round(self.config["recipe"]["max_epochs"] * epoch))

    def trainer(self, job: Job, device: int) -> Trainer:
        return self._trainer(job.depth, job.batch_size, device)

    @functools.cache  # noqa: B019
    def _trainer(self, depth: int, batch_size: int, device: int) -> Trainer:
        network = make_stack(self.graph, self.stacking(depth), self.interface)
        return make_trainer(network, self.dataset, self.recipe(batch_size), device)


def _states(network: Any, interface: Any) -> Any:
    """Returns shapes of what the blocks carry from one piece of text to the next."""
    inputs = np.zeros((1, interface.time_steps), np.int32)

    def states(key):
        params, nothing = network.init(key)
        return network.apply(params, nothing, inputs)[1]

    return jax.eval_shape(states, jax.random.key(0))


def _tune(jobs: Jobs, stacks: _Stacks, console: Console) -> dict[str, Any] | None:
    """Returns the record of the best trial, or None if it was stopped.

    Raises:
      ConfigError: if every trial diverged.
    """
    tuning, recipe = stacks.config["tuning"], stacks.config["recipe"]
    depths, sizes, rates = tuning["depths"], tuning["batch_sizes"], tuning["learning_rates"]
    others = [(depth, sizes[0]) for depth in depths[1:]] + [(depths[0], size) for size in sizes[1:]]
    if len(rates) + len(others) == 1:
        return {"depth": depths[0], "batch_size": sizes[0], "learning_rate": rates[0]}
    waves = sum(-(-count // stacks.devices) for count in (len(rates), len(others)))
    seconds = 60 * stacks.config["minutes"] * tuning["share"] / waves
    tried: list[dict[str, Any]] = []

    def run(settings: list[tuple[int, int, float]]) -> dict[str, Any] | None:
        trials = [
            Job(
                f"trial_{len(tried) + place}",
                depth,
                size,
                rate,
                # The seed of the trials is none of those that are trained and tested.
                stacks.config["seed"],
                seconds,
                max(1, recipe["evaluations"] // 2),
                stacks.most_steps(size),
            )
            for place, (depth, size, rate) in enumerate(settings)
        ]
        for trial in trials:
            console.print(f"{trial.name}: {trial.described()}")
        records = jobs.run(trials, stacks.trainer, stacks.dataset, stacks.devices)
        if records is None:
            return None
        tried.extend(records)
        better = stacks.trainer(trials[0], 0).is_better
        best = tried[0]
        for each in tried[1:]:
            best = each if better(_number(each["valid"]), _number(best["valid"])) else best
        return best

    best = run([(depths[0], sizes[0], rate) for rate in rates])
    if best and others:
        best = run([(depth, size, best["learning_rate"]) for depth, size in others])
    if best and best["valid"] is None:
        raise ConfigError("Every trial diverged; try smaller tuning.learning_rates, or stack.norm=True.")
    return best


def _seed_jobs(stacks: _Stacks, best: Mapping[str, Any], spent: float) -> list[Job]:
    """Returns the trainings that share what is left of the time."""
    config = stacks.config
    seconds = (60 * config["minutes"] - spent) / -(-config["seeds"] // stacks.devices)
    settings = (best["depth"], best["batch_size"], best["learning_rate"])
    most = stacks.most_steps(best["batch_size"])
    return [
        Job(f"seed_{n}", *settings, config["seed"] + 1 + n, seconds, config["recipe"]["evaluations"], most)
        for n in range(config["seeds"])
    ]


def _test(
    jobs: Jobs, seeds: list[dict[str, Any]], stacks: _Stacks, dataset: Dataset, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Measures every seed's best weights on test data, which nothing has read before."""
    test = dataset.load_test()
    place = {name: seeds[0][name] for name in ("depth", "batch_size")}
    trainer = stacks._trainer(place["depth"], place["batch_size"], 0)
    found = [trainer.measure(load_params(jobs.weights(each["name"])), test) for each in seeds]
    valid = [_number(each["valid"]) for each in seeds]
    stacking = stacks.stacking(place["depth"])
    return {
        "block": kept["block"],
        "task": kept["task"],
        "data": dataset.note,
        "metric": dataset.metric,
        "parameters": seeds[0]["parameters"],
        **place,
        "learning_rate": seeds[0]["learning_rate"],
        "width": stacking.width,
        "steps": [each["steps"] for each in seeds],
        "minutes": kept["minutes"],
        "valid": valid,
        "test": found,
        "seeds": len(seeds),
    }


def _number(value: float | None) -> float:
    """NaN is null in JSON."""
    return float("nan") if value is None else value


def last_line(result: Mapping[str, Any]) -> str:
    """Says in one line what came out: block, parameters, validation and test metric."""
    valid, test = (summarise([_number(each) for each in result[split]]) for split in ("valid", "test"))
    count = result["seeds"]
    return (
        f"{result['block']['name']} on {result['task']['name']}: {result['parameters']:,} parameters, "
        f"validation {result['metric']} {valid}, test {result['metric']} {test} "
        f"({count} seed{'s' if count > 1 else ''})"
    )
