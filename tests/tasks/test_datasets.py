"""The table of data sets: names, settings, and what holds for every one."""

import numpy as np
import pytest

from elenas_jax.tasks import LOSSES, data_files
from elenas_jax.tasks.datasets import DATASETS, DataError, load_dataset
from elenas_jax.tasks.metrics import METRICS

REAL = ("ptb", "tox21", "mnist_rows", "mnist_pixels")


def test_user_files_by_name(tmp_path):
    rows = [f"{n},{split},{'uv'[n % 2]},{n}" for n, split in enumerate(["train"] * 4 + ["valid", "test"])]
    (tmp_path / "a.csv").write_text("\n".join(["series,split,label,x", *rows]))
    inputs, targets = np.ones((30, 2, 1)), np.arange(30) % 2
    np.savez(tmp_path / "a.npz", train_inputs=inputs, train_targets=targets)
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"a_{part}.ts").write_text("@classLabel true u v\n@data\n1:u\n2:v\n3:u\n4:v\n")
    for kind, file in (("csv", "a.csv"), ("npz", "a.npz"), ("ts", "a")):
        dataset = load_dataset(f"{kind}:{tmp_path}/{file}")
        assert dataset.name == f"{kind}:{file}" and str(tmp_path) not in dataset.note
        check_dataset(dataset)


@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_and_when_their_test_files_are_opened(name, data_dir, monkeypatch):
    read_path, opened = data_files.read_path, []

    def read_and_note(path):
        opened.append(path.name)
        return read_path(path)

    monkeypatch.setattr(data_files, "read_path", read_and_note)
    dataset = load_dataset(name, data_dir)
    before = list(opened)
    check_dataset(dataset)  # it calls load_test
    of_test = [file for file in opened if file.startswith(("t10k-", "ptb.test"))]
    assert before and not set(before) & set(of_test)
    assert of_test or name == "tox21"  # one file holds all its sets
    assert dataset.name == name


def check_dataset(dataset):
    assert dataset.loss in (*LOSSES, "language") and dataset.metric in METRICS and "\n" not in dataset.note
    for split in (dataset.train, dataset.valid, dataset.load_test()):
        if dataset.time_steps is None:
            assert split.dtype == np.int32 and split.ndim == 1 and split.min() >= 0
            assert split.max() < dataset.in_features == dataset.out_features
            continue
        num_examples = len(split.inputs)
        assert num_examples > 0 and split.targets.dtype == np.float32
        assert split.targets.shape == (num_examples, dataset.out_features)
        assert len(dataset.labels) == dataset.out_features
        if dataset.is_tokens:
            assert split.inputs.dtype == np.int32 and split.inputs.shape == (num_examples, dataset.time_steps)
            assert split.inputs.min() >= 0 and split.inputs.max() < dataset.in_features
        else:
            assert split.inputs.shape == (num_examples, dataset.time_steps, dataset.in_features)
            assert split.inputs.dtype == np.float32 and np.isfinite(split.inputs).all()
        if dataset.loss == "categorical":
            np.testing.assert_array_equal(split.targets.sum(axis=1), 1)
            assert np.isin(split.targets, (0, 1)).all()


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("imdb", {}, f"Unknown data set 'imdb'; known are {', '.join(DATASETS)}."),
        ("csv", {}, "Data set 'csv' is written csv:PATH."),
        ("csv:", {}, "Data set 'csv:' is written csv:PATH."),
        ("ptb:x", {}, "Data set 'ptb:x' is written ptb."),
        ("ptb:", {}, "Data set 'ptb:' is written ptb."),
        ("ptb", {"length": 3}, "ptb: unknown setting 'length'; allowed are level."),
        ("tox21", {"fold": 3}, "tox21: unknown setting 'fold'; allowed are length, validation."),
        ("npz:a.npz", {"level": "word"}, "npz: unknown setting 'level'; it has none."),
    ],
)
def test_names_and_settings_are_checked(name, settings, message):
    with pytest.raises(DataError) as error:
        load_dataset(name, **settings)
    assert str(error.value) == message
    assert isinstance(error.value, ValueError)
