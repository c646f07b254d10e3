"""CSV files by users: features, splits, order of steps, classes and numbers, and each mistake."""

import gzip
import re

import numpy as np
import pytest

from elenas_jax.tasks.labelled_csv import load_csv
from elenas_jax.tasks.records import DataError

CLASSES = """series,split,label,x,y
a,train,up,1,10
a,train,up,3,10
b,train,down,5,10
c,valid,down,3,11
c,valid,down,3,12
c,valid,down,5,13
d,test,up,1,10
"""


def write(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_classes(tmp_path):
    dataset = load_csv(write(tmp_path, CLASSES))
    deviation = np.sqrt(8 / 3)  # of x in train: 1, 3, 5; y is constant there
    np.testing.assert_allclose(
        dataset.train.inputs, [[[-2 / deviation, 0], [0, 0]], [[0, 0], [2 / deviation, 0]]], rtol=1e-6
    )
    np.testing.assert_allclose(
        dataset.valid.inputs, [[[0, 2], [2 / deviation, 3]]], rtol=1e-6
    )  # the last two
    assert dataset.labels == ("down", "up")
    np.testing.assert_array_equal(dataset.train.targets, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(dataset.valid.targets, [[1, 0]])
    assert (dataset.name, dataset.loss, dataset.metric) == ("csv:table.csv", "categorical", "accuracy")
    assert (dataset.in_features, dataset.out_features, dataset.time_steps) == (2, 2, 2)
    test = dataset.load_test()
    np.testing.assert_allclose(test.inputs, [[[0, 0], [-2 / deviation, 0]]], rtol=1e-6)
    assert test.inputs.dtype == test.targets.dtype == np.float32


def test_numbers_to_predict(tmp_path):
    text = "series,split,x,target_u,target_v\na,train,1,10,5\nb,train,2,20,5\nc,valid,3,30,6\nd,test,1,15,5\n"
    dataset = load_csv(write(tmp_path, text))
    assert (dataset.loss, dataset.metric, dataset.labels) == ("squared", "r2", ("target_u", "target_v"))
    np.testing.assert_allclose(dataset.train.targets, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(dataset.valid.targets, [[3, 1]])
    np.testing.assert_allclose(dataset.load_test().targets, [[0, 0]])


def test_steps_order_the_rows(tmp_path):
    lines = CLASSES.splitlines()
    steps = [5, -1, 0, 2, 3, 1, 0]  # of a: the second row first
    numbered = [lines[0] + ",step", *(f"{line},{step}" for line, step in zip(lines[1:], steps))]
    dataset = load_csv(write(tmp_path, "\n".join(numbered)))
    plain = load_csv(write(tmp_path, CLASSES))
    np.testing.assert_array_equal(dataset.train.inputs[0], plain.train.inputs[0][::-1])
    np.testing.assert_allclose(dataset.valid.inputs[0, :, 1], [1, 2])  # y is 13, 11, 12 in this order
    assert dataset.in_features == 2


def test_gzipped_with_quotes_spaces_and_empty_lines(tmp_path):
    path = tmp_path / "table.csv.gz"
    text = CLASSES.replace("up", '"up, up"').replace("\n", "\r\n\r\n").replace(",10", ", 10")
    path.write_bytes(gzip.compress(text.encode()))
    dataset = load_csv(path)
    assert dataset.labels == ("down", "up, up")
    np.testing.assert_array_equal(dataset.train.inputs, load_csv(write(tmp_path, CLASSES)).train.inputs)


def automatic(num_series, reverse=False):
    rows = [f"s{number},{'ab'[number % 2]},{number}\n" for number in range(num_series)]
    return "series,label,x\n" + "".join(reversed(rows) if reverse else rows)


def test_without_splits_a_tenth_each_is_held_out(tmp_path):
    dataset = load_csv(write(tmp_path, automatic(40)))
    splits = [dataset.train, dataset.valid, dataset.load_test()]
    assert [len(split.inputs) for split in splits] == [32, 4, 4]
    values = [set(split.inputs.ravel().tolist()) for split in splits]
    assert sum(map(len, values)) == len(set.union(*values)) == 40  # no series is in two
    again = load_csv(write(tmp_path, automatic(40, reverse=True)))
    assert set(again.valid.inputs.ravel().tolist()) == values[1]  # whatever the order of the rows


def test_too_few_series_to_split(tmp_path):
    with pytest.raises(DataError, match="2 series; without a column split there must be 3"):
        load_csv(write(tmp_path, automatic(2)))


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("series,", "id,", "the column series is missing; the header has id, split, label, x, y."),
        (CLASSES, "", "the column series is missing; the header has none."),
        (CLASSES, "series,label,x\n", "there are no rows below the header."),
        ("label,", "class,", "there must be a column label or columns target_*, and not both."),
        ("x,y", "target_x,y", "there must be a column label or columns target_*, and not both."),
        ("x,y", "x,x", "columns must have different names, none of them empty."),
        ("x,y", "x,", "columns must have different names, none of them empty."),
        ("a,train,up,3,10", "a,train,up,3", ", line 3: 4 cells, but the header has 5."),
        (
            "b,train,down,5,10",
            "b,train,down,five,10",
            ", line 4: x is 'five'; it must be a number of at most 3.4e+38.",
        ),
        (
            "b,train,down,5,10",
            "b,train,down,,10",
            ", line 4: x is ''; it must be a number of at most 3.4e+38.",
        ),
        (
            "b,train,down,5,10",
            "b,train,down,5,nan",
            ", line 4: y is 'nan'; it must be a number of at most 3.4e+38.",
        ),
        (
            "b,train,down,5,10",
            "b,train,down,5,-inf",
            ", line 4: y is '-inf'; it must be a number of at most 3.4e+38.",
        ),
        ("b,train,down", ",train,down", ", line 4: series is empty."),
        ("b,train,down", "b,train,", ", line 4: label is empty."),
        ("b,train", "b,tarin", ", line 4: split is 'tarin'; it must be train, valid, test."),
        (
            "a,train,up,3",
            "a,train,down,3",
            "series 'a' has two values of label: 'up' (line 2) and 'down' (line 3).",
        ),
        (
            "a,train,up,3",
            "a,test,up,3",
            "series 'a' has two values of split: 'train' (line 2) and 'test' (line 3).",
        ),
        ("d,test", "d,train", "there is no series of the split test."),
        ("c,valid,down", "c,valid,left", "label 'left' is in valid, but not in train."),
        ("d,test,up", "d,test,left", "label 'left' is in test, but not in train."),
        ("up", "down", "all labels of train are 'down'; there must be two classes."),
    ],
)
def test_mistakes_are_one_line(tmp_path, before, after, message):
    assert before in CLASSES
    path = write(tmp_path, CLASSES.replace(before, after))
    with pytest.raises(DataError) as error:
        load_csv(path)
    assert str(error.value) in (f"{path}: {message}", f"{path}{message}")


def test_no_features(tmp_path):
    with pytest.raises(DataError, match="there is no column of features"):
        load_csv(write(tmp_path, "series,split,label\na,train,b\n"))


def test_a_step_twice(tmp_path):
    text = "series,step,label,x\na,1,u,0\nb,1,v,0\na,1.0,u,2\n"
    with pytest.raises(DataError, match=re.escape("series 'a' has step 1.0 twice (lines 2 and 4).")):
        load_csv(write(tmp_path, text))


def test_targets_are_numbers(tmp_path):
    text = "series,split,x,target_u\na,train,1,10\nb,train,2,high\nc,valid,3,1\nd,test,4,1\n"
    with pytest.raises(DataError, match="line 3: target_u is 'high'; it must be a number"):
        load_csv(write(tmp_path, text))


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        load_csv(tmp_path / "none.csv")
