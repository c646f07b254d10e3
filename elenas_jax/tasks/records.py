"""Records of data sets: labelled sequences or text in NumPy arrays, and what to train on them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class DataError(ValueError):
    """Data that cannot be used; the message is one line that names the file."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # a header or name in it may have line breaks


class Split(NamedTuple):
    """Labelled sequences, padded at the front."""

    inputs: np.ndarray  # [N, T] int32 tokens, 0 is padding; or [N, T, F] float32, zeros are padding
    targets: np.ndarray  # [N, O] float32: one-hot classes, 0/1 labels (NaN: not measured), or numbers


class Dataset(NamedTuple):
    """A data set in the form in which blocks are retrained on it.

    Test data are handed out only by `load_test`, which is called once, at the very end; where they
    have a file of their own, it is not opened before.
    """

    name: str  # as given to --task, a path shortened to its last part
    is_tokens: bool  # inputs are tokens (an embedding comes first)
    in_features: int  # F, or the number of different tokens, padding counted
    out_features: int  # O; of text the number of words
    time_steps: int | None  # T; None for text
    loss: str  # "binary" (masked where NaN), "categorical", "squared" or "language"
    metric: str  # a key of metrics.METRICS
    train: Split | np.ndarray  # of text: [L] int32 words
    valid: Split | np.ndarray
    load_test: Callable[[], Split | np.ndarray]
    labels: tuple[str, ...]  # names of the outputs (classes, assays); empty for text
    note: str  # one line: what, how it is split, sizes
