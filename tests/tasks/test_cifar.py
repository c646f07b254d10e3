"""CIFAR: records of the binary version, the subset, which of them is used, mistakes."""

import numpy as np
import pytest

from elenas_jax.tasks.cifar import SOURCES, SUBSET, best_cifar10, read_cifar, source_files
from elenas_jax.tasks.records import DataError
from tests.tasks.image_files import write_cifar, write_subset


@pytest.mark.parametrize("name, batches", [("cifar10", 5), ("cifar100", 1)])
def test_records(tmp_path, name, batches):
    write_cifar(tmp_path, name, per_class=2)
    num_classes = 100 if name == "cifar100" else 10
    for part, many in (("train", batches), ("test", 1)):
        images, classes = read_cifar(tmp_path, name, part)
        assert (
            images.shape == (many * num_classes * 2, 3, 32, 32) and images.dtype == classes.dtype == np.uint8
        )
        np.testing.assert_array_equal(np.bincount(classes), np.full(num_classes, 2 * many))
        assert (images[:, 0] == 1 + classes[:, None, None]).all()  # not the superclass
        assert (images[:, 2] == (part == "test")).all()


def test_the_subset(tmp_path):
    write_subset(tmp_path)
    images, classes = read_cifar(tmp_path, SUBSET, "train")
    assert images.shape == (50, 3, 32, 32) and (images[:, 0, 0, 0] == 1 + classes).all()
    assert read_cifar(tmp_path, SUBSET, "test")[0][:, 2].all()


def test_the_subset_is_used_only_where_the_official_files_are_not(tmp_path):
    assert best_cifar10(tmp_path) == "cifar10"  # it is downloaded
    write_subset(tmp_path)
    assert best_cifar10(tmp_path) == SUBSET
    write_cifar(tmp_path)
    assert best_cifar10(tmp_path) == "cifar10"
    (tmp_path / "cifar10/test_batch.bin").unlink()
    assert best_cifar10(tmp_path) == SUBSET


def test_every_file_has_a_checksum():
    assert [len(source.sha256) for source in SOURCES.values()] == [6, 2]
    assert all(len(checksum) == 64 for source in SOURCES.values() for checksum in source.sha256.values())
    assert len(source_files("cifar10", "train")) == 5 and source_files("cifar100", "test") == (
        "cifar100/test.bin",
    )


def test_mistakes_are_one_line(tmp_path):
    write_cifar(tmp_path, per_class=1)
    path = tmp_path / "cifar10/data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        DataError, match=r"^cifar10/data_batch_2\.bin: 30,729 bytes; .* records of 3,073 bytes"
    ):
        read_cifar(tmp_path, "cifar10", "train")
    path.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match=r"^cifar10/train: there is a class 10; the last is 9\."):
        read_cifar(tmp_path, "cifar10", "train")
    with pytest.raises(DataError, match=r"cifar10_subset/train_images\.npy: no such file, nor \.npy\.xz\."):
        read_cifar(tmp_path, SUBSET, "train")
    write_subset(tmp_path)
    np.save(tmp_path / SUBSET / "train_labels.npy", np.zeros(49, np.uint8))
    with pytest.raises(
        DataError, match=r"train is uint8 \[50, 3, 32, 32\] and uint8 \[49\]; it must be uint8"
    ):
        read_cifar(tmp_path, SUBSET, "train")


def test_the_real_subset(data_dir):
    if best_cifar10(data_dir) != SUBSET:
        pytest.skip("the subset is not there, or not used")
    for part, many in (("train", 1000), ("test", 200)):
        images, classes = read_cifar(data_dir, SUBSET, part)
        assert len(images) == 10 * many
        np.testing.assert_array_equal(classes, np.repeat(np.arange(10), many))
        if part == "train":
            means = images.mean(axis=(0, 2, 3)) / 255
            np.testing.assert_allclose(means, [0.4934, 0.4831, 0.4470], atol=1e-4)
