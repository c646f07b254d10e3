"""Image tasks: data sets of fixed size, read (or built from their sources by published rules) when loaded.

| task | source | what it is |
| --- | --- | --- |
| addnist, multnist, cifartile | rules | built from MNIST or CIFAR-10 by the published rules |
| all of `image_table` but cifar | official | `<name>/{train,valid,test}_{x,y}.npy` of the data folder |
| cifar10, cifar100 | official | the binary version, downloaded if missing |
| cifar10, cifartile by its rules | subset | the subset of CIFAR-10, where only that is in the data folder |
| all | synthetic | a small stand-in of the same shapes |
| npy | a path | arrays of one's own |

Making a task opens no image: shapes are known ("npy" reads the arrays of train). Inputs are standardised per
channel with the statistics of the training images in use (`records.as_inputs`).
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from elenas_jax.tasks.cifar import SUBSET, best_cifar10, read_cifar, source_files
from elenas_jax.tasks.cifar_tiles import build_tiles
from elenas_jax.tasks.data_files import data_folder
from elenas_jax.tasks.derived import derive
from elenas_jax.tasks.image_sets import Layout, Pair, Sizes, check_sizes, loss_and_metric, make_dataset
from elenas_jax.tasks.image_table import IMAGE_SETS, count_outputs, read_official, read_pair
from elenas_jax.tasks.mnist import SOURCES
from elenas_jax.tasks.mnist_triples import RULES, build_triples
from elenas_jax.tasks.npy import read_npz
from elenas_jax.tasks.records import DataError, Dataset
from elenas_jax.tasks.sequences import hold_out
from elenas_jax.tasks.synthetic_images import synthetic_pair
from elenas_jax.types import DataTask

SYNTHETIC_SIZES = Sizes(512, 128, 128)
_DIGESTED = 4096  # examples of large arrays of one's own, by which they are told from others
_SMALL = 2**26  # bytes up to which all examples are
HELD_OUT = 0.2  # of CIFAR's training images, for validation
# Metrics of networks that have learned nothing, or less where that depends on the data; the accuracy is that
# of a choice by chance.
_UNTRAINED = {"roc_auc": 0.5, "pixel_roc_auc": 0.5}
_ZERO = ("mean_average_precision", "macro_f1", "r2", "pixel_r2", "one_minus_relative_l2")
_UNTRAINED |= dict.fromkeys(_ZERO, 0.0)

Maker = Callable[..., DataTask]
Read = Callable[[str], Pair]


def _make(name: str, layout: Layout, reference: float, variant: str, load: Callable[[], Dataset]) -> DataTask:
    loss, metric = loss_and_metric(layout)
    return DataTask(
        name=name,
        in_shape=layout.in_shape,
        out_features=layout.num_outputs,
        loss=loss,
        metric=metric,
        threshold=reference,
        untrained=_UNTRAINED.get(metric, 1 / max(1, layout.num_outputs)),
        weight=1.0,
        variant=variant,
        load=load,
    )


def _known(name: str, source: str, sources: tuple[str, ...], given: Sizes, seed: int) -> DataTask:
    """Makes a task of the table, read from `source`."""
    row = IMAGE_SETS[name]
    check_sizes(name, given, seed)
    if source not in sources:
        raise ValueError(f"{name}: source is {source!r}; known are {', '.join(sources)}.")
    origin = row.title
    read: Read = functools.partial(read_official, data_folder(None) / name, row)
    default = {"synthetic": SYNTHETIC_SIZES, "rules": row.sizes}.get(source, Sizes())
    sizes = Sizes(*(size if size is not None else full for size, full in zip(given, default)))
    if source == "synthetic":
        origin = f"stand-in for {row.title}, generated"
        read = functools.partial(_synthetic, row.layout, sizes, seed)
    elif source == "rules":
        images_of = best_cifar10(None) if name == "cifartile" else "mnist"
        origin = f"{row.title}, by its rules from {images_of}"
        read = functools.partial(_by_rules, name, images_of, sizes, seed)
    elif name in ("cifar10", "cifar100"):
        images_of = {"auto": best_cifar10(None), "subset": SUBSET}.get(source, name)
        origin = f"{row.title}{', the subset through JPEG' if images_of == SUBSET else ''}"
        read = _cifar_reader(images_of)
    variant = f"{origin}, {sizes}, seed {seed}"
    return _make(
        name,
        row.layout,
        row.reference,
        variant,
        lambda: make_dataset(name, row.layout, read, sizes, seed, origin),
    )


def _synthetic(layout: Layout, sizes: Sizes, seed: int, split: str) -> Pair:
    return synthetic_pair(layout, split, getattr(sizes, split), seed)


def _by_rules(name: str, images_of: str, sizes: Sizes, seed: int, split: str) -> Pair:
    """Reads a split of derived arrays, built first where they are missing; test apart from the others."""
    splits = ("test",) if split == "test" else ("train", "valid")
    counts = tuple((each, getattr(sizes, each)) for each in splits)
    settings = {"set": name, "images": images_of, "splits": counts, "seed": seed}
    if name == "cifartile":
        sources = source_files(images_of, "test" if split == "test" else "train")
        build = functools.partial(build_tiles, images_of=images_of)
    else:
        prefix = "t10k" if split == "test" else "train"
        sources = tuple(f"mnist/{file}" for file in SOURCES if file.startswith(prefix))
        build = functools.partial(build_triples, rule=RULES[name])
    build = functools.partial(build, data_dir=None, splits=counts, seed=seed)
    folder = derive(None, name, settings, sources, build)
    return read_pair(folder, split, "delete the folder, and it is built anew.")


def _cifar_reader(images_of: str) -> Read:
    @functools.cache
    def train_parts() -> tuple[Pair, Pair]:
        images, labels = read_cifar(None, images_of, "train")
        is_valid = hold_out(labels, HELD_OUT)
        return (images[~is_valid], labels[~is_valid]), (images[is_valid], labels[is_valid])

    def read(split: str) -> Pair:
        if split == "test":
            return read_cifar(None, images_of, "test")
        return train_parts()[split == "valid"]

    return read


def _ruled(name: str) -> Maker:
    def make(
        *,
        source: Literal["rules", "official", "synthetic"] = "rules",
        num_train: int | None = None,
        num_valid: int | None = None,
        num_test: int | None = None,
        seed: int = 0,
    ) -> DataTask:
        sizes = Sizes(num_train, num_valid, num_test)
        return _known(name, source, ("rules", "official", "synthetic"), sizes, seed)

    return make


def _filed(name: str) -> Maker:
    def make(
        *,
        source: Literal["official", "synthetic"] = "official",
        num_train: int | None = None,
        num_valid: int | None = None,
        num_test: int | None = None,
        seed: int = 0,
    ) -> DataTask:
        return _known(name, source, ("official", "synthetic"), Sizes(num_train, num_valid, num_test), seed)

    return make


def make_cifar10(
    *,
    source: Literal["auto", "official", "subset", "synthetic"] = "auto",
    num_train: int | None = None,
    num_valid: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> DataTask:
    """CIFAR-10; "auto" is the subset if only that is in the data folder, else the official files."""
    sizes = Sizes(num_train, num_valid, num_test)
    return _known("cifar10", source, ("auto", "official", "subset", "synthetic"), sizes, seed)


def make_npy(
    *,
    path: str = "",
    num_train: int | None = None,
    num_valid: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    threshold: float | None = None,
    untrained: float | None = None,
    weight: float = 1.0,
) -> DataTask:
    """Arrays of one's own.

    Args:
      path: a folder with train_x, train_y, valid_x, valid_y, test_x and test_y, each .npy or .npy.xz,
        or an .npz file with arrays of these names. x is `[N, C, ...]` numbers; y is `[N]` whole numbers
        (classes from 0), `[N, O]` whole numbers 0 and 1 (labels), or `[N, ...]` floating numbers to
        predict.
      num_train: examples to use, a random part; None is all. Likewise num_valid and num_test.
      seed: of the random part.
      threshold: of the task; None is 0.9.
      untrained: of the task; None is what the targets imply, with K classes 1 / K.
      weight: of the task.

    Raises:
      DataError: without a path, and for files that cannot be read.
      ValueError: for a size or seed out of range.
    """
    sizes = Sizes(num_train, num_valid, num_test)
    check_sizes("npy", sizes, seed)
    if not path:
        raise DataError("npy: path is empty; it must be a folder of .npy files or an .npz file.")
    place = Path(path).expanduser()
    read = _npz_reader(place) if place.suffix == ".npz" else _folder_reader(place)
    images, targets = read("train")
    layout = count_outputs(images, targets)
    told_apart_by = [images, targets]
    with contextlib.suppress(DataError):  # what is missing is said when the task is loaded
        told_apart_by += read("valid")
    digest = _digest(*told_apart_by)
    name = Path(path).name
    variant = f"{name} {digest}, {sizes}, seed {seed}"
    task = _make(
        "npy",
        layout,
        0.9 if threshold is None else threshold,
        variant,
        lambda: make_dataset("npy", layout, read, sizes, seed, f"arrays of {name}"),
    )
    return task._replace(untrained=task.untrained if untrained is None else untrained, weight=weight)


def _digest(*arrays: np.ndarray) -> str:
    """Returns what tells arrays from others: all of small ones, examples evenly spread over large ones."""
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        num = len(array) if array.nbytes <= _SMALL else min(len(array), _DIGESTED)
        rows = np.linspace(0, len(array) - 1, num).astype(int)
        found.update(f"{array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array[rows]).tobytes())
    return found.hexdigest()


def _folder_reader(folder: Path) -> Read:
    return lambda split: read_pair(folder, split, "it must be there, or the same with .xz.")


def _npz_reader(path: Path) -> Read:
    arrays = functools.cache(lambda: read_npz(path))

    def read(split: str) -> Pair:
        names = (f"{split}_x", f"{split}_y")
        for name in names:
            if name not in arrays():
                raise DataError(f"{path}: the array {name} is missing.")
        return arrays()[names[0]], arrays()[names[1]]

    return read


IMAGE_TASKS: dict[str, Maker] = {
    **{name: _filed(name) for name in IMAGE_SETS},
    **{name: _ruled(name) for name in (*RULES, "cifartile")},
    "cifar10": make_cifar10,
    "npy": make_npy,
}
