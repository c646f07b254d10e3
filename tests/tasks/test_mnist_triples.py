"""AddNIST and MultNIST: labels, balance, which images are used; on images that say what they show."""

import numpy as np
import pytest

from elenas_jax.tasks.mnist_triples import RULES, build_triples, draw_images, draw_triples
from elenas_jax.tasks.records import DataError
from tests.tasks.image_files import write_mnist

LABELS = {
    "addnist": lambda red, green, blue: red + green + blue - 1,
    "multnist": lambda red, green, blue: (red * green * blue) % 10,
}


@pytest.fixture
def data(tmp_path):
    write_mnist(tmp_path)
    return tmp_path


def build(data, name, splits, seed=0):
    folder = data / f"{name}-{splits[0][0]}-{seed}"
    folder.mkdir()
    build_triples(folder, RULES[name], data, splits, seed)
    return {
        split: (np.load(folder / f"{split}_x.npy"), np.load(folder / f"{split}_y.npy")) for split, _ in splits
    }


@pytest.mark.parametrize("name", RULES)
def test_labels_follow_from_the_digits_in_the_channels(data, name):
    num_classes = RULES[name].num_classes
    arrays = build(data, name, (("train", 300), ("valid", 100))) | build(data, name, (("test", 200),))
    for split, count in (("train", 300), ("valid", 100), ("test", 200)):
        images, labels = arrays[split]
        assert images.shape == (count, 3, 28, 28) and images.dtype == labels.dtype == np.uint8
        digits = images[:, :, 0, 0].astype(int)
        np.testing.assert_array_equal(labels, [LABELS[name](*each) for each in digits])
        assert (images[:, :, 0, 2] == (split == "test")).all()  # test images are used for test only
        assert set(images[:, :, 0, 1].ravel()) == {0, 1, 2}  # all copies of the digits are used
    both = np.concatenate([arrays["train"][1], arrays["valid"][1]])
    np.testing.assert_array_equal(np.bincount(both), np.full(num_classes, 400 // num_classes))
    np.testing.assert_array_equal(np.bincount(arrays["test"][1]), np.full(num_classes, 200 // num_classes))


def test_triples_of_a_class_are_equally_likely():
    digits, labels = draw_triples(RULES["addnist"], 60_000, np.random.default_rng(0))
    assert labels.min() == 0 and labels.max() == 19
    sums = digits.sum(axis=1)
    assert sums.min() == 1 and sums.max() == 20  # (0, 0, 0) and sums above 20 are left out
    ones = digits[labels == 0]
    for place in range(3):
        assert 900 < ones[:, place].sum() < 1100  # a third of 3,000; the deviation is 26
    triples, counts = np.unique(digits[labels == 19], axis=0, return_counts=True)
    assert len(triples) == 36  # all triples with a sum of 20
    assert counts.min() > 40 and counts.max() < 130  # 83 expected; deviation 9
    digits, labels = draw_triples(RULES["multnist"], 60_000, np.random.default_rng(0))
    assert len(np.unique(digits, axis=0)) == 1000


def test_the_seed_decides(data):
    splits = (("train", 40), ("valid", 20))
    first, other = build(data, "addnist", splits), build(data, "addnist", splits, seed=1)
    assert (first["train"][0] != other["train"][0]).any()
    digits, labels = draw_triples(RULES["addnist"], 60, np.random.default_rng((0, 0)))
    np.testing.assert_array_equal(first["train"][1], labels[:40])
    np.testing.assert_array_equal(first["valid"][1], labels[40:])
    np.testing.assert_array_equal(first["train"][0][:, :, 0, 0], digits[:40])
    # A golden number: a data set must be the same on every machine.
    assert labels[:10].tolist() == [16, 7, 0, 8, 2, 14, 11, 4, 12, 17] and digits[0].tolist() == [5, 9, 3]


def test_a_digit_without_images_is_one_line():
    digits = np.array([[1, 2, 3]])
    with pytest.raises(DataError, match=r"mnist: there is no image of a 0\."):
        draw_images(digits, np.arange(1, 10), np.random.default_rng(0))
