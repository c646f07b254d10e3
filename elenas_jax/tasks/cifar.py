"""CIFAR-10 and CIFAR-100: small colour images (Krizhevsky 2009), in their binary version.

A file is a row of records: one byte for the class (CIFAR-100: one for the superclass and one for the
class), then 3 x 32 x 32 bytes, channel by channel, row by row.

Where the official files are not at hand there may be a subset of CIFAR-10 in the data folder, in .npy
files: 1,000 training and 200 test images of each class, which went through JPEG, so that accuracies on it
do not compare with published ones.
"""

from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import Source, data_folder, find_file, read_file
from elenas_jax.tasks.npy import find_npy, read_npy
from elenas_jax.tasks.records import DataError

SHAPE = (3, 32, 32)
_PAGE = "https://www.cs.toronto.edu/~kriz"
_BY_HAND = f"get the binary version from {_PAGE}/cifar.html and put its .bin files there."
SOURCES = {
    "cifar10": Source(
        urls=(f"{_PAGE}/cifar-10-binary.tar.gz",),
        sha256={
            "cifar10/data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "cifar10/data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "cifar10/data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "cifar10/data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "cifar10/data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "cifar10/test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        by_hand=_BY_HAND,
        archive_folder="cifar-10-batches-bin",
    ),
    "cifar100": Source(
        urls=(f"{_PAGE}/cifar-100-binary.tar.gz",),
        sha256={
            "cifar100/train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "cifar100/test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        },
        by_hand=_BY_HAND,
        archive_folder="cifar-100-binary",
    ),
}
SUBSET = "cifar10_subset"
_CLASSES = {"cifar10": 10, "cifar100": 100, SUBSET: 10}


def best_cifar10(data_dir: str | Path | None) -> str:
    """Returns "cifar10", or "cifar10_subset" if only that one is in the data folder."""
    folder = data_folder(data_dir)
    has_official = all(find_file(folder, name) for name in SOURCES["cifar10"].sha256)
    has_subset = find_npy(folder / SUBSET, "train_images") is not None
    return SUBSET if has_subset and not has_official else "cifar10"


def source_files(name: str, part: str) -> tuple[str, ...]:
    """Returns the files of `read_cifar`, relative to the data folder, without `.gz`."""
    if name == SUBSET:
        return (f"{SUBSET}/{part}_images.npy.xz", f"{SUBSET}/{part}_labels.npy")
    return tuple(file for file in SOURCES[name].sha256 if ("test" in file) == (part == "test"))


def read_cifar(data_dir: str | Path | None, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[N, 3, 32, 32]` uint8 images and `[N]` uint8 classes.

    Args:
      data_dir: see `data_files.data_folder`.
      name: "cifar10", "cifar100" (downloaded if missing) or "cifar10_subset".
      part: "train" or "test".
    """
    if name == SUBSET:
        images, labels = _read_subset(data_folder(data_dir) / SUBSET, part)
    else:
        pieces = [_read_records(data_dir, name, file) for file in source_files(name, part)]
        images, labels = (np.concatenate(arrays) for arrays in zip(*pieces))
    if labels.max(initial=0) >= _CLASSES[name]:
        raise DataError(f"{name}/{part}: there is a class {labels.max()}; the last is {_CLASSES[name] - 1}.")
    return images, labels


def _read_records(data_dir: str | Path | None, name: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    content = read_file(data_dir, file, SOURCES[name])
    num_labels = 2 if name == "cifar100" else 1
    record = num_labels + int(np.prod(SHAPE))
    if not content or len(content) % record:
        raise DataError(f"{file}: {len(content):,} bytes; it must be records of {record:,} bytes.")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, num_labels:].reshape(-1, *SHAPE), records[:, num_labels - 1]


def _read_subset(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for kind in ("images", "labels"):
        path = find_npy(folder, f"{part}_{kind}")
        if path is None:
            raise DataError(f"{folder}/{part}_{kind}.npy: no such file, nor .npy.xz.")
        arrays.append(read_npy(path))
    images, labels = arrays
    is_bytes = images.dtype == labels.dtype == np.uint8
    if not is_bytes or images.shape[1:] != SHAPE or labels.shape != images.shape[:1]:
        raise DataError(
            f"{folder}: {part} is {images.dtype} {list(images.shape)} and {labels.dtype} "
            f"{list(labels.shape)}; it must be uint8 [N, {', '.join(map(str, SHAPE))}] and [N]."
        )
    return images, labels
