"""The idx format: what is read, and what is not."""

import struct

import numpy as np
import pytest

from elenas_jax.tasks.idx import parse_idx
from elenas_jax.tasks.records import DataError


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4)])
def test_values_and_shapes(shape):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    content = struct.pack(f">{1 + len(shape)}i", 0x0800 + len(shape), *shape) + values.tobytes()
    read = parse_idx(content, "file", len(shape))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "file: not an idx file of 1-dimensional bytes."),
        (struct.pack(">2i", 0x0802, 1) + b"x", "file: not an idx file of 1-dimensional bytes."),
        (struct.pack(">2i", 0x0D01, 1) + b"x", "file: not an idx file of 1-dimensional bytes."),  # floats
        (struct.pack(">2i", 0x0801, 3) + b"x", "file: 9 bytes, but its header says 11."),
        (struct.pack(">2i", 0x0801, 1) + b"xy", "file: 10 bytes, but its header says 9."),
        (struct.pack(">2i", 0x0801, -1) + b"", "file: 8 bytes, but its header says 7."),
    ],
)
def test_other_files_are_one_line(content, message):
    with pytest.raises(DataError) as error:
        parse_idx(content, "file", 1)
    assert str(error.value) == message
