"""Tuning of a stacked block on validation data: which trainings there are, and which is the best.

Depth, batch size and learning rate are tuned, for every block alike, as Aichberger and Klambauer (2023) did
for their tables; the grid and its order are this project's.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console

from elenas_jax.evaluation.retraining import (
    Recipe,
    Trainer,
    eval_streams,
    interface_of,
    make_trainer,
    steps_per_epoch,
    streams_of,
)
from elenas_jax.evaluation.stacked import Interface, Stacking, make_stack, widest
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.training_jobs import Job, Jobs
from elenas_jax.graphs import ComputationGraph
from elenas_jax.tasks.records import Dataset
from elenas_jax.types import Network


class Stacks:
    """Networks and trainers of one block and one data set."""

    def __init__(
        self, graph: ComputationGraph, config: Mapping[str, Any], dataset: Dataset, devices: int
    ) -> None:
        self.graph, self.config, self.dataset, self.devices = graph, config, dataset, devices
        self.interface = interface_of(dataset, config["recipe"]["bptt"])
        self.stacking = functools.cache(self._make_stacking)  # depth -> Stacking
        self.trainer_of = functools.cache(self._make_trainer)  # depth, batch size, device -> Trainer

    def check(self, depth: int) -> None:
        """Raises ConfigError for a block that cannot be stacked like this, or a setting without effect."""
        is_text = self.dataset.time_steps is None
        if is_text and self.config["stack"]["pool"] != "last":
            raise ConfigError(
                f"stack.pool={self.config['stack']['pool']!r}: there is nothing to pool where every step "
                "predicts the next word; leave it out."
            )
        if not is_text and not self.config["recipe"]["carry"]:
            raise ConfigError("recipe.carry=False: only a text has pieces that could go on; leave it out.")
        try:
            network = make_stack(self.graph, self.stacking(depth), self.interface)
            if is_text:
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

    def _make_stacking(self, depth: int) -> Stacking:
        stack = self.config["stack"]
        shape = {key: value for key, value in stack.items() if key != "max_parameters"}
        stacking = Stacking(depth=depth, **shape)
        if stack["max_parameters"]:
            width = widest(self.graph, stacking, self.interface, stack["max_parameters"])
            stacking = stacking._replace(width=width)
        return stacking

    def recipe(self, batch_size: int) -> Recipe:
        recipe = self.config["recipe"]
        return Recipe(batch_size, recipe["weight_decay"], recipe["clip"], recipe["bptt"], recipe["carry"])

    def most_steps(self, batch_size: int) -> int:
        epoch = steps_per_epoch(self.dataset, self.recipe(batch_size))
        return max(1, round(self.config["recipe"]["max_epochs"] * epoch))

    def trainer(self, job: Job, device: int) -> Trainer:
        return self.trainer_of(job.depth, job.batch_size, device)

    def _make_trainer(self, depth: int, batch_size: int, device: int) -> Trainer:
        network = make_stack(self.graph, self.stacking(depth), self.interface)
        return make_trainer(network, self.dataset, self.recipe(batch_size), device)


def _states(network: Network, interface: Interface) -> Any:
    """Returns shapes of what the blocks carry from one piece of text to the next."""
    inputs = np.zeros((1, interface.time_steps), np.int32)

    def states(key):
        params, nothing = network.init(key)
        return network.apply(params, nothing, inputs)[1]

    return jax.eval_shape(states, jax.random.key(0))


def tune(jobs: Jobs, stacks: Stacks, console: Console) -> dict[str, Any] | None:
    """Returns the record of the best trial, or None if it was stopped.

    Learning rates are tried at the first depth and batch size, then other depths and sizes at the best rate.
    Trials that do not fit into their share of the time are left out, which is said; those begun are not. The
    choice is written down, so that seeds of later sessions have the same settings.

    Raises:
      ConfigError: if every trial diverged.
    """
    tuning = stacks.config["tuning"]
    depths, sizes, rates = tuning["depths"], tuning["batch_sizes"], tuning["learning_rates"]
    others = [(depth, sizes[0]) for depth in depths[1:]] + [(depths[0], size) for size in sizes[1:]]
    if len(rates) + len(others) == 1:
        return {"depth": depths[0], "batch_size": sizes[0], "learning_rate": rates[0]}
    if chosen := jobs.chosen():
        return chosen
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
            found = each if better(number(each["valid"]), number(found["valid"])) else found
        return found

    if not run([(depths[0], sizes[0], rate) for rate in rates], -(-len(rates) // stacks.devices)):
        return None
    rate = best()["learning_rate"]
    if not run([(depth, size, rate) for depth, size in others], 1):
        return None
    if best()["valid"] is None:
        raise ConfigError("Every trial diverged; try smaller tuning.learning_rates, or stack.norm=True.")
    jobs.choose(best()["name"])
    return best()


def _trial(
    stacks: Stacks, number: int, settings: tuple[int, int, float], seconds: float, sharing: int
) -> Job:
    evaluations = max(1, stacks.config["recipe"]["evaluations"] // 2)
    # Its seed is none of those that are trained and tested.
    seed, most = stacks.config["seed"], stacks.most_steps(settings[1])
    return Job(f"trial_{number}", *settings, seed, seconds, sharing, evaluations, most)


def seed_jobs(stacks: Stacks, best: Mapping[str, Any], jobs: Jobs) -> list[Job]:
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


def number(value: float | None) -> float:
    """Returns a number of a record, whose NaN is null in JSON."""
    return float("nan") if value is None else value
