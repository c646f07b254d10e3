import argparse

import pytest

from elenas_jax.experiment.command_line import Parser, probabilities, shape, whole


def test_values_are_read():
    assert shape("3x64x64") == (3, 64, 64) and shape("32X7") == (32, 7)
    assert whole(1)("12") == 12 and whole(0)("0") == 0
    assert probabilities("0.9,0.32") == [0.9, 0.32]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (shape, "3x0x4", "'3x0x4' must look like 3x64x64 or 32x7"),
        (shape, "12", "'12' must look like"),
        (shape, "1x2x3x4", "must look like"),
        (whole(1), "0", "'0' must be a whole number from 1 to 4294967295"),
        (whole(1), "1.5", "'1.5' must be a whole number"),
        (whole(0), "-1", "'-1' must be a whole number from 0"),
        (probabilities, "0.9,1", "'0.9,1' must be numbers between 0 and 1"),
        (probabilities, "half", "'half' must be numbers"),
        (probabilities, "nan", "'nan' must be numbers"),
    ],
)
def test_other_values_are_refused(read, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(text)


def test_complaints_are_one_line(capsys):
    parser = Parser(prog="space.py")
    parser.add_argument("--n", type=whole(1), required=True)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--n=none"])
    captured = capsys.readouterr()
    assert ended.value.code == 2 and captured.out == ""
    assert captured.err == (
        "error: argument --n: 'none' must be a whole number from 1 to 4294967295; see --help.\n"
    )
