"""Arrays in NumPy's own formats: .npy (memory-mapped), .npy.xz and .npz. Never Python objects."""

import io
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from elenas_jax.tasks.records import DataError

_MAGIC = b"\x93NUMPY"
# What NumPy, lzma and zipfile raise for damaged files, files with a password and Python objects.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, lzma.LZMAError, zlib.error)


def find_npy(folder: Path, name: str) -> Path | None:
    """Returns the file `name`.npy or `name`.npy.xz of a folder, if there is one; it is not opened."""
    return next(
        (path for path in (folder / f"{name}.npy", folder / f"{name}.npy.xz") if path.is_file()), None
    )


def read_npy(path: Path) -> np.ndarray:
    """Returns the array of a .npy file as a read-only memory map, or of a .npy.xz file in memory.

    Raises:
      DataError: for a file that is missing, damaged or no such file, and for Python objects.
    """
    is_compressed = path.suffix == ".xz"
    try:
        with lzma.open(path) if is_compressed else path.open("rb") as file:
            start = file.read(len(_MAGIC))
            if start != _MAGIC:
                raise DataError(f"{path}: no .npy file{' inside' if is_compressed else ''}.")
            if is_compressed:
                return np.load(io.BytesIO(start + file.read()))
        return np.load(path, mmap_mode="r")
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _cannot_read(path, error) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz file by their names; errors as of `read_npy`."""
    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # that it is missing is said first
            raise DataError(f"{path}: cut off, or no .npz file.")
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except (*_UNREADABLE, zipfile.BadZipFile) as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return DataError(f"{path}: cannot be read ({reason}).")
