"""NPZ files by users: numbers and tokens, classes and numbers to predict, and each mistake."""

import re

import numpy as np
import pytest

from elenas_jax.tasks.labelled_npz import load_npz
from elenas_jax.tasks.records import DataError


def write(tmp_path, **arrays):
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    return path


def sequences(num_examples, seed=0):
    return np.random.default_rng(seed).normal(size=(num_examples, 4, 3))


COMPLETE = {
    "train_inputs": sequences(6),
    "train_targets": np.array([3, 7, 3, 7, 7, 3]),
    "valid_inputs": sequences(2, seed=1),
    "valid_targets": np.array([7, 3]),
    "test_inputs": sequences(1, seed=2),
    "test_targets": np.array([3]),
}


def test_classes(tmp_path):
    dataset = load_npz(write(tmp_path, **COMPLETE))
    np.testing.assert_array_equal(dataset.train.inputs, COMPLETE["train_inputs"].astype(np.float32))
    assert dataset.labels == ("3", "7") and not dataset.is_tokens
    np.testing.assert_array_equal(dataset.valid.targets, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(dataset.load_test().targets, [[1, 0]])
    assert (dataset.in_features, dataset.out_features, dataset.time_steps) == (3, 2, 4)
    assert (dataset.name, dataset.loss, dataset.metric) == ("npz:arrays.npz", "categorical", "accuracy")


def test_tokens_are_counted_over_the_file(tmp_path):
    tokens = {name: np.full((len(COMPLETE[name]), 5), 1) for name in COMPLETE if name.endswith("inputs")}
    tokens["test_inputs"][0, 0] = 8
    dataset = load_npz(write(tmp_path, **(COMPLETE | tokens)))
    assert dataset.is_tokens and dataset.in_features == 9 and dataset.time_steps == 5
    assert dataset.train.inputs.shape == (6, 5) and dataset.train.inputs.dtype == np.int32


def test_huge_tokens_are_refused(tmp_path):
    tokens = {name: np.full((len(COMPLETE[name]), 5), 1) for name in COMPLETE if name.endswith("inputs")}
    tokens["train_inputs"][0, 0] = 3_000_000_000
    with pytest.raises(DataError, match="the largest token is 3,000,000,000; it must be below 1,000,000"):
        load_npz(write(tmp_path, **(COMPLETE | tokens)))


def test_numbers_to_predict_are_as_given(tmp_path):
    targets = {name: COMPLETE[name][:, None] * 0.5 for name in COMPLETE if name.endswith("targets")}
    dataset = load_npz(write(tmp_path, **(COMPLETE | targets)))
    assert (dataset.loss, dataset.metric, dataset.labels) == ("squared", "r2", ("target_0",))
    np.testing.assert_array_equal(dataset.train.targets, targets["train_targets"].astype(np.float32))


@pytest.mark.parametrize("is_classes", [True, False])
def test_what_is_missing_is_held_out(tmp_path, is_classes):
    inputs = np.arange(1.0, 61.0).reshape(60, 1, 1)
    targets = np.arange(60) % 3 if is_classes else inputs[:, 0]
    path = write(tmp_path, train_inputs=inputs, train_targets=targets)
    dataset = load_npz(path)
    splits = [dataset.train, dataset.valid, dataset.load_test()]
    # Of 60: 6; of the 54 that are left: 5, or 2 of each class.
    assert [len(split.inputs) for split in splits] == ([48, 6, 6] if is_classes else [49, 6, 5])
    assert sorted(np.concatenate([split.inputs for split in splits]).ravel()) == list(range(1, 61))
    if is_classes:
        np.testing.assert_array_equal(dataset.valid.targets.sum(axis=0), [2, 2, 2])
    np.testing.assert_array_equal(load_npz(path).valid.inputs, dataset.valid.inputs)


def test_given_splits_stay_whole(tmp_path):
    given = {name: value for name, value in COMPLETE.items() if not name.startswith("test")}
    dataset = load_npz(write(tmp_path, **given))
    np.testing.assert_array_equal(dataset.valid.inputs, COMPLETE["valid_inputs"].astype(np.float32))
    assert len(dataset.train.inputs) == 4 and len(dataset.load_test().inputs) == 2


NAN_INPUTS = np.where(np.arange(24).reshape(2, 4, 3) == 17, np.nan, 1.0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_targets": None}, "the array train_targets is missing."),
        ({"valid_inputs": None}, "the array valid_inputs is missing."),
        ({"train_inputs": None, "train_targets": None}, "the array train_inputs is missing."),
        (
            {"labels": np.zeros(2)},
            "unknown array 'labels'; allowed are train_inputs, train_targets, valid_inputs, "
            "valid_targets, test_inputs, test_targets.",
        ),
        (
            {"train_inputs": np.zeros((6, 4))},
            "train_inputs is float64 [6, 4]; it must be [N, T, F] numbers or [N, T] integer tokens.",
        ),
        (
            {"train_targets": np.zeros(6)},
            "train_targets is float64 [6]; it must be [N] integer classes or [N, O] floating numbers.",
        ),
        (
            {"train_targets": np.eye(6, dtype=int)},
            "train_targets is int64 [6, 6]; it must be [N] integer classes or [N, O] floating numbers.",
        ),
        ({"valid_inputs": np.zeros((0, 4, 3))}, "valid is empty: inputs [0, 4, 3], targets [2]."),
        ({"valid_inputs": np.zeros((3, 4, 3))}, "valid has 3 inputs and 2 targets."),
        (
            {"valid_inputs": np.zeros((2, 4, 5))},
            "valid_inputs is float64 [2, 4, 5], but train_inputs float64 [6, 4, 3].",
        ),
        ({"test_targets": np.zeros((1, 1))}, "test_targets is float64 [1, 1], but train_targets int64 [6]."),
        ({"valid_inputs": NAN_INPUTS}, "valid_inputs[1, 1, 2] is nan; it must be finite."),
        ({"valid_inputs": np.full((2, 4, 3), 1e39)}, "valid_inputs[0, 0, 0] is 1e+39; it must be finite."),
        ({"valid_targets": np.array([3, 4])}, "label '4' is in valid, but not in train."),
        (
            {"train_targets": np.full(6, 3), "valid_targets": np.full(2, 3)},
            "all labels of train are '3'; there must be two classes.",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, change, message):
    arrays = {name: value for name, value in (COMPLETE | change).items() if value is not None}
    path = write(tmp_path, **arrays)
    with pytest.raises(DataError) as error:
        load_npz(path)
    assert str(error.value) == f"{path}: {message}"


def test_tokens_are_not_negative(tmp_path):
    tokens = {name: np.full((len(COMPLETE[name]), 5), -1) for name in COMPLETE if name.endswith("inputs")}
    with pytest.raises(DataError, match="train_inputs has a token -1; they must be at least 0"):
        load_npz(write(tmp_path, **(COMPLETE | tokens)))


def test_one_example_cannot_be_split(tmp_path):
    path = write(tmp_path, train_inputs=np.ones((1, 2, 1)), train_targets=np.ones((1, 1)))
    with pytest.raises(DataError, match="train is too small for holding out valid; give valid_inputs"):
        load_npz(path)


def test_files_that_are_no_arrays(tmp_path):
    path = write(tmp_path, **COMPLETE)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"arrays\.npz: cut off, or no NPZ file"):
        load_npz(path)
    with pytest.raises(DataError, match=r"none\.npz: cannot be read \(No such file or directory\)"):
        load_npz(tmp_path / "none.npz")


def test_python_objects_are_not_loaded(tmp_path):
    path = write(tmp_path, **(COMPLETE | {"train_targets": np.array([None] * 6)}))
    with pytest.raises(DataError, match=re.escape("cannot be read (Object arrays cannot be loaded")):
        load_npz(path)
