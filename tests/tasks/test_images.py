"""Image tasks by name: every one as a stand-in, the built ones from small files, the user's own."""

import math

import numpy as np
import pytest

from elenas_jax.tasks import LOSSES, images, make_task
from elenas_jax.tasks.image_sets import Sizes
from elenas_jax.tasks.images import IMAGE_TASKS
from elenas_jax.tasks.metrics import METRICS
from elenas_jax.tasks.records import DataError, as_inputs
from tests.tasks.image_files import write_arrays, write_cifar, write_mnist, write_subset

RULED = ("addnist", "multnist", "cifartile")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder, and no other place to write to."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ELENAS_DATA_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def load_and_check(task, counts):
    """Loads a data set and checks that it is what the task says."""
    dataset = task.load()
    assert (dataset.name, dataset.loss, dataset.metric) == (task.name, task.loss, task.metric)
    assert task.loss in LOSSES and task.metric in METRICS and "\n" not in dataset.note
    assert dataset.out_features == task.out_features == len(dataset.labels)
    for split, count in zip((dataset.train, dataset.valid, dataset.load_test()), counts):
        assert len(split.inputs) == len(split.targets) == count
        assert split.targets.shape[1:] == (task.out_features,) and split.targets.dtype == np.float32
        if task.loss == "categorical":
            np.testing.assert_array_equal(split.targets.sum(axis=1), 1)
        padding = dataset.scaling.padding
        stored = tuple(size - 2 * padding * (axis > 0) for axis, size in enumerate(task.in_shape))
        assert split.inputs.shape[1:] == stored
    return dataset


@pytest.mark.parametrize("name", [name for name in IMAGE_TASKS if name != "npy"])
def test_every_set_has_a_stand_in(name, data):
    task = make_task(name, source="synthetic", num_train=40, num_valid=10, num_test=5)
    dataset = load_and_check(task, (40, 10, 5))
    assert "stand-in" in dataset.note and not list(data.iterdir())
    assert task.threshold < 1 and task.untrained <= 0.5 and task.weight == 1.0
    if math.prod(task.in_shape) < 2**17:  # more take seconds, and gigabytes
        assert len(make_task(name, source="synthetic").load().train.inputs) == 512


def test_inputs_have_the_shape_of_the_task(data):
    task = make_task("chesseract", source="synthetic", num_train=4)
    dataset = task.load()
    assert (
        as_inputs(dataset.train.inputs[:2], dataset.scaling).shape == (2, *task.in_shape) == (2, 12, 18, 18)
    )


@pytest.mark.parametrize("name", RULED)
def test_sets_are_built_once_from_their_sources(name, data):
    write_mnist(data)
    write_subset(data)
    task = make_task(name, num_train=24, num_valid=8, num_test=4)
    dataset = load_and_check(task, (24, 8, 4))
    built = sorted(path.name for path in (data / "derived").iterdir())
    assert len(built) == 2 and all(each.startswith(name) for each in built)
    assert isinstance(dataset.train.inputs, np.memmap) and dataset.train.inputs.dtype == np.uint8
    again = make_task(name, num_train=24, num_valid=8, num_test=4).load()
    np.testing.assert_array_equal(again.train.inputs, dataset.train.inputs)
    assert sorted(path.name for path in (data / "derived").iterdir()) == built
    other = make_task(name, num_train=24, num_valid=8, num_test=4, seed=1)
    assert (other.load().train.inputs != dataset.train.inputs).any() and other.variant != task.variant


def test_the_note_says_which_cifar10_it_is(data):
    write_subset(data)
    for name in ("cifar10", "cifartile"):
        task = make_task(name, num_train=8, num_valid=5, num_test=2)
        assert "subset" in task.load().note and "subset" in task.variant
    write_cifar(data)
    for name in ("cifar10", "cifartile"):
        task = make_task(name, num_train=8, num_valid=5, num_test=2)
        assert "subset" not in task.load().note and "subset" not in task.variant
    assert "subset" in make_task("cifar10", source="subset").load().note


