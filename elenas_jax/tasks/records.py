"""Records of data sets: labelled sequences, images or text in NumPy arrays."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class DataError(ValueError):
    """Data that cannot be used; the message is one line that names the file."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # a header or name in it may have line breaks


class Scaling(NamedTuple):
    """What makes network inputs of stored images: standardised channels, then zeros around."""

    mean: np.ndarray  # [C] float32
    deviation: np.ndarray  # [C] float32, 1 where a channel is constant
    padding: int = 0  # zeros on each side of every axis but the channels


class Split(NamedTuple):
    """Labelled sequences, padded at the front, or images.

    Images are stored as they were read, often uint8 and often a memory map of a file, because as
    float32 a whole set may take gigabytes: `as_inputs(batch, dataset.scaling)` is what a network gets.
    """

    # [N, T] int32 tokens, 0 is padding; or [N, T, F] float32, zeros are padding; or, of images,
    # [N, C, ...] of any dtype of numbers
    inputs: np.ndarray
    targets: np.ndarray  # [N, O] float32: one-hot classes, 0/1 labels (NaN: not measured), or numbers


def as_inputs(images: jax.Array | np.ndarray, scaling: Scaling) -> jax.Array:
    """Returns `[N, C, ...]` float32 network inputs of stored images; jittable.

    Args:
      images: `[N, C, ...]` rows of `Split.inputs`. Moved to the device as they are stored, a uint8
        image takes a quarter of the memory.
      scaling: a constant under jit (close over it): its padding is part of a shape.
    """
    images = jnp.asarray(images)
    spatial = (1,) * (images.ndim - 2)
    mean, deviation = (np.reshape(part, (-1, *spatial)) for part in scaling[:2])
    standard = (images.astype(jnp.float32) - mean) / deviation
    return jnp.pad(standard, [(0, 0)] * 2 + [(scaling.padding,) * 2] * len(spatial))


class Dataset(NamedTuple):
    """A data set in the form in which blocks are retrained on it.

    Test data are handed out only by `load_test`, which is called once, at the very end; where they
    have a file of their own, it is not opened before.
    """

    name: str  # as given to --task, a path shortened to its last part
    is_tokens: bool  # inputs are tokens (an embedding comes first)
    in_features: int  # F, or of images C, or the number of different tokens, padding counted
    out_features: int  # O; of text the number of words
    time_steps: int | None  # T; None for text and images
    loss: str  # "binary" (masked where NaN), "categorical", "squared" or "language"
    metric: str  # a key of metrics.METRICS
    train: Split | np.ndarray  # of text: [L] int32 words
    valid: Split | np.ndarray
    load_test: Callable[[], Split | np.ndarray]
    labels: tuple[str, ...]  # names of the outputs (classes, assays); empty for text
    note: str  # one line: what, how it is split, sizes
    scaling: Scaling | None = None  # of images: the same in all splits, measured on train
