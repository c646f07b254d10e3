"""Retrains a candidate of a search on training and validation data together, and tests it once.

So also an architecture that the search started from, to compare with. For runs of the individual evaluator
on a data set: its recipe, with `evaluator.eval_epochs` epochs. Test data are read after the last training,
and nothing is chosen by them. Killed, it goes on from the last finished epoch when called again: until all is
done, trainings are kept in `retrained` of the run folder.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from elenas_jax.evaluation.examples import Stored, batches_of, measure
from elenas_jax.evaluation.network_training import Fitted, NetworkProgram, TrainState, compile_network, fit
from elenas_jax.evaluation.recipes import Recipe, make_course
from elenas_jax.evaluation.training import canonical_digest, weights_key
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import best_block, block_of_hash
from elenas_jax.experiment.build import build_recipe, build_space, build_tasks
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.config import INDIVIDUAL_NAME, check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.tasks.records import Dataset, Split
from elenas_jax.types import OK, DataTask, SearchSpace


def retrain_best(
    path: str | Path,
    rank: int = 1,
    seeds: Sequence[int] = (0,),
    *,
    start: str = "",
    epochs: int | None = None,
    on_epoch: Callable[[int, int, int], None] = lambda seed, done, epochs: None,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Retrains and tests a candidate of the run at `path`, or one of its starts.

    Args:
      path: a run folder.
      rank: of the candidate, the best is 1.
      start: one of `space.seeds` of the run's config, which is retrained instead.
      seeds: replicates of weights and order of examples, a training each.
      epochs: of a training; None is `evaluator.eval_epochs` of the run's config.
      on_epoch: told the seed, how many epochs of its training are done, and of how many.
      on_result: told what is returned, before the trainings that were kept are deleted.

    Returns:
      JSON-able: run, rank (None of a start), start, hash, text, task, data, metric (its name), test (a number
      a seed), parameters, epochs, examples, seeds, score and valid (the metric, in the search), seconds (of
      this call).

    Raises:
      ConfigError: if the run has no such candidate, or is of another evaluator or kind of task; if data are
        missing (test data are read last; trainings are kept).
      RunError: if the folder cannot be read, another process retrains the candidate, or trainings that were
        kept are of other data or settings.
    """
    started = time.perf_counter()
    config = stored_config(files.run_dir(path))
    tasks = build_tasks(config)
    task = tasks[-1]
    if not isinstance(task, DataTask):
        raise ConfigError(f"{path}: the task {task.name} draws its examples; there are no test data to read.")
    space = build_space(config, tasks)
    found = _find_start(path, start, config, space) if start else _find_ranked(path, rank)
    candidate = space.from_json(json.loads(found["candidate"]))
    digest = canonical_digest(space.canonical(candidate))
    recipe = build_recipe(config)._replace(epochs=epochs or config["evaluator"]["eval_epochs"], patience=0)
    folder = files.run_dir(path).path / "retrained" / f"{digest}_{recipe.epochs}"
    with _one_line():  # what is missing is said before there is a folder
        dataset = task.load()
        train = joined(dataset.train, dataset.valid)
        examples = Stored(task, dataset, jax.random.key(config["seed"]), recipe.batch_size, train)
    with files.locked(files.run_dir(folder)):
        _check_same(folder / "about.json", _about(config, task, dataset, recipe))
        program = compile_network(space.build(candidate, task), examples, recipe)
        trained = [
            _train(program, examples, recipe, config["seed"], digest, seed, folder / f"seed_{seed}", on_epoch)
            for seed in seeds
        ]
        with _one_line():
            test = dataset.load_test()
        result = {
            "run": Path(path).name,
            "rank": None if start else rank,
            "start": start,
            "hash": found["hash"],
            "text": found["text"],
            "task": task.name,
            "data": dataset.note,
            "metric": task.metric,
            "test": [_test(program, fitted, test, examples) for fitted in trained],
            "parameters": program.parameters,
            "epochs": recipe.epochs,
            "examples": len(train.inputs),
            "seeds": list(seeds),
            "score": found["score"],
            "valid": json.loads(found["metrics"])[task.name],
            "seconds": time.perf_counter() - started,
        }
        on_result(result)
        for seed in seeds:
            shutil.rmtree(folder / f"seed_{seed}", ignore_errors=True)
        if not any(folder.glob("seed_*")):
            shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others may be there
        folder.parent.rmdir()
    return result


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turns what is wrong with data into an error of one line."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _about(config: Mapping[str, Any], task: DataTask, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Returns what trainings that are gone on with must have in common."""
    about = {"seed": config["seed"], "task": task.name, "variant": task.variant, "data": dataset.note}
    return files.plain(about | {"space": dict(config["space"]), "recipe": recipe._asdict()})


