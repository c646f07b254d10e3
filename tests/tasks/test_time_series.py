"""UCR/UEA .ts files: what is legal, what is malformed, validation and standardising."""

import gzip

import numpy as np
import pytest

from elenas_jax.tasks.records import DataError
from elenas_jax.tasks.time_series import load_ts

HEADER = """# a comment
@problemName Toy
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
"""
DATA = """@data
1,2,3:10,20,30:up
4,5:40,50:down
1:10:up

# another comment
2,2:20,20:down
"""
TRAIN = HEADER + DATA
TEST = HEADER + "@data\n1,2,3,4:10,20,30,40:down\n"


def write(tmp_path, train=TRAIN, test=TEST):
    (tmp_path / "Toy_TRAIN.ts").write_text(train)
    (tmp_path / "Toy_TEST.ts").write_text(test)
    return tmp_path / "Toy"


def test_series_of_different_length(tmp_path):
    dataset = load_ts(write(tmp_path))
    assert (dataset.name, dataset.time_steps, dataset.in_features) == ("ts:Toy", 3, 2)
    assert dataset.labels == ("up", "down") and dataset.out_features == 2
    # Two of each class: one is held out.
    np.testing.assert_array_equal(np.sort(dataset.train.targets, axis=0), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(np.sort(dataset.valid.targets, axis=0), [[0, 0], [1, 1]])
    inputs = np.concatenate([dataset.train.inputs, dataset.valid.inputs])
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[..., 0], inputs[..., 1], rtol=1e-6)  # ten times the same
    assert sorted(map(int, (inputs[..., 0] != 0).sum(axis=1))) == [1, 2, 2, 3]
    assert (inputs[..., 0] != 0)[:, -1].all()  # padded at the front


def test_standardised_with_what_is_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        ",".join(map(str, rng.normal(5.0, 3.0, size=7))) + f":{label}"
        for label in ("a", "b")
        for _ in range(10)
    ]
    header = "@univariate true\n@classLabel true a b\n@data\n"
    path = write(tmp_path, header + "\n".join(lines), header + "5,5,5,5,5,5,8:a")
    dataset = load_ts(path)
    assert [len(split.inputs) for split in (dataset.train, dataset.valid)] == [16, 4]
    np.testing.assert_array_equal(dataset.valid.targets.sum(axis=0), [2, 2])
    np.testing.assert_allclose(dataset.train.inputs.mean(), 0.0, atol=1e-6)
    np.testing.assert_allclose(dataset.train.inputs.std(), 1.0, rtol=1e-5)
    assert abs(dataset.valid.inputs.mean()) > 1e-3
    np.testing.assert_array_equal(load_ts(path).valid.inputs, dataset.valid.inputs)


def test_test_series_keep_their_last_steps(tmp_path):
    path = write(tmp_path)
    dataset = load_ts(path)
    test = dataset.load_test()
    assert test.inputs.shape == (1, 3, 2)
    write(tmp_path, test=TEST.replace("1,2,3,4:10,20,30,40", "2,3,4:20,30,40"))
    np.testing.assert_array_equal(load_ts(path).load_test().inputs, test.inputs)
    np.testing.assert_array_equal(test.targets, [[0, 1]])


