"""What one network is trained and measured on, task by task: a data set, or examples drawn from a key.

Both are handed out alike: stored examples, and rows of them for each step. Which examples a step takes
depends on the replicate's data key, the epoch and the step alone, so every candidate sees the same.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.executors import SEGMENT_STEPS
from elenas_jax.evaluation.retraining import loss_fn
from elenas_jax.evaluation.trainer import sample_batches
from elenas_jax.evaluation.training import TRAIN, VALIDATION, data_key
from elenas_jax.tasks import LOSSES
from elenas_jax.tasks.metrics import METRICS
from elenas_jax.tasks.records import Dataset, Split, as_inputs
from elenas_jax.types import AnyArray, AnyTask, DataTask, Task

KEPT_SEGMENTS = 64  # of drawn examples and of orders of a data set


class Segment(NamedTuple):
    """A few steps of a training."""

    inputs: AnyArray  # [N, ...] stored examples
    targets: AnyArray  # [N, O] float32
    rows: np.ndarray  # [SEGMENT_STEPS, B] int32, the examples of each step
    num_steps: int  # of those the first


class Examples(Protocol):
    """The examples of one task."""

    steps_per_epoch: int

    def segments(self, replicate: int, epoch: int, num_steps: int) -> Iterator[Segment]:
        """Yields the steps of an epoch, counted from 0."""

    def batches(self, replicate: int) -> Iterator[tuple[AnyArray, AnyArray]]:
        """Yields `[B, ...]` stored inputs and `[n, O]` targets, n of B, of the validation data."""

    def inputs_of(self, stored: jax.Array) -> jax.Array:
        """Returns the network's inputs of stored examples; jittable."""

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the mean loss; jittable."""

    def metric(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Returns how good outputs are, higher is better."""


