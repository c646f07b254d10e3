"""Sequential MNIST: steps, normalisation, mistakes; the counts of the real files."""

import gzip
import struct

import numpy as np
import pytest

from elenas_jax.tasks import sequential_mnist
from elenas_jax.tasks.records import DataError
from elenas_jax.tasks.sequential_mnist import load_mnist_pixels, load_mnist_rows
from tests.tasks.image_files import write_idx


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Five training images and three test images of random pixels."""
    monkeypatch.setattr(sequential_mnist, "VALID_IMAGES", 2)
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(256, size=(5, 28, 28)), "t10k": rng.integers(256, size=(3, 28, 28))}
    for prefix, values in images.items():
        write_idx(tmp_path, f"{prefix}-images-idx3-ubyte", values.astype(np.uint8))
        write_idx(tmp_path, f"{prefix}-labels-idx1-ubyte", np.arange(len(values), dtype=np.uint8) + 5)
    return images


@pytest.mark.parametrize("load, shape", [(load_mnist_rows, (28, 28)), (load_mnist_pixels, (784, 1))])
def test_steps_and_splits(tmp_path, images, load, shape):
    dataset = load(tmp_path)
    expected = ((images["train"] / 255 - 0.1307) / 0.3081).reshape(5, *shape)
    np.testing.assert_allclose(dataset.train.inputs, expected[:3], rtol=1e-5)
    np.testing.assert_allclose(dataset.valid.inputs, expected[3:], rtol=1e-5)
    np.testing.assert_array_equal(dataset.train.targets, np.eye(10)[[5, 6, 7]])
    np.testing.assert_array_equal(dataset.valid.targets, np.eye(10)[[8, 9]])
    assert (dataset.time_steps, dataset.in_features) == shape and dataset.out_features == 10
    test = dataset.load_test()
    assert test.inputs.shape == (3, *shape) and test.inputs.dtype == test.targets.dtype == np.float32


def test_test_files_are_read_by_load_test_only(tmp_path, images):
    for path in (tmp_path / "mnist").glob("t10k-*"):
        path.write_bytes(path.read_bytes()[:-9])
    dataset = load_mnist_rows(tmp_path)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: cut off or damaged"):
        dataset.load_test()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not an idx file of 3-dimensional bytes"),
        (struct.pack(">4i", 2049, 5, 28, 28), "not an idx file of 3-dimensional bytes"),
        (struct.pack(">4i", 2051, 5, 28, 28) + b"x" * 9, "25 bytes, but its header says 3,936"),
        (struct.pack(">4i", 2051, 1, 2, 2) + b"x" * 4, r"images are \[1, 2, 2\] and labels \[5\]"),
        (struct.pack(">4i", 2051, 1, 28, 28) + b"x" * 784, r"images are \[1, 28, 28\] and labels \[5\]"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, images, content, message):
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=f"^mnist/train.*{message}"):
        load_mnist_rows(tmp_path)


def test_labels_are_digits(tmp_path, images):
    write_idx(tmp_path, "train-labels-idx1-ubyte", np.full(5, 10, np.uint8))
    with pytest.raises(DataError, match="there is a label 10; they must be 0 to 9"):
        load_mnist_rows(tmp_path)


def test_too_few_images(tmp_path, images, monkeypatch):
    monkeypatch.setattr(sequential_mnist, "VALID_IMAGES", 5)
    with pytest.raises(DataError, match="5 training images; validation alone takes 5"):
        load_mnist_rows(tmp_path)


def test_counts_of_the_real_files(data_dir):
    dataset = load_mnist_rows(data_dir)
    assert len(dataset.train.inputs) == 55_000 and len(dataset.valid.inputs) == 5_000
    labels = dataset.train.targets.sum(axis=0) + dataset.valid.targets.sum(axis=0)
    np.testing.assert_array_equal(labels, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    test = dataset.load_test()
    np.testing.assert_array_equal(
        test.targets.sum(axis=0), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    assert abs(dataset.train.inputs.mean()) < 0.01 and abs(dataset.train.inputs.std() - 1) < 0.01