def test_keys_in_any_case_and_gzipped(tmp_path):
    path = write(tmp_path, TRAIN.replace("@dimensions", "@DIMENSIONS").replace("@data", "@Data"))
    plain = load_ts(path)
    plain_test = plain.load_test()
    for name in ("Toy_TRAIN.ts", "Toy_TEST.ts"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    zipped = load_ts(path)
    np.testing.assert_array_equal(zipped.train.inputs, plain.train.inputs)
    np.testing.assert_array_equal(zipped.load_test().inputs, plain_test.inputs)


def test_the_test_file_is_read_by_load_test_only(tmp_path):
    path = write(tmp_path, test="not a data file")
    dataset = load_ts(path)
    with pytest.raises(DataError, match=r"Toy_TEST\.ts: there is no line @data"):
        dataset.load_test()
    (tmp_path / "Toy_TEST.ts").unlink()
    with pytest.raises(DataError, match=r"Toy_TEST\.ts: no such file, and none with \.gz"):
        load_ts(path)


def test_missing_values_are_filled_forward_then_with_the_mean(tmp_path):
    header = "@missing true\n@univariate true\n@classLabel true a b\n@data\n"
    path = write(tmp_path, header + "1,?,NaN,3:a\n?,2,2,2:b\n", header + "?,1,2,?:a\n")
    # A class with one series cannot be held out.
    with pytest.raises(DataError, match="no class has two series"):
        load_ts(path)
    path = write(tmp_path, header + "1,?,NaN,3:a\n1,1,1,3:a\n?,2,2,2:b\n?,2,2,2:b\n", header + "?,1,2,?:a\n")
    dataset = load_ts(path)
    mean, deviation = 12 / 7, np.sqrt(24 / 7 - (12 / 7) ** 2)  # of 1, 1, 1, 3, 2, 2, 2
    for split in (dataset.train, dataset.valid):
        series = split.inputs[np.argmax(split.targets, axis=1), :, 0] * deviation + mean
        np.testing.assert_allclose(series, [[1, 1, 1, 3], [mean, 2, 2, 2]], rtol=1e-5)
    test = dataset.load_test().inputs[0, :, 0]
    np.testing.assert_allclose(test[1:] * deviation + mean, [1, 2, 2], rtol=1e-5)
    assert test[0] == 0


@pytest.mark.parametrize(
    "before, after, message",
    [
        (
            "4,5:40,50",
            "4,5:40",
            ", line 11: channel 2 has 1 steps, channel 1 2; the channels of a series have one length.",
        ),
        (
            "4,5:40,50",
            "4,5:40,nan",
            ", line 11: channel 2, step 2 is missing (? or NaN), but the header does not say @missing true.",
        ),
        (
            "4,5:40,50",
            "4,?:40,50",
            ", line 11: channel 1, step 2 is missing (? or NaN), but the header does not say @missing true.",
        ),
        ("4,5:40,50", "4,5:inf,50", ", line 11: channel 2 has a value beyond 3.4e+38."),
        ("4,5:40,50", "4,x:40,50", ", line 11: channel 1 has 'x'; values are numbers."),
        ("4,5:40,50", "4,5:", ", line 11: channel 2 has ''; values are numbers."),
        ("4,5:40,50", "4,5", ", line 11: 1 dimensions; there must be 2."),
        ("40,50:down", "40,50:left", ", line 11: label 'left' is not in the header (up, down)."),
        ("40,50:down", "40,50", ", line 11: label '40,50' is not in the header (up, down)."),
        ("4,5:40,50:down", "down", ", line 11: 0 dimensions; there must be 2."),
        ("@timeStamps false", "@timeStamps true", ", line 3: series with time stamps are not supported."),
        (
            "@classLabel true up down",
            "@targetLabel true",
            ", line 8: numbers to predict are not supported, only classes.",
        ),
        ("@classLabel true up down", "", ": there is no line @classLabel true followed by the labels."),
        (
            "@classLabel true up down",
            "@classLabel false",
            ": there is no line @classLabel true followed by the labels.",
        ),
        (
            "@classLabel true up down",
            "@classLabel true up",
            ", line 8: the labels are up; there must be two or more different ones.",
        ),
        (
            "@classLabel true up down",
            "@classLabel true up up",
            ", line 8: the labels are up, up; there must be two or more different ones.",
        ),
        ("@missing false", "@missing no", ", line 4: @missing is 'no'; it must be true or false."),
        (
            "@dimensions 2",
            "@dimensions two",
            ", line 6: @dimensions is 'two'; it must be a whole number of at least 1.",
        ),
        ("@univariate false", "@univariate true", ", line 6: 2 dimensions, but @univariate is true."),
        (
            "@equalLength false",
            "@equalLength true",
            ", line 11: channel 1 has 2 steps, but the header says @equalLength true and all have 3.",
        ),
        (
            "@equalLength false",
            "@equalLength true\n@seriesLength 2",
            ", line 11: channel 1 has 3 steps, but the header says @equalLength true and all have 2.",
        ),
        ("@problemName Toy", "problem Toy", ", line 2: 'problem Toy' stands before @data; @ must begin it."),
        (DATA, "@data\n", ": there are no data below @data."),
        ("@data\n", "", ", line 9: '1,2,3:10,20,30:up' stands before @data; @ must begin it."),
        (DATA, "@data\n1:2:up\n3:4:up", ": all labels of train are 'up'; there must be two classes."),
    ],
)
def test_malformed_is_one_line(tmp_path, before, after, message):
    assert before in TRAIN
    path = write(tmp_path, TRAIN.replace(before, after))
    if before == "@data\n":
        message = ": there is no line @data."
    with pytest.raises(DataError) as error:
        load_ts(path)
    assert str(error.value) == f"{tmp_path}/Toy_TRAIN.ts{message}"


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("up down", "up down left", "its labels are up, down, left, but those of Toy_TRAIN.ts up, down."),
        ("@dimensions 2", "@dimensions 1", "1 dimensions, but Toy_TRAIN.ts has 2."),
    ],
)
def test_test_must_be_like_train(tmp_path, before, after, message):
    test = TEST.replace(before, after)
    if "dimensions" in before:
        test = test.replace(":10,20,30,40", "")
    dataset = load_ts(write(tmp_path, test=test))
    with pytest.raises(DataError) as error:
        dataset.load_test()
    assert str(error.value) == f"{tmp_path}/Toy_TEST.ts: {message}"


def test_labels_of_test_in_another_order_are_the_same(tmp_path):
    path = write(tmp_path, test=TEST.replace("up down", "down up"))
    np.testing.assert_array_equal(load_ts(path).load_test().targets, [[0, 1]])


def test_cut_off(tmp_path):
    path = write(tmp_path)
    (tmp_path / "Toy_TRAIN.ts").unlink()
    (tmp_path / "Toy_TRAIN.ts.gz").write_bytes(gzip.compress(TRAIN.encode())[:-10])
    with pytest.raises(DataError, match=r"Toy_TRAIN\.ts\.gz: cut off or damaged"):
        load_ts(path)
