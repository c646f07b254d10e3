"""From arrays to a data set: scale, parts, targets, and what is refused."""

import numpy as np
import pytest

from elenas_jax.tasks.image_sets import Layout, Sizes, check_pair, check_sizes, make_dataset, measure_scaling
from elenas_jax.tasks.records import DataError

LAYOUT = Layout((2, 3, 4), 3)


def arrays(count=12, layout=LAYOUT):
    rng = np.random.default_rng(count)
    return rng.integers(256, size=(count, *layout.shape)).astype(np.uint8), np.arange(count) % 3


def read(split):
    return arrays({"train": 12, "valid": 7, "test": 5}[split])


def test_a_data_set_of_arrays():
    dataset = make_dataset("toy", LAYOUT, read, Sizes(), 0, "Toys")
    assert dataset.note == "Toys: 12 train and 7 validation images of 2x3x4"
    assert (dataset.loss, dataset.metric, dataset.in_features, dataset.out_features) == (
        "categorical",
        "accuracy",
        2,
        3,
    )
    for split, name in ((dataset.train, "train"), (dataset.valid, "valid"), (dataset.load_test(), "test")):
        images, classes = read(name)
        np.testing.assert_array_equal(split.inputs, images)  # not normalised, not copied to floats
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.float32
        np.testing.assert_array_equal(split.targets, np.eye(3)[classes])


def test_parts_are_drawn_by_the_seed_and_keep_their_order():
    parts = [make_dataset("toy", LAYOUT, read, Sizes(6, 3, 2), seed, "Toys") for seed in (0, 0, 1)]
    first, again, other = (part.train for part in parts)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert (first.inputs != other.inputs).any()
    everything = read("train")[0]
    rows = [int(np.flatnonzero((everything == image).all(axis=(1, 2, 3)))[0]) for image in first.inputs]
    assert rows == sorted(rows) and len(set(rows)) == 6
    np.testing.assert_array_equal(first.targets, np.eye(3)[read("train")[1][rows]])
    assert len(parts[0].valid.inputs) == 3 and len(parts[0].load_test().inputs) == 2
    # The scale is that of the images in use.
    np.testing.assert_allclose(parts[0].scaling.mean, first.inputs.mean(axis=(0, 2, 3)), rtol=1e-6)


def test_test_arrays_are_read_by_load_test_only():
    seen = []

    def read_and_note(split):
        seen.append(split)
        return read(split)

    dataset = make_dataset("toy", LAYOUT, read_and_note, Sizes(), 0, "Toys")
    assert seen == ["train", "valid"]
    dataset.load_test()
    assert seen[2:] == ["test"]


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float16, np.float64])
def test_the_scale_is_measured_in_chunks(monkeypatch, dtype):
    monkeypatch.setattr("elenas_jax.tasks.image_sets._CHUNK_VALUES", 60)
    images = np.random.default_rng(0).integers(2, size=(11, 2, 3, 4)).astype(dtype)
    images[:, 1] = 1
    scaling = measure_scaling(images, padding=5)
    np.testing.assert_allclose(scaling.mean, images.astype(float).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scaling.deviation, [images[:, 0].astype(float).std(), 1.0], rtol=1e-6)
    assert scaling.mean.dtype == scaling.deviation.dtype == np.float32 and scaling.padding == 5


def test_layouts():
    assert Layout((12, 8, 8), 3, padding=5).in_shape == (12, 18, 18)
    assert Layout((4, 1000), 36).in_shape == (4, 1000)
    images = np.zeros((2, 3, 4))
    assert check_pair("toy", images, np.zeros(2, int), Layout((1, 3, 4), 3))[0].shape == (2, 1, 3, 4)
    targets = check_pair("toy", images, np.zeros((2, 5, 5)), Layout((1, 3, 4), 25, "numbers"))[1]
    assert targets.shape == (2, 25)
    labels = make_dataset(
        "toy",
        LAYOUT._replace(kind="labels"),
        lambda split: (arrays()[0], np.ones((12, 3), int)),
        Sizes(),
        0,
        "",
    )
    assert (labels.loss, labels.metric) == ("binary", "roc_auc") and labels.train.targets.dtype == np.float32


IMAGES, CLASSES = arrays()
WITH_NAN = np.where(np.arange(12)[:, None, None, None] == 7, np.nan, IMAGES)


@pytest.mark.parametrize(
    "images, targets, layout, message",
    [
        (
            IMAGES[:, :1],
            CLASSES,
            LAYOUT,
            "images are uint8 [12, 1, 3, 4]; they must be [N, 2, 3, 4] numbers.",
        ),
        (
            IMAGES.astype(str),
            CLASSES,
            LAYOUT,
            "images are <U3 [12, 2, 3, 4]; they must be [N, 2, 3, 4] numbers.",
        ),
        (
            IMAGES[:0],
            CLASSES[:0],
            LAYOUT,
            "images are uint8 [0, 2, 3, 4]; they must be [N, 2, 3, 4] numbers.",
        ),
        (IMAGES, CLASSES[:5], LAYOUT, "12 images and targets int64 [5]."),
        (WITH_NAN, CLASSES, LAYOUT, "image 7 has a value that is not finite."),
        (IMAGES, CLASSES + 1, LAYOUT, "there is a class 3; they must be 0 to 2."),
        (IMAGES, CLASSES - 1, LAYOUT, "there is a class -1; they must be 0 to 2."),
        (IMAGES, CLASSES + 0.5, LAYOUT, "there is a class 0.5; they must be 0 to 2."),
        (IMAGES, np.eye(3)[CLASSES], LAYOUT, "targets are float64 [12, 3]; they must be [N] classes."),
        (
            IMAGES,
            np.zeros((12, 2)),
            LAYOUT._replace(kind="numbers"),
            "targets are float64 [12, 2]; they must be 3 numbers each.",
        ),
        (
            IMAGES,
            np.full((12, 3), np.inf),
            LAYOUT._replace(kind="numbers"),
            "there is a target that is not finite.",
        ),
        (
            IMAGES,
            np.full((12, 3), 2),
            LAYOUT._replace(kind="labels"),
            "there is a target other than 0 and 1.",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(images, targets, layout, message):
    with pytest.raises(DataError) as error:
        check_pair("toy/train", images, targets, layout)
    assert str(error.value) == f"toy/train: {message}"


def test_whole_floats_are_classes():
    np.testing.assert_array_equal(check_pair("toy", IMAGES, CLASSES.astype(float), LAYOUT)[1], CLASSES)


def test_sizes_are_checked():
    check_sizes("toy", Sizes(1, None, 3), 0)
    for sizes, seed, error, message in (
        (Sizes(train=0), 0, ValueError, "toy: num_train is 0; it must be at least 1."),
        (Sizes(test=1.5), 0, TypeError, "toy: num_test is 1.5; it must be a whole number."),
        (Sizes(), True, TypeError, "toy: seed is True; it must be a whole number."),
        (Sizes(), -1, ValueError, "toy: seed is -1; it must be at least 0."),
    ):
        with pytest.raises(error) as raised:
            check_sizes("toy", sizes, seed)
        assert str(raised.value) == message
    with pytest.raises(DataError, match=r"^toy: num_valid is 8, but there are 7 valid examples\.$"):
        make_dataset("toy", LAYOUT, read, Sizes(valid=8), 0, "Toys")
