"""Sequential MNIST: handwritten digits read row by row or pixel by pixel (Le et al. 2015).

Pixels are divided by 255 and normalised with mean 0.1307 and deviation 0.3081, those of the
training set. The last 5,000 of the 60,000 training images are the validation data.
"""

from pathlib import Path

import numpy as np

from elenas_jax.tasks.mnist import CLASSES, SIDE, read_mnist
from elenas_jax.tasks.records import DataError, Dataset, Split

VALID_IMAGES = 5_000
MEAN, DEVIATION = 0.1307, 0.3081


def load_mnist_rows(data_dir: str | Path | None = None) -> Dataset:
    """Loads images as `[N, 28, 28]`: 28 steps, each a row of pixels."""
    return _load(data_dir, "mnist_rows", (SIDE, SIDE), "row by row")


def load_mnist_pixels(data_dir: str | Path | None = None) -> Dataset:
    """Loads images as `[N, 784, 1]`: 784 steps, each one pixel."""
    return _load(data_dir, "mnist_pixels", (SIDE * SIDE, 1), "pixel by pixel")


def _load(data_dir: str | Path | None, name: str, shape: tuple[int, int], how: str) -> Dataset:
    inputs, targets = _read_split(data_dir, "train", shape)
    num_train = len(inputs) - VALID_IMAGES
    if num_train < 1:
        raise DataError(f"mnist: {len(inputs):,} training images; validation alone takes {VALID_IMAGES:,}.")
    return Dataset(
        name=name,
        is_tokens=False,
        in_features=shape[1],
        out_features=CLASSES,
        time_steps=shape[0],
        loss="categorical",
        metric="accuracy",
        train=Split(inputs[:num_train], targets[:num_train]),
        valid=Split(inputs[num_train:], targets[num_train:]),
        load_test=lambda: _read_split(data_dir, "t10k", shape),
        labels=tuple(str(digit) for digit in range(CLASSES)),
        note=(
            f"MNIST {how}: {num_train:,} train and {VALID_IMAGES:,} validation images, "
            "the last of the training images"
        ),
    )


def _read_split(data_dir: str | Path | None, prefix: str, shape: tuple[int, int]) -> Split:
    images, labels = read_mnist(data_dir, prefix)
    levels = ((np.arange(256) / 255 - MEAN) / DEVIATION).astype(np.float32)
    one_hot = np.eye(CLASSES, dtype=np.float32)
    return Split(levels[images].reshape(-1, *shape), one_hot[labels])
