"""CIFARTile: four CIFAR-10 images in a 2 x 2 grid; how many different classes do they have?

The rules of the CVPR-NAS 2021 competition, track 3 (code: RobGeada/cvpr-nas-datasets). The number of classes,
1 to 4, is drawn uniformly (the label is that number minus 1), then as many different classes. One class: four
images of it; two: two each; three: two of the first and one of each other; four: one each. Images of a
class are drawn without repetition, and the four are put into the grid in random order. Train and
validation come from training images, each cropped at random to 32 x 32 after padding by 4 and flipped in
half of the cases; test comes from test images as they are.
"""

from pathlib import Path

import numpy as np

from elenas_jax.tasks.cifar import SHAPE, read_cifar
from elenas_jax.tasks.records import DataError

CLASSES = 4
PADDING = 4
TRAIN, TEST = 0, 1  # streams of random numbers
_PATTERNS = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 2], [0, 1, 2, 3]])  # which of the drawn classes
_CHUNK = 1000  # examples in memory at a time


def draw_tiles(pool: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[N, 4]` different images by index, in the order of the grid, and `[N]` labels.

    Args:
      pool: `[M]` classes of the images that there are.
      count: N.
      rng: source of chance.
    """
    classes, sizes = np.unique(pool, return_counts=True)
    if len(classes) < CLASSES or min(sizes, default=0) < 4:
        raise DataError(
            f"cifartile: {len(classes)} classes of {min(sizes, default=0)} images or more; it needs 4 of 4."
        )
    by_class = np.argsort(pool, kind="stable")
    first = np.cumsum(sizes) - sizes
    labels = rng.integers(CLASSES, size=count)
    drawn = rng.permuted(np.tile(np.arange(len(classes)), (count, 1)), axis=1)[:, :CLASSES]
    which = np.take_along_axis(drawn, _PATTERNS[labels], axis=1)
    chosen = np.empty((count, 4), np.int64)
    rows = np.arange(count)
    while len(rows):  # redrawn until the four differ, so every set of different images is equally likely
        kinds = which[rows]
        chosen[rows] = by_class[first[kinds] + rng.integers(sizes[kinds])]
        in_order = np.sort(chosen[rows], axis=1)
        rows = rows[(in_order[:, 1:] == in_order[:, :-1]).any(axis=1)]
    return rng.permuted(chosen, axis=1), labels


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns `[N, C, H, W]` images, each cropped after padding with zeros, half of them flipped."""
    height, width = images.shape[2:]
    padded = np.pad(images, [(0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    top, left = rng.integers(2 * PADDING + 1, size=(2, len(images)))
    cropped = windows[np.arange(len(images)), :, top, left]
    flipped = rng.random(len(images)) < 0.5
    cropped[flipped] = cropped[flipped, :, :, ::-1]
    return cropped


def arrange(images: np.ndarray) -> np.ndarray:
    """Returns `[N, C, 2 H, 2 W]` grids of `[N, 4, C, H, W]` images, row by row."""
    count, _, channels, height, width = images.shape
    grid = images.reshape(count, 2, 2, channels, height, width).transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(count, channels, 2 * height, 2 * width)


def build_tiles(
    folder: Path, images_of: str, data_dir: str | Path | None, splits: tuple[tuple[str, int], ...], seed: int
) -> None:
    """Writes `<split>_x.npy`, `[N, 3, 64, 64]` uint8, and `<split>_y.npy`, `[N]` uint8, for each split.

    Args:
      folder: to write into; a file grows there chunk by chunk, never whole in memory.
      images_of: "cifar10" or "cifar10_subset".
      data_dir: where they are.
      splits: names and sizes; "train" and "valid", or "test" alone.
      seed: of all draws.
    """
    is_test = splits[0][0] == "test"
    rng = np.random.default_rng((seed, TEST if is_test else TRAIN))
    images, pool = read_cifar(data_dir, images_of, "test" if is_test else "train")
    channels, height, width = SHAPE
    for split, size in splits:
        chosen, labels = draw_tiles(pool, size, rng)
        tiles = np.lib.format.open_memmap(
            folder / f"{split}_x.npy", "w+", np.uint8, (size, channels, 2 * height, 2 * width)
        )
        for start in range(0, size, _CHUNK):
            parts = images[chosen[start : start + _CHUNK].reshape(-1)]
            parts = parts if is_test else augment(parts, rng)
            tiles[start : start + _CHUNK] = arrange(parts.reshape(-1, 4, *SHAPE))
        tiles.flush()
        np.save(folder / f"{split}_y.npy", labels.astype(np.uint8))
