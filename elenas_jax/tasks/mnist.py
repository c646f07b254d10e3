"""MNIST: 70,000 handwritten digits of 28 x 28 grey levels, in four idx files (LeCun et al. 1998)."""

from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import Source, read_file
from elenas_jax.tasks.idx import parse_idx
from elenas_jax.tasks.records import DataError

SIDE = 28
CLASSES = 10
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


def read_mnist(data_dir: str | Path | None, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[N, 28, 28]` uint8 images and `[N]` uint8 digits.

    Args:
      data_dir: see `data_files.data_folder`.
      prefix: "train" (60,000 images) or "t10k", the test images.
    """
    images = _read_idx(data_dir, f"{prefix}-images-idx3-ubyte", num_dims=3)
    labels = _read_idx(data_dir, f"{prefix}-labels-idx1-ubyte", num_dims=1)
    if images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels):
        raise DataError(
            f"mnist/{prefix}: images are {list(images.shape)} and labels {list(labels.shape)}; "
            f"they must be [N, {SIDE}, {SIDE}] and [N]."
        )
    if labels.max(initial=0) >= CLASSES:
        raise DataError(f"mnist/{prefix}: there is a label {labels.max()}; they must be 0 to {CLASSES - 1}.")
    return images, labels


def _read_idx(data_dir: str | Path | None, name: str, num_dims: int) -> np.ndarray:
    return parse_idx(read_file(data_dir, f"mnist/{name}", SOURCES[name]), f"mnist/{name}", num_dims)
