"""From arrays of images and targets to a data set: checked, thinned out, one-hot, with the scale of train.

Nothing is copied that need not be: images stay as they are stored, a memory map where they were one.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.records import DataError, Dataset, Scaling, Split

SPLITS = ("train", "valid", "test")
_CHUNK_VALUES = 2**22  # numbers in memory at a time

Pair = tuple[np.ndarray, np.ndarray]  # images [N, C, ...] and targets, as stored


class Layout(NamedTuple):
    """What the arrays of a data set look like."""

    shape: tuple[int, ...]  # of an image as stored: (C, H, W), or (C, L) in one dimension
    num_outputs: int
    kind: str = "classes"  # [N] whole numbers; or "labels", [N, O] of 0 and 1; or "numbers", [N, ...]
    padding: int = 0  # zeros on each side after standardising
    metric: str = ""  # a key of METRICS; nothing is the usual one of the kind

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape that a network gets."""
        return self.shape[:1] + tuple(size + 2 * self.padding for size in self.shape[1:])

    @property
    def is_dense(self) -> bool:
        """Whether there is a target for each pixel."""
        return self.kind != "classes" and self.num_outputs == math.prod(self.shape[1:])


_LOSSES = {"classes": "categorical", "labels": "binary", "numbers": "squared"}
_METRICS = {"classes": "accuracy", "labels": "roc_auc", "numbers": "r2"}


def loss_and_metric(layout: Layout) -> tuple[str, str]:
    """Returns the names of the loss that is minimised and of the metric that is reported."""
    return _LOSSES[layout.kind], layout.metric or _METRICS[layout.kind]


class Sizes(NamedTuple):
    """Examples of each split to use; None is all there are."""

    train: int | None = None
    valid: int | None = None
    test: int | None = None

    def __str__(self) -> str:
        return " + ".join("all" if size is None else str(size) for size in self)


def check_sizes(name: str, sizes: Sizes, seed: int) -> None:
    """Raises ValueError, or TypeError for other than whole numbers."""
    settings = {f"num_{split}": size for split, size in zip(SPLITS, sizes) if size is not None} | {
        "seed": seed
    }
    for setting, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: {setting} is {value!r}; it must be a whole number.")
        low = 0 if setting == "seed" else 1
        if value < low:
            raise ValueError(f"{name}: {setting} is {value}; it must be at least {low}.")


def make_dataset(
    name: str, layout: Layout, read: Callable[[str], Pair], sizes: Sizes, seed: int, origin: str
) -> Dataset:
    """Makes the data set; test arrays are read when they are asked for.

    Args:
      name: of the task.
      layout: that the arrays must have.
      read: split -> images and targets.
      sizes: a smaller number takes a random part of a split, in its order.
      seed: of that part.
      origin: what the arrays are, for the note.
    """

    def make_split(split: str) -> Split:
        images, targets = check_pair(f"{name}/{split}", *read(split), layout)
        wanted, there = getattr(sizes, split), len(images)
        if wanted is not None and wanted > there:
            raise DataError(f"{name}: num_{split} is {wanted:,}, but there are {there:,} {split} examples.")
        if wanted is not None and wanted < there:
            rng = np.random.default_rng((seed, SPLITS.index(split)))
            rows = np.sort(rng.permutation(there)[:wanted])
            images, targets = images[rows], targets[rows]
        return Split(images, _as_targets(targets, layout))

    train, valid = make_split("train"), make_split("valid")
    loss, metric = loss_and_metric(layout)
    stored = "x".join(map(str, layout.shape))
    return Dataset(
        name=name,
        is_tokens=False,
        in_features=layout.shape[0],
        out_features=layout.num_outputs,
        time_steps=None,
        loss=loss,
        metric=metric,
        train=train,
        valid=valid,
        load_test=lambda: make_split("test"),
        labels=tuple(str(number) for number in range(layout.num_outputs)),
        note=f"{origin}: {len(train.inputs):,} train and {len(valid.inputs):,} validation images of {stored}",
        scaling=measure_scaling(train.inputs, layout.padding),
    )


def check_pair(where: str, images: np.ndarray, targets: np.ndarray, layout: Layout) -> Pair:
    """Returns images as `[N, *shape]` and targets, or raises DataError.

    Images without the axis of a single channel get it.
    """
    shape = layout.shape
    if shape[0] == 1 and images.shape[1:] == shape[1:]:
        images = images.reshape(len(images), *shape)
    if images.shape[1:] != shape or images.dtype.kind not in "buif" or not len(images):
        raise DataError(f"{where}: images are {_describe(images)}; they must be [N, {_list(shape)}] numbers.")
    if not images.dtype.isnative:
        images = images.astype(images.dtype.newbyteorder("="))
    if targets.ndim < 1 or len(targets) != len(images):
        raise DataError(f"{where}: {len(images):,} images and targets {_describe(targets)}.")
    for start, chunk in _chunks(images):
        if chunk.dtype.kind == "f" and not np.isfinite(chunk).all():
            first = start + int(np.argwhere(~np.isfinite(chunk))[0][0])
            raise DataError(f"{where}: image {first} has a value that is not finite.")
    if layout.kind == "classes":
        _check_classes(where, targets, layout.num_outputs)
        return images, targets
    flat = targets.reshape(len(targets), -1)
    if flat.shape[1] != layout.num_outputs or targets.dtype.kind not in "buif":
        raise DataError(
            f"{where}: targets are {_describe(targets)}; they must be {layout.num_outputs} numbers each."
        )
    if not np.isfinite(flat).all():
        raise DataError(f"{where}: there is a target that is not finite.")
    if layout.kind == "labels" and not np.isin(flat, (0, 1)).all():
        raise DataError(f"{where}: there is a target other than 0 and 1.")
    return images, flat


def _check_classes(where: str, targets: np.ndarray, num_classes: int) -> None:
    if targets.ndim != 1 or targets.dtype.kind not in "buif":
        raise DataError(f"{where}: targets are {_describe(targets)}; they must be [N] classes.")
    wrong = ~np.isin(targets, np.arange(num_classes))
    if wrong.any():
        raise DataError(
            f"{where}: there is a class {targets[wrong][0]}; they must be 0 to {num_classes - 1}."
        )


def _as_targets(targets: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.kind == "classes":
        return np.eye(layout.num_outputs, dtype=np.float32)[targets.astype(np.int64)]
    return targets.astype(np.float32)


def measure_scaling(images: np.ndarray, padding: int) -> Scaling:
    """Returns mean and deviation of each channel of `[N, C, ...]` images, a chunk at a time."""
    axes = (0, *range(2, images.ndim))
    count = math.prod(images.shape) / images.shape[1]
    mean = sum(np.sum(chunk, axis=axes, dtype=np.float64) for _, chunk in _chunks(images)) / count
    column = np.reshape(mean, (-1, *(1,) * (images.ndim - 2)))
    squares = (np.sum(np.square(chunk - column), axis=axes) for _, chunk in _chunks(images))
    deviation = np.sqrt(sum(squares) / count)
    is_constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1.0)
    return Scaling(
        np.asarray(mean, np.float32), np.where(is_constant, 1.0, deviation).astype(np.float32), padding
    )


def _chunks(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, _CHUNK_VALUES // math.prod(images.shape[1:]))
    return ((start, images[start : start + rows]) for start in range(0, len(images), rows))


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} [{_list(array.shape)}]"


def _list(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
