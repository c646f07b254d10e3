"""Sequential MNIST: handwritten digits read row by row or pixel by pixel (Le et al. 2015).

Pixels are divided by 255 and normalised with mean 0.1307 and deviation 0.3081, those of the
training set. The last 5,000 of the 60,000 training images are the validation data.
"""

import math
import struct
from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import Source, read_file
from elenas_jax.tasks.records import DataError, Dataset, Split

VALID_IMAGES = 5_000
MEAN, DEVIATION = 0.1307, 0.3081
_SIDE = 28
_CLASSES = 10
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SOURCES = {
    name: Source(
        urls=(
            f"http://yann.lecun.com/exdb/mnist/{name}.gz",
            f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
        ),
        sha256={f"mnist/{name}": sha256},
        by_hand="get it elsewhere, gzipped or plain, and put it there.",
    )
    for name, sha256 in _SHA256.items()
}


def load_mnist_rows(data_dir: str | Path | None = None) -> Dataset:
    """Loads images as `[N, 28, 28]`: 28 steps, each a row of pixels."""
    return _load(data_dir, "mnist_rows", (_SIDE, _SIDE), "row by row")


def load_mnist_pixels(data_dir: str | Path | None = None) -> Dataset:
    """Loads images as `[N, 784, 1]`: 784 steps, each one pixel."""
    return _load(data_dir, "mnist_pixels", (_SIDE * _SIDE, 1), "pixel by pixel")


def _load(data_dir: str | Path | None, name: str, shape: tuple[int, int], how: str) -> Dataset:
    inputs, targets = _read_split(data_dir, "train", shape)
    num_train = len(inputs) - VALID_IMAGES
    if num_train < 1:
        raise DataError(f"mnist: {len(inputs):,} training images; validation alone takes {VALID_IMAGES:,}.")
    return Dataset(
        name=name,
        is_tokens=False,
        in_features=shape[1],
        out_features=_CLASSES,
        time_steps=shape[0],
        loss="categorical",
        metric="accuracy",
        train=Split(inputs[:num_train], targets[:num_train]),
        valid=Split(inputs[num_train:], targets[num_train:]),
        load_test=lambda: _read_split(data_dir, "t10k", shape),
        labels=tuple(str(digit) for digit in range(_CLASSES)),
        note=(
            f"MNIST {how}: {num_train:,} train and {VALID_IMAGES:,} validation images, "
            "the last of the training images"
        ),
    )


def _read_split(data_dir: str | Path | None, prefix: str, shape: tuple[int, int]) -> Split:
    images = _read_idx(data_dir, f"{prefix}-images-idx3-ubyte", num_dims=3)
    labels = _read_idx(data_dir, f"{prefix}-labels-idx1-ubyte", num_dims=1)
    if images.shape[1:] != (_SIDE, _SIDE) or len(images) != len(labels):
        raise DataError(
            f"mnist/{prefix}: images are {list(images.shape)} and labels {list(labels.shape)}; "
            f"they must be [N, {_SIDE}, {_SIDE}] and [N]."
        )
    if labels.max(initial=0) >= _CLASSES:
        raise DataError(f"mnist/{prefix}: there is a label {labels.max()}; they must be 0 to {_CLASSES - 1}.")
    levels = ((np.arange(256) / 255 - MEAN) / DEVIATION).astype(np.float32)
    one_hot = np.eye(_CLASSES, dtype=np.float32)
    return Split(levels[images].reshape(-1, *shape), one_hot[labels])


def _read_idx(data_dir: str | Path | None, name: str, num_dims: int) -> np.ndarray:
    """Reads unsigned bytes in the idx format: a magic number, sizes (big-endian), values."""
    content = read_file(data_dir, f"mnist/{name}", SOURCES[name])
    magic, header = 0x0800 + num_dims, 4 * (1 + num_dims)
    sizes = struct.unpack(f">{1 + num_dims}i", content[:header]) if len(content) >= header else (0,)
    if sizes[0] != magic:
        raise DataError(f"mnist/{name}: not an idx file of {num_dims}-dimensional bytes.")
    shape = sizes[1:]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"mnist/{name}: {len(content):,} bytes, but its header says {expected:,}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