def _check_same(path: Path, about: Mapping[str, Any]) -> None:
    if path.exists() and files.read_json(path) != about:
        raise files.RunError(
            f"{path.parent} holds trainings with other data or settings; delete that folder to start anew."
        )
    files.write_json(path, about)


def _find_ranked(path: str | Path, rank: int) -> dict[str, Any]:
    found = best_block(path, rank) if rank > 0 else None
    if found is None:
        raise ConfigError(f"{path} has no valid candidate of rank {rank}; 1 is the best.")
    return found


def _find_start(path: str | Path, name: str, config: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    names = list(config["space"].get("seeds", ()))
    if name not in names:
        known = ", ".join(names) or "none"
        raise ConfigError(f"{path} did not start from {name!r}; it started from {known}.")
    start = jax.tree.map(lambda leaf: leaf[names.index(name)], space.starts)
    found = block_of_hash(path, canonical_digest(space.canonical(start)))
    if found is None:
        raise ConfigError(f"{path} has not evaluated {name}, or its training failed.")
    return found


def stored_config(run: files.RunDir) -> dict[str, Any]:
    """Returns the resolved config of a run of the individual evaluator.

    Raises:
      ConfigError: if the run is of another one.
      RunError: if there is no run, or its config cannot be read.
    """
    if not run.config.exists():
        raise files.RunError(f"{run.path} has no {run.config.name}: it is no run folder.")
    stored = files.read_json(run.config)
    try:
        config = check_config({key: value for key, value in stored.items() if key != "plan"})
    except (ConfigError, AttributeError) as error:
        raise files.RunError(f"{run.config} is of another version, or damaged: {error}") from error
    name = config["evaluator"]["name"]
    if name != INDIVIDUAL_NAME:
        raise ConfigError(
            f"{run.path} was evaluated by evaluator.name={name!r}; here it must be {INDIVIDUAL_NAME!r}. "
            "scripts/retrain.py retrains blocks."
        )
    return config


def joined(*splits: Any) -> Split:
    """Returns the examples of all splits together."""
    arrays = zip(*splits, strict=True)
    return Split(*(np.concatenate([np.asarray(array) for array in each]) for each in arrays))


def last_line(result: Mapping[str, Any]) -> str:
    """Says in one line what came out."""
    test = [value for value in result["test"] if value is not None]
    shown = f"{np.mean(test):.4f}" + (f" ± {np.std(test):.4f}" if len(test) > 1 else "") if test else "none"
    diverged = f", {len(result['test']) - len(test)} diverged" if len(test) < len(result["test"]) else ""
    which = result["start"] or f"rank {result['rank']}"
    return (
        f"{result['task']}: {which} of {result['run']}, {result['parameters']:,} parameters, "
        f"{result['epochs']} epochs, test {result['metric']} {shown} "
        f"({len(result['seeds'])} seed{'s' if len(result['seeds']) > 1 else ''}{diverged})"
    )


def _train(
    program: NetworkProgram,
    examples: Stored,
    recipe: Recipe,
    run_seed: int,
    digest: str,
    seed: int,
    folder: Path,
    on_epoch: Callable[[int, int, int], None],
) -> Fitted:
    """Trains with a seed, or goes on with it."""
    key = weights_key(jax.random.key(run_seed), digest, seed)
    course = make_course(recipe, 1.0, examples.steps_per_epoch)
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        newest = checkpoints.newest()
        begun = None if newest is None else (newest, checkpoints.restore(newest, program.init(key)))

        def keep(done: int, state: TrainState) -> None:
            checkpoints.save(done, state)
            on_epoch(seed, done, course.epochs)

        return fit(program, examples, recipe, course, key, seed, begun=begun, on_epoch=keep)


def _test(program: NetworkProgram, fitted: Fitted, test: Split, examples: Stored) -> float | None:
    """Returns the metric on test data; None of a training without a finished epoch."""
    state = fitted.state
    if fitted.status != OK or state is None:
        return None
    batches = batches_of(test, examples.batch_size)
    return measure(lambda inputs: program.outputs_of(state, inputs), batches, examples.metric)
