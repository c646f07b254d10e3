"""Small image files in the official formats, with random pixels."""

import gzip
import lzma
import struct

import numpy as np


def write_idx(folder, name, array):
    header = struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape)
    path = folder / "mnist" / f"{name}.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))


def write_mnist(folder, per_digit=3):
    """Writes images whose pixels say what they are: [0, 0] the digit, [0, 1] the copy, [0, 2] 1 for test."""
    for prefix in ("train", "t10k"):
        digits = np.tile(np.arange(10, dtype=np.uint8), per_digit)
        images = np.zeros((len(digits), 28, 28), np.uint8)
        images[:, 0, 0] = digits
        images[:, 0, 1] = np.arange(len(digits)) // 10
        images[:, 0, 2] = prefix == "t10k"
        write_idx(folder, f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder, f"{prefix}-labels-idx1-ubyte", digits)


def cifar_images(classes, is_test):
    """Returns images of one colour: 1 + class in red, the place in the file in green, 1 for test in blue."""
    colours = np.stack([1 + classes, np.arange(len(classes)), np.full(len(classes), is_test)], axis=1)
    return np.broadcast_to(colours[..., None, None], (len(classes), 3, 32, 32)).astype(np.uint8)


def write_cifar(folder, name="cifar10", per_class=5):
    """Writes the official files, `per_class` images of each class in each of them."""
    is_hundred = name == "cifar100"
    files = ["train", "test"] if is_hundred else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    classes = np.repeat(np.arange(100 if is_hundred else 10), per_class).astype(np.uint8)
    for number, file in enumerate(files):
        images = cifar_images(classes, "test" in file)
        images[:, 1] += np.uint8(number * len(classes) % 256)  # no image is in two files
        images = images.reshape(len(classes), -1)
        columns = [classes[:, None] // 5, classes[:, None]] if is_hundred else [classes[:, None]]
        path = folder / name / f"{file}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(np.concatenate([*columns, images], axis=1).astype(np.uint8).tobytes())


def write_subset(folder, per_class=5):
    """Writes the subset of CIFAR-10 in .npy files."""
    (folder / "cifar10_subset").mkdir()
    for part in ("train", "test"):
        classes = np.repeat(np.arange(10), per_class).astype(np.uint8)
        np.save(folder / "cifar10_subset" / f"{part}_labels.npy", classes)
        with lzma.open(folder / "cifar10_subset" / f"{part}_images.npy.xz", "wb", preset=0) as file:
            np.save(file, cifar_images(classes, part == "test"))


def write_arrays(folder, shape, classes, counts, dtype=np.uint8):
    """Writes {train,valid,test}_{x,y}.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "valid", "test"), counts):
        np.save(folder / f"{split}_x.npy", rng.integers(256, size=(count, *shape)).astype(dtype))
        np.save(folder / f"{split}_y.npy", np.arange(count) % classes)
