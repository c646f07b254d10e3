"""The image data sets that are known by name: shapes, sizes, where their official files are.

Unseen NAS (Geada et al. 2024): shapes and sizes as in Ericsson et al. (2024). The files, CC BY 4.0, are on
the data store of Newcastle University; no checksums of them are published, so shapes, counts, classes and
finite values are checked instead. NAS-Bench-360 (Tu et al. 2022): in this project's layout of files.
Metrics are such that more is better: where the benchmark has an error, 1 minus it (but see PSICOV). Darcy
Flow, PSICOV and Cosmic have a target for each pixel. Data of one's own are read as "npy".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.image_sets import SPLITS, Layout, Pair, Sizes
from elenas_jax.tasks.npy import find_npy, read_npy
from elenas_jax.tasks.records import DataError

MOST_CLASSES = 100_000  # of arrays of one's own: targets of more are no classes


class ImageSet(NamedTuple):
    """One row of the table."""

    title: str
    layout: Layout
    sizes: Sizes  # as published
    by_hand: str  # how to get the official files; nothing for CIFAR, see tasks/cifar.py
    reference: float  # the default threshold, where there is one a published hand-made network's test metric


def _unseen(title: str, layout: Layout, sizes: Sizes, article: int, reference: float) -> ImageSet:
    by_hand = f"get {title} from https://doi.org/10.25405/data.ncl.{article} and unzip it there."
    return ImageSet(title, layout, sizes, by_hand, reference)


_CONVERT = (
    "convert the official files (https://github.com/rtu715/NAS-Bench-360) to {train,valid,test}_{x,y}.npy "
    "and put them there."
)
_NINAPRO = (
    "get ninapro_{train,val,test}.npy and label_{train,val,test}.npy from "
    "https://pde-xd.s3.amazonaws.com/ninapro/ and name them {train,valid,test}_x.npy and ..._y.npy."
)

# Reference: ResNet18 as trained by Ericsson et al. (2024, table 1; for CIFAR-10 1 - its error), and the
# WRN of their table 6.
IMAGE_SETS = {
    "addnist": _unseen("AddNIST", Layout((3, 28, 28), 20), Sizes(45_000, 15_000, 10_000), 24574354, 0.9336),
    "multnist": _unseen("MultNIST", Layout((3, 28, 28), 10), Sizes(50_000, 10_000, 10_000), 24574678, 0.9136),
    "cifartile": _unseen(
        "CIFARTile", Layout((3, 64, 64), 4), Sizes(45_000, 15_000, 10_000), 24551539, 0.4713
    ),
    "language": _unseen("Language", Layout((1, 24, 24), 10), Sizes(50_000, 10_000, 10_000), 24574729, 0.9216),
    "gutenberg": _unseen("Gutenberg", Layout((1, 27, 18), 6), Sizes(45_000, 15_000, 6_000), 24574753, 0.4332),
    "geoclassing": _unseen(
        "GeoClassing", Layout((3, 64, 64), 10), Sizes(43_821, 8_758, 8_751), 24050256, 0.9008
    ),
    "chesseract": _unseen(
        "Chesseract", Layout((12, 8, 8), 3, padding=5), Sizes(49_998, 9_999, 9_999), 24118743, 0.5935
    ),
    "isabella": ImageSet(
        "Isabella",
        Layout((1, 64, 128), 4),
        Sizes(50_000, 10_000, 10_000),
        "it is not published, for its licence; put {train,valid,test}_{x,y}.npy of your own there.",
        0.6365,
    ),
    "cifar10": ImageSet("CIFAR-10", Layout((3, 32, 32), 10), Sizes(40_000, 10_000, 10_000), "", 0.9491),
    "cifar100": ImageSet("CIFAR-100", Layout((3, 32, 32), 100), Sizes(40_000, 10_000, 10_000), "", 0.7439),
    "spherical": ImageSet(
        "Spherical CIFAR-100",
        Layout((3, 60, 60), 100),
        Sizes(40_000, 10_000, 10_000),
        _CONVERT,
        0.2368,
    ),
    "ninapro": ImageSet("NinaPro DB5", Layout((1, 16, 52), 18), Sizes(2_638, 659, 659), _NINAPRO, 0.8968),
    "satellite": ImageSet(
        "Satellite", Layout((1, 46), 24), Sizes(800_000, 100_000, 100_000), _CONVERT, 0.8471
    ),
    "deepsea": ImageSet(
        "DeepSEA", Layout((4, 1000), 36, "labels"), Sizes(71_753, 2_490, 149_400), _CONVERT, 0.55
    ),
    "ecg": ImageSet(
        "ECG",
        Layout((1, 1000), 4, metric="macro_f1"),
        Sizes(261_740, 33_281, 33_494),
        _CONVERT,
        0.41,
    ),
    # Clips as log-mel spectrograms; sizes are those of FSD50K's own splits (Fonseca et al. 2022).
    "fsd50k": ImageSet(
        "FSD50K",
        Layout((1, 101, 96), 200, "labels", metric="mean_average_precision"),
        Sizes(36_796, 4_170, 10_231),
        _CONVERT,
        0.08,
    ),
    "darcy": ImageSet(
        "Darcy Flow",
        Layout((1, 85, 85), 85 * 85, "numbers", metric="one_minus_relative_l2"),
        Sizes(900, 100, 100),
        _CONVERT,
        0.968,
    ),
    # A pixel is a pair of residues. Distances above 16 Angstrom are 16, and so is what pads small proteins,
    # as in the code of Ericsson et al. (2024), who search by the squared error. There the test is
    # apart: whole proteins in windows, the error of distant residues below 8 Angstrom (MAE8). Not so here, so
    # nothing published is a reference. Arrays of float16 take 6 GB.
    "psicov": ImageSet(
        "PSICOV and DeepCov",
        Layout((57, 128, 128), 128 * 128, "numbers", metric="pixel_r2"),
        Sizes(3_356, 100, 150),
        _CONVERT,
        0.5,
    ),
    # 128 pixels a side, as in the public code; the benchmark's images have 256.
    "cosmic": ImageSet(
        "Cosmic",
        Layout((1, 128, 128), 128 * 128, "labels", metric="pixel_roc_auc"),
        Sizes(4_347, 483, 420),
        _CONVERT,
        0.755,
    ),
}


def read_pair(folder: Path, split: str, by_hand: str) -> Pair:
    """Returns the arrays `<split>_x` and `<split>_y` of a folder, each .npy or .npy.xz."""
    paths = []
    for part in ("x", "y"):
        path = find_npy(folder, f"{split}_{part}")
        if path is None:
            raise DataError(f"{folder / f'{split}_{part}.npy'}: no such file; {by_hand}")
        paths.append(path)
    return read_npy(paths[0]), read_npy(paths[1])


def read_official(folder: Path, row: ImageSet, split: str) -> Pair:
    """As `read_pair`, and checks the number of examples.

    The official files and the papers do not agree on where train ends and validation begins, so
    these two are counted together.
    """
    counted = SPLITS[:2] if split in SPLITS[:2] else (split,)
    pairs = {name: read_pair(folder, name, row.by_hand) for name in counted}
    found = sum(len(images) for images, _ in pairs.values())
    expected = sum(getattr(row.sizes, name) for name in counted)
    if found != expected:
        what = " and ".join(counted)
        raise DataError(f"{folder}: {found:,} {what} images; {row.title} has {expected:,}.")
    return pairs[split]


def count_outputs(images: np.ndarray, targets: np.ndarray) -> Layout:
    """Returns the layout of arrays of one's own, see `images.make_npy`.

    Raises:
      DataError: if they are no images, or no targets of them.
    """
    shape = images.shape[1:]
    for name, array, least in (("x", images, 2), ("y", targets, 1)):
        if array.ndim < least or array.dtype.kind not in "buif":
            raise DataError(
                f"npy: train_{name} is {array.dtype} of shape {array.shape}; it must be numbers of at least "
                f"{least} axes."
            )
    if targets.ndim == 1 and targets.dtype.kind != "f" and targets.max(initial=0) >= MOST_CLASSES:
        raise DataError(
            f"npy: there is a class {targets.max()} in train_y; the largest allowed is {MOST_CLASSES - 1}."
        )
    if targets.dtype.kind == "f":
        return Layout(shape, int(np.prod(targets.shape[1:])), "numbers")
    if targets.ndim == 1:
        return Layout(shape, int(targets.max(initial=0)) + 1)
    return Layout(shape, targets.shape[1], "labels")
