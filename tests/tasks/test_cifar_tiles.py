"""CIFARTile: labels, draws, crops and the grid, on images that say what they are."""

import numpy as np
import pytest

from elenas_jax.tasks.cifar import SUBSET
from elenas_jax.tasks.cifar_tiles import arrange, augment, build_tiles, draw_tiles
from elenas_jax.tasks.records import DataError
from tests.tasks.image_files import write_cifar, write_subset

POOL = np.tile(np.arange(10), 6)


def test_labels_count_the_classes():
    chosen, labels = draw_tiles(POOL, 4000, np.random.default_rng(0))
    assert chosen.shape == (4000, 4)
    for four, label in zip(chosen, labels):
        classes, counts = np.unique(POOL[four], return_counts=True)
        assert len(classes) == label + 1 and len(set(four.tolist())) == 4
        assert sorted(counts) == [[4], [2, 2], [1, 1, 2], [1, 1, 1, 1]][label]
    np.testing.assert_allclose(np.bincount(labels) / 4000, 0.25, atol=0.03)  # deviation 0.007
    # Every image, and every place in the grid for the class that comes twice.
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=60) / 16_000, 1 / 60, rtol=0.25)
    twice = POOL[chosen[labels == 2]]
    is_double = (twice[:, :, None] == twice[:, None, :]).sum(axis=2) == 2
    np.testing.assert_allclose(is_double.mean(axis=0), 0.5, atol=0.07)


def test_too_few_images_are_one_line():
    for pool, message in (
        (np.repeat(np.arange(3), 4), "3 classes of 4 images or more; it needs 4 of 4"),
        (np.repeat(np.arange(10), 3), "10 classes of 3 images or more"),
        (np.zeros(0, int), "0 classes of 0 images or more"),
    ):
        with pytest.raises(DataError, match=message):
            draw_tiles(pool, 5, np.random.default_rng(0))


def test_the_grid():
    images = np.arange(2 * 4 * 3 * 2 * 2).reshape(2, 4, 3, 2, 2)
    grid = arrange(images)
    assert grid.shape == (2, 3, 4, 4)
    for place, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        np.testing.assert_array_equal(grid[:, :, row : row + 2, column : column + 2], images[:, place])


def test_crops_and_flips():
    """Each result is one of 81 crops of the padded image, or the mirror image of one; all of them occur."""
    image = (1 + np.arange(3 * 32 * 32) % 255).astype(np.uint8).reshape(3, 32, 32)
    padded = np.pad(image, [(0, 0), (4, 4), (4, 4)])
    crops = {}
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + 32, left : left + 32]
            crops[crop.tobytes()] = (top, left, False)
            crops[np.ascontiguousarray(crop[:, :, ::-1]).tobytes()] = (top, left, True)
    many = augment(np.repeat(image[None], 3000, axis=0), np.random.default_rng(0))
    found = [crops[np.ascontiguousarray(each).tobytes()] for each in many]
    assert len(set(found)) == 162
    assert 0.45 < np.mean([flipped for *_, flipped in found]) < 0.55


@pytest.mark.parametrize("images_of", ["cifar10", SUBSET])
def test_files(tmp_path, images_of, monkeypatch):
    monkeypatch.setattr("elenas_jax.tasks.cifar_tiles._CHUNK", 7)  # the last chunk is a part
    write_cifar(tmp_path, per_class=4) if images_of == "cifar10" else write_subset(tmp_path)
    build_tiles(tmp_path, images_of, tmp_path, (("train", 20), ("valid", 5)), seed=0)
    build_tiles(tmp_path, images_of, tmp_path, (("test", 10),), seed=0)
    for split, count in (("train", 20), ("valid", 5), ("test", 10)):
        tiles, labels = np.load(tmp_path / f"{split}_x.npy"), np.load(tmp_path / f"{split}_y.npy")
        assert tiles.shape == (count, 3, 64, 64) and tiles.dtype == labels.dtype == np.uint8
        centres = tiles[:, :, 16::32, 16::32]  # padding does not reach the centre
        classes = [len(set(each.ravel().tolist())) for each in centres[:, 0]]
        np.testing.assert_array_equal(labels, np.array(classes) - 1)
        assert (centres[:, 2] == (split == "test")).all()  # test images are used for test only
        has_padding = (tiles[:, 0] == 0).any()
        assert has_padding == (split != "test")
    first = np.load(tmp_path / "train_x.npy")
    build_tiles(tmp_path, images_of, tmp_path, (("train", 20), ("valid", 5)), seed=0)
    np.testing.assert_array_equal(np.load(tmp_path / "train_x.npy"), first)
    build_tiles(tmp_path, images_of, tmp_path, (("train", 20), ("valid", 5)), seed=1)
    assert (np.load(tmp_path / "train_x.npy") != first).any()