@pytest.mark.parametrize("name, batches", [("cifar10", 5), ("cifar100", 1)])
def test_a_fifth_of_cifar_validates(name, batches, data):
    write_cifar(data, name)
    num_classes = 100 if name == "cifar100" else 10
    many = 5 * num_classes
    dataset = load_and_check(make_task(name), (many * batches * 4 // 5, many * batches // 5, many))
    for split in (dataset.train, dataset.valid):
        assert len(set(split.targets.sum(axis=0))) == 1  # all classes alike
        assert not split.inputs[:, 2].any()
    assert dataset.load_test().inputs[:, 2].all()  # test images are used for test only
    images_of = [{each.tobytes() for each in split.inputs} for split in (dataset.train, dataset.valid)]
    assert not images_of[0] & images_of[1]


def test_official_files(data, monkeypatch):
    row = images.IMAGE_SETS["addnist"]
    monkeypatch.setitem(images.IMAGE_SETS, "addnist", row._replace(sizes=Sizes(40, 20, 10)))
    write_arrays(data / "addnist", (3, 28, 28), 20, (45, 15, 10), np.float32)
    dataset = load_and_check(make_task("addnist", source="official"), (45, 15, 10))
    assert isinstance(dataset.train.inputs, np.memmap) and dataset.train.inputs.dtype == np.float32
    load_and_check(make_task("addnist", source="official", num_train=30), (30, 15, 10))
    with pytest.raises(DataError, match=r"isabella/train_x\.npy: no such file; it is not published"):
        make_task("isabella").load()


def test_arrays_of_ones_own(tmp_path):
    write_arrays(tmp_path / "mine", (2, 6, 5), 3, (12, 6, 4))
    task = make_task("npy", path=str(tmp_path / "mine"), num_train=9)
    assert (task.in_shape, task.out_features) == ((2, 6, 5), 3)
    assert (task.threshold, task.untrained, task.weight) == (0.9, 1 / 3, 1.0)
    given = {"threshold": 0.0, "untrained": 0.0, "weight": 2.0}
    changed = make_task("npy", path=str(tmp_path / "mine"), num_train=9, **given)
    assert given.items() <= changed._asdict().items() and changed.variant == task.variant
    dataset = load_and_check(task, (9, 6, 4))
    assert dataset.note == "arrays of mine: 9 train and 6 validation images of 2x6x5"
    arrays = {path.stem: np.load(path) for path in (tmp_path / "mine").iterdir()}
    arrays |= {name: np.ones((len(values), 3, 3)) for name, values in arrays.items() if name.endswith("y")}
    np.savez(tmp_path / "dense.npz", **arrays)
    task = make_task("npy", path=str(tmp_path / "dense.npz"))
    assert (task.loss, task.out_features) == ("squared", 9)
    load_and_check(task, (12, 6, 4))
    # Other targets are another task to a cache of evaluations.
    arrays["train_y"][0] = 2
    np.savez(tmp_path / "dense.npz", **arrays)
    assert make_task("npy", path=str(tmp_path / "dense.npz")).variant != task.variant


def test_mistakes_are_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=np.zeros((2, 1, 2, 2)), train_y=np.zeros(2, int))
    for error, message, load in (
        (
            ValueError,
            "addnist: source is 'web'; known are rules, official, synthetic.",
            lambda: make_task("addnist", source="web"),
        ),
        (
            ValueError,
            "language: source is 'rules'; known are official, synthetic.",
            lambda: make_task("language", source="rules"),
        ),
        (
            ValueError,
            "multnist: num_train is 0; it must be at least 1.",
            lambda: make_task("multnist", num_train=0),
        ),
        (
            DataError,
            "npy: path is empty; it must be a folder of .npy files or an .npz file.",
            lambda: make_task("npy"),
        ),
        (
            DataError,
            f"{tmp_path}/train_x.npy: no such file; it must be there, or the same with .xz.",
            lambda: make_task("npy", path=str(tmp_path)),
        ),
        (
            DataError,
            f"{tmp_path}/a.npz: the array valid_x is missing.",
            make_task("npy", path=str(tmp_path / "a.npz")).load,
        ),
    ):
        with pytest.raises(error) as raised:
            load()
        assert str(raised.value) == message


@pytest.mark.parametrize("name", [*RULED, "cifar10"])
def test_real_data_at_reduced_sizes(name, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("elenas_jax.tasks.derived._is_writable", lambda folder: False)
    before = sorted(data_dir.rglob("*"))
    dataset = load_and_check(make_task(name, num_train=400, num_valid=100, num_test=100), (400, 100, 100))
    assert sorted(data_dir.rglob("*")) == before
    classes = dataset.train.targets.sum(axis=0)
    assert classes.min() > 0.5 * classes.mean() and dataset.train.inputs.max() > 200


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train_y", np.array(["a"] * 12), "train_y is <U1"),
        ("train_y", np.array(3), r"train_y is int64 of shape \(\)"),
        ("train_y", np.array([10**9] * 12), "there is a class 1000000000"),
        ("train_x", np.zeros(12), r"train_x is float64 of shape \(12,\)"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path, name, array, message):
    write_arrays(tmp_path, (2, 6, 5), 3, (12, 6, 4))
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(DataError, match=message):
        make_task("npy", path=str(tmp_path))


def test_other_images_are_another_task(tmp_path):
    write_arrays(tmp_path, (2, 6, 5), 3, (12, 6, 4), np.float32)
    before = make_task("npy", path=str(tmp_path))
    images = np.load(tmp_path / "train_x.npy")
    np.save(tmp_path / "train_x.npy", images.astype(">f4"))
    dataset = load_and_check(make_task("npy", path=str(tmp_path)), (12, 6, 4))
    assert dataset.train.inputs.dtype == np.float32
    np.testing.assert_array_equal(dataset.train.inputs, images)
    variants = {before.variant}
    for name in ("train_x", "train_y", "valid_x", "valid_y"):
        np.save(tmp_path / f"{name}.npy", np.load(tmp_path / f"{name}.npy")[::-1])
        variants.add(make_task("npy", path=str(tmp_path)).variant)
    assert len(variants) == 5
