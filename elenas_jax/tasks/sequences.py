"""From series of different length to one array: standardised, cut or padded, held out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.records import DataError

LARGEST = float(np.finfo(np.float32).max)


class Scale(NamedTuple):
    """Mean and deviation of each feature, `[F]` float64."""

    mean: np.ndarray
    deviation: np.ndarray  # 1 where a feature is constant


def measure_scale(series: Sequence[np.ndarray]) -> Scale:
    """Returns the scale of all steps of `[t, F]` series of at most `LARGEST`, NaN left out."""
    steps = np.concatenate(series)
    known = ~np.isnan(steps)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, steps, 0.0).sum(axis=0) / count
    variance = np.where(known, np.square(steps - mean), 0.0).sum(axis=0) / count
    # A constant feature differs from its rounded mean by the last bits only.
    is_constant = np.sqrt(variance) <= 1e-12 * np.abs(mean)
    return Scale(mean, np.where(is_constant, 1.0, np.sqrt(variance)))


def standardise(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Returns `[..., F]` float32, all finite: a value that is NaN becomes 0, the mean."""
    standard = (values - scale.mean) / scale.deviation
    return np.clip(np.where(np.isnan(standard), 0.0, standard), -LARGEST, LARGEST).astype(np.float32)


def stack(series: Sequence[np.ndarray], time_steps: int, scale: Scale) -> np.ndarray:
    """Returns `[N, time_steps, F]` float32 of standardised `[t, F]` series.

    Shorter ones are padded with zeros at the front, longer ones keep their last steps.
    """
    values = np.zeros((len(series), time_steps, len(scale.mean)), np.float32)
    for number, each in enumerate(series):
        steps = standardise(each[-time_steps:], scale)
        values[number, time_steps - len(steps) :] = steps
    return values


def hold_out(classes: np.ndarray, share: float) -> np.ndarray:
    """Returns `[N]` booleans, True for about `share` of each of the `[N]` classes; always the same.

    At least one example of a class is held out if it has two, and at least one is not.
    """
    held_out = np.zeros(len(classes), bool)
    rng = np.random.default_rng(0)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        number = min(max(1, round(share * len(members))), len(members) - 1)
        held_out[rng.permutation(members)[:number]] = True
    return held_out


def one_hot(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Returns `[N, O]` float32 of names among `classes`."""
    index = {name: number for number, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[index[name] for name in names]]


def check_classes(where: str, classes: Sequence[str], labels: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError unless train has two classes and all labels are among its own.

    Args:
      where: the file, for the error.
      classes: those of train.
      labels: of the examples of each split.
    """
    for split, names in labels.items():
        strange = sorted(set(names) - set(classes))
        if strange:
            raise DataError(f"{where}: label {strange[0]!r} is in {split}, but not in train.")
    if len(classes) < 2:
        raise DataError(f"{where}: all labels of train are {classes[0]!r}; there must be two classes.")
