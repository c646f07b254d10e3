"""Official files: where they are looked for, and the counts that they must have."""

import numpy as np
import pytest

from elenas_jax.tasks.image_sets import Layout, Sizes, loss_and_metric
from elenas_jax.tasks.image_table import IMAGE_SETS, count_outputs, read_official
from elenas_jax.tasks.records import DataError
from tests.tasks.image_files import write_arrays

LANGUAGE = IMAGE_SETS["language"]
SMALL = LANGUAGE._replace(sizes=Sizes(8, 4, 3))


def test_published_shapes_and_sizes():
    """Table 3.2 of the specification: what is stored, classes, and examples in all."""
    expected = {
        "addnist": ((3, 28, 28), 20, 70_000),
        "language": ((1, 24, 24), 10, 70_000),
        "multnist": ((3, 28, 28), 10, 70_000),
        "cifartile": ((3, 64, 64), 4, 70_000),
        "gutenberg": ((1, 27, 18), 6, 66_000),
        "isabella": ((1, 64, 128), 4, 70_000),
        "geoclassing": ((3, 64, 64), 10, 61_330),
        "chesseract": ((12, 18, 18), 3, 69_996),
    }
    for name, row in expected.items():
        layout = IMAGE_SETS[name].layout
        assert (layout.in_shape, layout.num_outputs, sum(IMAGE_SETS[name].sizes)) == row


def test_shapes_sizes_and_metrics_of_nas_bench_360():
    """Section 3.3 of the specification."""
    expected = {
        "cifar100": ((3, 32, 32), 100, (40_000, 10_000, 10_000), "accuracy"),
        "spherical": ((3, 60, 60), 100, (40_000, 10_000, 10_000), "accuracy"),
        "ninapro": ((1, 16, 52), 18, (2_638, 659, 659), "accuracy"),
        "fsd50k": ((1, 101, 96), 200, (36_796, 4_170, 10_231), "mean_average_precision"),
        "darcy": ((1, 85, 85), 85 * 85, (900, 100, 100), "one_minus_relative_l2"),
        "psicov": ((57, 128, 128), 128 * 128, (3_356, 100, 150), "pixel_r2"),
        "cosmic": ((1, 128, 128), 128 * 128, (4_347, 483, 420), "pixel_roc_auc"),
        "ecg": ((1, 1000), 4, (261_740, 33_281, 33_494), "macro_f1"),
        "satellite": ((1, 46), 24, (800_000, 100_000, 100_000), "accuracy"),
        "deepsea": ((4, 1000), 36, (71_753, 2_490, 149_400), "roc_auc"),
    }
    for name, row in expected.items():
        layout = IMAGE_SETS[name].layout
        assert (layout.in_shape, layout.num_outputs, IMAGE_SETS[name].sizes) == row[:3]
        assert loss_and_metric(layout)[1] == row[3]
        assert layout.is_dense == (name in ("darcy", "psicov", "cosmic"))
    assert sum(IMAGE_SETS["fsd50k"].sizes) == 51_197


@pytest.mark.parametrize("counts", [(8, 4, 3), (7, 5, 3)])
def test_train_and_validation_are_counted_together(tmp_path, counts):
    write_arrays(tmp_path, (1, 24, 24), 10, counts)
    for split, count in zip(("train", "valid", "test"), counts):
        images, classes = read_official(tmp_path, SMALL, split)
        assert isinstance(images, np.memmap) and images.shape == (count, 1, 24, 24) and len(classes) == count


def test_other_counts_and_missing_files_are_one_line(tmp_path):
    write_arrays(tmp_path, (1, 24, 24), 10, (8, 3, 2))
    for split, message in (
        ("train", f"{tmp_path}: 11 train and valid images; Language has 12."),
        ("valid", f"{tmp_path}: 11 train and valid images; Language has 12."),
        ("test", f"{tmp_path}: 2 test images; Language has 3."),
    ):
        with pytest.raises(DataError) as error:
            read_official(tmp_path, SMALL, split)
        assert str(error.value) == message
    (tmp_path / "valid_y.npy").unlink()
    with pytest.raises(DataError) as error:
        read_official(tmp_path, LANGUAGE, "train")
    assert str(error.value) == (
        f"{tmp_path}/valid_y.npy: no such file; get Language from https://doi.org/10.25405/data.ncl.24574729 "
        "and unzip it there."
    )


def test_test_files_are_not_opened_for_training(tmp_path):
    write_arrays(tmp_path, (1, 24, 24), 10, (8, 4, 3))
    (tmp_path / "test_x.npy").write_bytes(b"damaged")
    read_official(tmp_path, SMALL, "train")
    with pytest.raises(DataError, match=r"test_x\.npy: no \.npy file"):
        read_official(tmp_path, SMALL, "test")


def test_arrays_of_ones_own():
    images = np.zeros((5, 2, 3))
    assert count_outputs(images, np.array([0, 3, 1, 1, 0])) == Layout((2, 3), 4)
    assert count_outputs(images, np.zeros((5, 7), int)) == Layout((2, 3), 7, "labels")
    assert count_outputs(images, np.zeros((5, 2, 3))) == Layout((2, 3), 6, "numbers")
    assert count_outputs(images, np.zeros(5)) == Layout((2, 3), 1, "numbers")