class Drawn:
    """Examples of a `Task`: an epoch is so many fresh batches."""

    def __init__(self, task: Task, run_key: jax.Array, batch_size: int, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._task, self._run_key, self._batch_size = task, run_key, batch_size
        self._loss = LOSSES[task.loss]
        self._rows = np.arange(SEGMENT_STEPS * batch_size, dtype=np.int32).reshape(SEGMENT_STEPS, -1)
        self._sample = functools.lru_cache(maxsize=KEPT_SEGMENTS)(self._sample_anew)

    def _sample_anew(self, replicate: int, kind: int, first: int) -> tuple[jax.Array, jax.Array]:
        """Returns SEGMENT_STEPS batches from `first` on, as `[N, T, F]` and `[N, O]`."""
        key = jax.random.fold_in(data_key(self._run_key, replicate), kind)
        task = self._task
        inputs, targets = sample_batches(task.sample, self._batch_size, task.in_features, key, first)
        return jnp.reshape(inputs, (-1, *inputs.shape[2:])), jnp.reshape(targets, (-1, targets.shape[-1]))

    def segments(self, replicate: int, epoch: int, num_steps: int) -> Iterator[Segment]:
        for first in range(0, num_steps, SEGMENT_STEPS):
            inputs, targets = self._sample(replicate, TRAIN, epoch * self.steps_per_epoch + first)
            yield Segment(inputs, targets, self._rows, min(SEGMENT_STEPS, num_steps - first))

    def batches(self, replicate: int) -> Iterator[tuple[AnyArray, AnyArray]]:
        size = self._batch_size
        for number in range(self._task.valid_samples // size):
            segment, place = divmod(number, SEGMENT_STEPS)
            inputs, targets = self._sample(replicate, VALIDATION, segment * SEGMENT_STEPS)
            yield inputs[place * size : (place + 1) * size], targets[place * size : (place + 1) * size]

    def inputs_of(self, stored: jax.Array) -> jax.Array:
        return stored

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.mean(self._loss.loss_fn(outputs, targets))

    def metric(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        return float(np.mean(np.asarray(self._loss.right_fn(jnp.asarray(outputs), jnp.asarray(targets)))))


class Stored:
    """Examples of a `DataTask`: an epoch is all of them in a new order; the last part of a batch is dropped.

    Args:
      task: that the data are of.
      dataset: what it loads; its test data are not touched.
      run_key: key of the run; the order of examples follows from it.
      batch_size: examples a step.
      train: to train on, the data set's training data if not given.

    Raises:
      ValueError: for data that do not fit the task, or fewer examples than a batch.
    """

    def __init__(
        self,
        task: DataTask,
        dataset: Dataset,
        run_key: jax.Array,
        batch_size: int,
        train: Split | None = None,
    ) -> None:
        own, valid = _check_data(task, dataset)
        train = own if train is None else train
        self._num, self._valid = len(train.inputs), valid
        self.steps_per_epoch = self._num // batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"{task.name} has {self._num} training examples; batch_size is {batch_size}.")
        self._task, self._run_key, self.batch_size = task, run_key, batch_size
        self._scaling = dataset.scaling
        self._on_device = parallel.put_on(0, (np.asarray(train.inputs), np.asarray(train.targets)))
        self._order = functools.lru_cache(maxsize=KEPT_SEGMENTS)(self._order_anew)

    def _order_anew(self, replicate: int, epoch: int) -> np.ndarray:
        """Returns `[steps, B]` int32, the examples of each step of an epoch."""
        key = jax.random.fold_in(data_key(self._run_key, replicate), TRAIN)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), self._num))
        used = order[: self.steps_per_epoch * self.batch_size]
        return used.astype(np.int32).reshape(self.steps_per_epoch, self.batch_size)

    def segments(self, replicate: int, epoch: int, num_steps: int) -> Iterator[Segment]:
        order = self._order(replicate, epoch)[:num_steps]
        for first in range(0, num_steps, SEGMENT_STEPS):
            rows = order[first : first + SEGMENT_STEPS]
            filled = np.pad(rows, ((0, SEGMENT_STEPS - len(rows)), (0, 0)))
            inputs, targets = self._on_device
            yield Segment(inputs, targets, filled, len(rows))

    def batches(self, replicate: int) -> Iterator[tuple[AnyArray, AnyArray]]:
        del replicate
        yield from batches_of(self._valid, self.batch_size)

    def inputs_of(self, stored: jax.Array) -> jax.Array:
        return stored if self._scaling is None else as_inputs(stored, self._scaling)

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return loss_fn(self._task.loss, outputs, targets)

    def metric(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        return METRICS[self._task.metric].fn(outputs, targets)


def batches_of(split: Split, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `[B, ...]` inputs, the last ones filled up with the first example, and `[n, O]` targets."""
    for first in range(0, len(split.inputs), batch_size):
        rows = np.arange(first, first + batch_size)
        inputs = np.asarray(split.inputs[np.where(rows < len(split.inputs), rows, 0)])
        yield inputs, np.asarray(split.targets[first : first + batch_size])


def measure(
    outputs_of: Callable[[AnyArray], jax.Array],
    batches: Iterator[tuple[AnyArray, AnyArray]],
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """Returns the metric of a network over batches of stored examples."""
    outputs: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for stored, wanted in batches:
        outputs.append(np.asarray(outputs_of(stored))[: len(wanted)])
        targets.append(np.asarray(wanted))
    return metric(np.concatenate(outputs), np.concatenate(targets))


def check_tasks(tasks: Sequence[AnyTask]) -> None:
    """Raises ValueError if one cannot be searched on; loads nothing."""
    if not tasks:
        raise ValueError("There are no tasks; at least one is needed.")
    for task in tasks:
        if isinstance(task, DataTask) and not METRICS[task.metric].higher_is_better:
            raise ValueError(f"{task.name}: {task.metric} is lower when better; a score must be higher.")


def _check_data(task: DataTask, dataset: Dataset) -> tuple[Split, Split]:
    """Returns training and validation data, if they are what the task says."""
    train, valid = dataset.train, dataset.valid
    if dataset.is_tokens or not (isinstance(train, Split) and isinstance(valid, Split)):
        raise ValueError(f"{task.name} has tokens or text; only examples of numbers can be searched on.")
    one = jax.ShapeDtypeStruct((1, *train.inputs.shape[1:]), train.inputs.dtype)
    scaling = dataset.scaling
    found = one if scaling is None else jax.eval_shape(lambda stored: as_inputs(stored, scaling), one)
    if found.shape[1:] != tuple(task.in_shape) or train.targets.shape[1:] != (task.out_features,):
        raise ValueError(
            f"{task.name} was loaded with inputs {found.shape[1:]} and targets {train.targets.shape[1:]}; "
            f"the task has {tuple(task.in_shape)} and {(task.out_features,)}."
        )
    return train, valid
