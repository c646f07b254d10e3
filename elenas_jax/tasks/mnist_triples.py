"""AddNIST and MultNIST: three MNIST digits as the colour channels of one image.

The rules of the CVPR-NAS 2021 competition, track 3 (code: RobGeada/cvpr-nas-datasets). The label is the sum
of the digits minus 1, where that is 0 to 19 (20 classes), or their product modulo 10 (10 classes).
Every class has the same number of examples, all triples of digits of a class are equally likely, and the
images of a digit are drawn at random: those of train and validation from MNIST's training images, those of
test from its test images. Triples are not kept apart.

The organisers made a pool of examples and drew from it with replacement; here each example is drawn anew,
which has the same distribution, but no example is in both train and validation by design. Their
own arrays have no published seed and cannot be made again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.mnist import read_mnist
from elenas_jax.tasks.records import DataError

TRAIN, TEST = 0, 1  # streams of random numbers


class TripleRule(NamedTuple):
    """How three digits make a label."""

    label_fn: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # red, green, blue [N] -> [N]
    num_classes: int  # triples with a label outside 0 .. num_classes - 1 are left out


RULES = {
    "addnist": TripleRule(lambda red, green, blue: red + green + blue - 1, 20),
    "multnist": TripleRule(lambda red, green, blue: red * green * blue % 10, 10),
}


def draw_triples(rule: TripleRule, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[N, 3]` digits and `[N]` labels in random order, as many of each class as of any other."""
    triples = np.indices((10, 10, 10)).reshape(3, -1).T
    values = rule.label_fn(*triples.T)
    labels = rng.permutation(np.arange(count) % rule.num_classes)
    digits = np.empty((count, 3), np.int64)
    for label in range(rule.num_classes):
        members, places = triples[values == label], np.flatnonzero(labels == label)
        digits[places] = members[rng.integers(len(members), size=len(places))]
    return digits, labels


def draw_images(digits: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns, for `[N, 3]` digits, the index of a random image of that digit each.

    Args:
      digits: what is on the images.
      pool: `[M]` digits on the images that there are.
      rng: source of chance.
    """
    chosen = np.empty(digits.shape, np.int64)
    for digit in range(10):
        members, places = np.flatnonzero(pool == digit), digits == digit
        if not len(members):
            raise DataError(f"mnist: there is no image of a {digit}.")
        chosen[places] = members[rng.integers(len(members), size=int(places.sum()))]
    return chosen


def build_triples(
    folder: Path,
    rule: TripleRule,
    data_dir: str | Path | None,
    splits: tuple[tuple[str, int], ...],
    seed: int,
) -> None:
    """Writes `<split>_x.npy`, `[N, 3, 28, 28]` uint8, and `<split>_y.npy`, `[N]` uint8, for each split.

    Args:
      folder: to write into.
      rule: of the labels.
      data_dir: where MNIST is.
      splits: names and sizes; "train" and "valid" together, or "test" alone.
      seed: of all draws.
    """
    is_test = splits[0][0] == "test"
    rng = np.random.default_rng((seed, TEST if is_test else TRAIN))
    images, pool = read_mnist(data_dir, "t10k" if is_test else "train")
    digits, labels = draw_triples(rule, sum(size for _, size in splits), rng)
    chosen = draw_images(digits, pool, rng)
    start = 0
    for split, size in splits:
        rows = slice(start, start + size)
        np.save(folder / f"{split}_x.npy", images[chosen[rows]])
        np.save(folder / f"{split}_y.npy", labels[rows].astype(np.uint8))
        start += size
