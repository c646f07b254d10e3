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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.stacked import VERSION
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.retrain_config import FREE_KEYS, changed_settings, changed_task_settings
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import prepare, stopping
from elenas_jax.experiment.training_jobs import Jobs, load_params
from elenas_jax.experiment.tuning import Stacks, number, seed_jobs, tune
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
    kept = config | {"block": block, "data": {"digest": _digest(dataset)}, "stack_version": VERSION}
    done = run.path / "result.json"
    if files.check_same_config(run, kept, _FREE_KEYS) and done.exists():
        result = files.read_json(done)
        if not isinstance(result, dict) or not result.keys() >= _RESULT_KEYS:
            raise files.RunError(f"{done} is damaged; delete it to test again what was trained.")
        if result["planned"] == config["seeds"]:
            console.print(f"Nothing to do: {done} is there.", soft_wrap=True)
            return result
    stacks = Stacks(graph, config, dataset, devices)
    for depth in config["tuning"]["depths"]:
        stacks.check(depth)
    console.print(dataset.note, soft_wrap=True)
    with files.locked(run):
        files.check_same_config(run, kept, _FREE_KEYS)
        files.write_json(run.config, kept)
        _add_session(run, devices)

        def stop_asked() -> None:
            console.print("stopping; what was trained is kept; Ctrl-C again to stop at once")

        with stopping(stop_asked) as stop_requested:
            jobs = Jobs(run.path, functools.partial(console.print, soft_wrap=True), stop_requested)
            best = tune(jobs, stacks, console)
            seeds = best and jobs.run(seed_jobs(stacks, best, jobs), stacks.trainer, dataset, devices)
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


# Of result.json, what `last_line` reads.
_RESULT_KEYS = {"block", "task", "metric", "parameters", "valid", "test", "seeds", "planned"}


def _add_session(run: files.RunDir, devices: int) -> None:
    provenance = files.read_json(run.provenance) if run.provenance.exists() else {"sessions": []}
    if not isinstance(provenance, dict) or not isinstance(provenance.get("sessions"), list):
        raise files.RunError(f"{run.provenance} is damaged: delete it to begin a new one.")
    provenance["sessions"].append(
        files.session(parallel.describe_devices(devices)) | {"threads": parallel.count_threads()}
    )
    files.write_json(run.provenance, provenance)


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


def _test(jobs: Jobs, seeds: list[dict[str, Any]], stacks: Stacks, kept: Mapping[str, Any]) -> dict[str, Any]:
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
        "stack_version": VERSION,
        "settings": changed_settings(kept),
        "task_settings": changed_task_settings(kept),
        "valid": [each["valid"] for each in sound],
        "test": found,
        "seeds": len(sound),
        "planned": len(seeds),
    }


def last_line(result: Mapping[str, Any]) -> str:
    """Says in one line what came out: block, parameters, validation and test metric."""
    valid, test = (summarise([number(each) for each in result[split]]) for split in ("valid", "test"))
    count, planned = result["seeds"], result["planned"]
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    seeds += f"; {planned - count} diverged" if planned > count else ""
    return (
        f"{result['block']['name']} on {result['task']['name']}: {result['parameters']:,} parameters, "
        f"validation {result['metric']} {valid}, test {result['metric']} {test} ({seeds})"
    )


def summarise(values: Sequence[float]) -> str:
    """Returns mean ± standard deviation, or the one number."""
    text = f"{np.mean(values):.4f}" if np.mean(values) < 10 else f"{np.mean(values):.2f}"
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values):.4f}" if np.mean(values) < 10 else f"{text} ± {np.std(values):.2f}"
