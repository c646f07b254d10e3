"""Arrays of unsigned bytes in the idx format of MNIST and its relatives.

A file is a magic number (0x0800 and the number of dimensions), the sizes, all big-endian 32-bit
integers, and then the values, the last dimension running fastest.
"""

import math
import struct

import numpy as np

from elenas_jax.tasks.records import DataError


def parse_idx(content: bytes, name: str, num_dims: int) -> np.ndarray:
    """Returns the uint8 array of an unzipped idx file; read-only, it shares memory with `content`.

    Args:
      content: of the file.
      name: of the file, for the error.
      num_dims: that the array must have.

    Raises:
      DataError: if it is no such file, or longer or shorter than its header says.
    """
    magic, header = 0x0800 + num_dims, 4 * (1 + num_dims)
    sizes = struct.unpack(f">{1 + num_dims}i", content[:header]) if len(content) >= header else (0,)
    if sizes[0] != magic:
        raise DataError(f"{name}: not an idx file of {num_dims}-dimensional bytes.")
    shape = sizes[1:]
    expected = header + math.prod(shape)
    if min(shape) < 0 or len(content) != expected:
        raise DataError(f"{name}: {len(content):,} bytes, but its header says {expected:,}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
