"""Whether a space keeps its promises: what it draws and changes is valid, new, and built as inferred.

Networks are traced, never run: `jax.eval_shape` gives their shapes without an array.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import OK, AnyTask, Array, DataTask, Network, PyTree, SearchSpace, Task, explain_status

BATCH = 2  # examples of an input that is traced


class Built(NamedTuple):
    """What is inferred of a candidate's network without building it."""

    network: Network  # up to where the shape is inferred, so without its head
    shape: tuple[int, ...]  # of its output, without the examples
    parameters: int


class Failure(NamedTuple):
    """A promise that a candidate breaks."""

    number: int  # of the sample
    what: str  # one of few, to be counted
    detail: str


def shape_task(in_shape: Sequence[int], out_features: int, *, as_sequence: bool) -> AnyTask:
    """Returns a task that has widths and nothing to train on.

    Args:
      in_shape: of an input; of a sequence (time steps, features).
      out_features: of the output.
      as_sequence: for a space of networks that read sequences.
    """
    widths: dict[str, Any] = dict(out_features=out_features, threshold=1.0, untrained=0.0, weight=1.0)
    if as_sequence:
        time_steps, in_features = in_shape
        return Task(
            name="widths",
            in_features=in_features,
            time_steps=time_steps,
            loss="squared",
            sample=_nothing,
            train_samples=0,
            valid_samples=0,
            **widths,
        )
    return DataTask(
        name="widths",
        in_shape=tuple(in_shape),
        loss="categorical",
        metric="accuracy",
        variant="",
        load=_nothing,
        **widths,
    )


def _nothing(*_: Any) -> Any:
    raise ValueError("This task has widths alone; there is nothing to train on.")


def output_shape(network: Network, in_shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Returns the shape of a network's output without the examples, and its number of parameters.

    Raises:
      Whatever tracing it raises.
    """
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((BATCH, *in_shape), jnp.float32)
    outputs, _ = jax.eval_shape(network.apply, params, state, inputs)
    if outputs.shape[:1] != (BATCH,):
        raise ValueError(f"the output has the shape {outputs.shape} for {BATCH} examples")
    return outputs.shape[1:], sum(leaf.size for leaf in jax.tree.leaves(params))


def check_space(
    space: SearchSpace,
    tasks: Sequence[AnyTask],
    key: Array,
    num: int,
    infer: Callable[[PyTree], Built] | None = None,
    *,
    starts: bool = False,
) -> Iterator[list[Failure]]:
    """Samples and mutates, and yields what is wrong with each sample and its mutation.

    A candidate must be valid, be the same after JSON, and be built for each task with outputs of its
    width; a mutation must besides be another network. Networks that were seen before are not traced again.

    Args:
      space: to be checked.
      tasks: that candidates are built for.
      key: sample i and its mutation follow from it and i.
      num: of samples.
      infer: what the space infers of a candidate, where it infers anything.
      starts: whether the space's starts, one after the other, stand in for samples.

    Raises:
      ValueError: if the space was made without starts, and they are asked for.
    """
    if starts and space.starts is None:
        raise ValueError(f"the space {space.name} was made without starts (its setting seeds).")
    num_starts = len(jax.tree.leaves(space.starts)[0]) if starts else 0
    sample, mutate, status = map(jax.jit, (space.sample, space.mutate, space.status))
    seen: set[bytes] = set()

    def check(number: int, candidate: PyTree, of: str) -> Iterator[Failure]:
        found = int(status(candidate))
        if found != OK:
            yield Failure(number, f"{of} not valid", explain_status(found, space.reasons))
            return
        form = space.canonical(candidate)
        if space.canonical(space.from_json(space.to_json(candidate))) != form:
            yield Failure(number, f"{of} not the same after JSON", "")
        if form in seen:
            return
        seen.add(form)
        for problem in _problems(space, tasks, candidate, infer):
            yield Failure(number, f"{of} {problem[0]}", problem[1])

    for number in range(num):
        key_sample, key_mutate = jax.random.split(jax.random.fold_in(key, number))
        candidate = (
            jax.tree.map(lambda leaf, place=number % num_starts: leaf[place], space.starts)
            if starts
            else _on_host(sample(key_sample))
        )
        failures = list(check(number, candidate, "sample"))
        if not failures:
            child = _on_host(mutate(key_mutate, candidate))
            if space.canonical(child) == space.canonical(candidate):
                failures.append(
                    Failure(number, "mutation changes nothing", _last_line(space.describe(candidate)))
                )
            failures += check(number, child, "mutation")
        yield failures


def _problems(
    space: SearchSpace,
    tasks: Sequence[AnyTask],
    candidate: PyTree,
    infer: Callable[[PyTree], Built] | None,
) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a valid candidate's networks: a few words, and details."""
    try:
        for task in tasks:
            shape, _ = output_shape(space.build(candidate, task), task.in_shape)
            width = shape[-1] if isinstance(task, Task) else math.prod(shape)
            if width != task.out_features:
                yield "has other outputs than its task", f"{shape} for {task.out_features} on {task.name}"
        if infer is not None:
            built = infer(candidate)
            shape, parameters = output_shape(built.network, tasks[0].in_shape)
            if shape != built.shape:
                yield "has another shape than inferred", f"{shape}, not {built.shape}"
            if parameters != built.parameters:
                yield "has other parameters than inferred", f"{parameters:,}, not {built.parameters:,}"
    except Exception as error:  # whatever a network that cannot be traced raises
        yield "cannot be built", f"{type(error).__name__}: {' '.join(str(error).split())}"


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1]


def _on_host(candidate: PyTree) -> PyTree:
    return jax.tree.map(np.asarray, candidate)
