"""Retraining: a block is stacked, tuned on validation data, trained on some seeds, and tested once.

The run folder holds config.json, provenance.json, trainings.json (settings, steps, curve and validation
metric of every training), plan.json, weights/ (of the best evaluation of each) and at the end result.json,
which alone holds test metrics. Test data are read after the last training has ended, by `_test` and nobody
else.
"""

import contextlib
import functools
import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.retraining import (
    Recipe,
    Trainer,
    eval_streams,
    interface_of,
    make_trainer,
    steps_per_epoch,
    streams_of,
)
from elenas_jax.evaluation.stacked import Stacking, make_stack, widest
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.retrain_config import FREE_KEYS, changed_settings
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import prepare, stopping
from elenas_jax.experiment.training_jobs import Job, Jobs, load_params, summarise
from elenas_jax.graphs import ComputationGraph, canonical_hash, equations
from elenas_jax.spaces.elenas import to_json
from elenas_jax.tasks.datasets import load_dataset
from elenas_jax.tasks.metrics import METRICS
from elenas_jax.tasks.records import DataError, Dataset, Split


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
      ConfigError: for a block or data that cannot be used; nothing was written. Also for test data that
        cannot be read, and if every training diverged: what was trained is kept then.
      RunError: if the folder cannot be used.
    """
    run = files.run_dir(path)
    devices = _prepare(config, console)  # before anything runs on one
    dataset = _load(config, data_dir)
    block = {
        "name": name,
        "hash": canonical_hash(graph),
        "graph": to_json(graph),
        "equations": equations(graph),
    }
    kept = config | {"block": block, "data": {"digest": _digest(dataset)}}
    done = run.path / "result.json"
    if files.check_same_config(run, kept, _FREE_KEYS) and done.exists():
        result = files.read_json(done)
        if result["planned"] == config["seeds"]:
            console.print(f"Nothing to do: {done} is there.", soft_wrap=True)
            return result
    stacks = _Stacks(graph, config, dataset, devices)
    for depth in config["tuning"]["depths"]:
        stacks.check(depth)
    console.print(dataset.note, soft_wrap=True)
    with files.locked(run):
        files.check_same_config(run, kept, _FREE_KEYS)
        files.write_json(run.config, kept)
        sessions = files.read_json(run.provenance)["sessions"] if run.provenance.exists() else []
        sessions.append(files.session(parallel.describe_devices(devices)))
        files.write_json(run.provenance, {"seed": config["seed"], "sessions": sessions})

        def stop_asked() -> None:
            console.print("stopping; what was trained is kept; Ctrl-C again to stop at once")

        with stopping(stop_asked) as stop_requested:
            jobs = Jobs(run.path, functools.partial(console.print, soft_wrap=True), stop_requested)
            best = _tune(jobs, stacks, console)
            seeds = best and jobs.run(_seed_jobs(stacks, best, jobs), stacks.trainer, dataset, devices)
        if not seeds:
            return None
        if jobs.seconds() > 66 * config["minutes"]:
            console.print(
                f"It took {duration(jobs.seconds())}: {config['minutes']:g} minutes are too few for "
                "trainings of this size, which take 16 steps and an evaluation at least.",
                soft_wrap=True,
            )
        result = files.plain(_test(jobs, seeds, stacks, kept))
        files.write_json(done, result)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return result


_FREE_KEYS = (*FREE_KEYS, "block.equations", "block.graph.num_nodes", "block.graph.edges")


def _prepare(config: Mapping[str, Any], console: Console) -> int:
    """Sets devices up, and returns how many are used."""
    prepare(dict(config) | {"evaluator": {"num_devices": None}}, console)
    try:
        return parallel.count_devices(config["num_devices"] or 0)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _load(config: Mapping[str, Any], data_dir: str | None) -> Dataset:
    settings = dict(config["task"])
    with _data_errors():
        dataset = load_dataset(settings.pop("name"), data_dir, **settings)
    if isinstance(dataset.valid, Split):
        targets = dataset.valid.targets
        if math.isnan(METRICS[dataset.metric].fn(np.zeros_like(targets), targets)):
            raise ConfigError(
                f"{dataset.name}: validation targets do not define {dataset.metric}; they are all equal."
            )
    return dataset


@contextlib.contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from error


def _digest(dataset: Dataset) -> str:
    """Returns a digest of training and validation data, so that a folder knows its data."""
    digest = hashlib.blake2b(digest_size=8)
    for split in (dataset.train, dataset.valid):
        for array in split if isinstance(split, Split) else (split,):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Stacks:
    """Networks and trainers of one block and one data set."""

    def __init__(
        self, graph: ComputationGraph, config: Mapping[str, Any], dataset: Dataset, devices: int
    ) -> None:
        self.graph, self.config, self.dataset, self.devices = graph, config, dataset, devices
        self.interface = interface_of(dataset, config["recipe"]["bptt"])

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
                bptt, valid = self.interface.time_steps, np.asarray(self.dataset.valid)
                streams_of(valid, eval_streams(valid, bptt), bptt)
                for size in self.config["tuning"]["batch_sizes"]:
                    streams_of(np.asarray(self.dataset.train), size, bptt)
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
        return self.trainer_of(job.depth, job.batch_size, device)

    @functools.cache  # noqa: B019
    def trainer_of(self, depth: int, batch_size: int, device: int) -> Trainer:
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

    Learning rates are tried at the first depth and batch size, then other depths and sizes at the best rate.
    Trials that do not fit into their share of the time are left out, which is said; those begun are not.

    Raises:
      ConfigError: if every trial diverged.
    """
    tuning = stacks.config["tuning"]
    depths, sizes, rates = tuning["depths"], tuning["batch_sizes"], tuning["learning_rates"]
    others = [(depth, sizes[0]) for depth in depths[1:]] + [(depths[0], size) for size in sizes[1:]]
    if len(rates) + len(others) == 1:
        return {"depth": depths[0], "batch_size": sizes[0], "learning_rate": rates[0]}
    whole = 60 * stacks.config["minutes"] * tuning["share"]
    waves = sum(-(-count // stacks.devices) for count in (len(rates), len(others)))
    tried: list[dict[str, Any]] = []

    def run(settings: list[tuple[int, int, float]], sharing: int) -> bool:
        """Runs trials, as many at a time as there are devices; returns whether it was not stopped."""
        for first in range(0, len(settings), stacks.devices):
            wave = settings[first : first + stacks.devices]
            trials = [
                _trial(stacks, len(tried) + place, each, whole / waves, sharing)
                for place, each in enumerate(wave)
            ]
            late = bool(tried) and jobs.seconds() >= whole
            if late and not any(jobs.has_begun(trial.name) for trial in trials):
                left_out = [trial.described() for trial in trials]
                console.print(f"No time to try {'; '.join(left_out)}.", soft_wrap=True)
                continue
            for trial in trials:
                console.print(f"{trial.name}: {trial.described()}")
            records = jobs.run(trials, stacks.trainer, stacks.dataset, stacks.devices)
            if records is None:
                return False
            tried.extend(records)
        return True

    def best() -> dict[str, Any]:
        better = stacks.trainer(_trial(stacks, 0, (depths[0], sizes[0], rates[0]), 0.0, 1), 0).is_better
        found = tried[0]
        for each in tried[1:]:
            found = each if better(_number(each["valid"]), _number(found["valid"])) else found
        return found

    if not run([(depths[0], sizes[0], rate) for rate in rates], -(-len(rates) // stacks.devices)):
        return None
    rate = best()["learning_rate"]
    if not run([(depth, size, rate) for depth, size in others], 1):
        return None
    if best()["valid"] is None:
        raise ConfigError("Every trial diverged; try smaller tuning.learning_rates, or stack.norm=True.")
    return best()


def _trial(
    stacks: _Stacks, number: int, settings: tuple[int, int, float], seconds: float, sharing: int
) -> Job:
    evaluations = max(1, stacks.config["recipe"]["evaluations"] // 2)
    # Its seed is none of those that are trained and tested.
    seed, most = stacks.config["seed"], stacks.most_steps(settings[1])
    return Job(f"trial_{number}", *settings, seed, seconds, sharing, evaluations, most)


def _seed_jobs(stacks: _Stacks, best: Mapping[str, Any], jobs: Jobs) -> list[Job]:
    """Returns the trainings that share what is left of the time."""
    config = stacks.config
    waves = -(-config["seeds"] // stacks.devices)
    seconds = max(0.0, 60 * config["minutes"] - jobs.seconds()) / waves
    settings = (best["depth"], best["batch_size"], best["learning_rate"])
    most, evaluations = stacks.most_steps(best["batch_size"]), config["recipe"]["evaluations"]
    return [
        Job(f"seed_{n}", *settings, config["seed"] + 1 + n, seconds, waves, evaluations, most)
        for n in range(config["seeds"])
    ]


def _test(
    jobs: Jobs, seeds: list[dict[str, Any]], stacks: _Stacks, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Measures the best weights of every seed on test data, which no training or choice has used."""
    sound = [each for each in seeds if each["valid"] is not None]
    if not sound:
        raise ConfigError("Every seed diverged; try smaller tuning.learning_rates, or stack.norm=True.")
    dataset = stacks.dataset
    with _data_errors():
        test = dataset.load_test()
    place = {name: seeds[0][name] for name in ("depth", "batch_size")}
    trainer = stacks.trainer_of(place["depth"], place["batch_size"], 0)
    found = [trainer.measure(load_params(jobs.weights(each["name"])), test) for each in sound]
    return {
        "block": kept["block"],
        "task": kept["task"],
        "data": dataset.note,
        "metric": dataset.metric,
        "parameters": seeds[0]["parameters"],
        **place,
        "learning_rate": seeds[0]["learning_rate"],
        "width": stacks.stacking(place["depth"]).width,
        "steps": seeds[0]["steps"],
        "minutes": kept["minutes"],
        "settings": changed_settings(kept),
        "valid": [each["valid"] for each in sound],
        "test": found,
        "seeds": len(sound),
        "planned": len(seeds),
    }


def _number(value: float | None) -> float:
    """NaN is null in JSON."""
    return float("nan") if value is None else value


def last_line(result: Mapping[str, Any]) -> str:
    """Says in one line what came out: block, parameters, validation and test metric."""
    valid, test = (summarise([_number(each) for each in result[split]]) for split in ("valid", "test"))
    count, planned = result["seeds"], result["planned"]
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    seeds += f"; {planned - count} diverged" if planned > count else ""
    return (
        f"{result['block']['name']} on {result['task']['name']}: {result['parameters']:,} parameters, "
        f"validation {result['metric']} {valid}, test {result['metric']} {test} ({seeds})"
    )
