"""NumPy's files: memory maps, compressed ones, archives, and what is refused."""

import lzma

import numpy as np
import pytest

from elenas_jax.tasks.npy import find_npy, read_npy, read_npz
from elenas_jax.tasks.records import DataError

VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write_xz(path, content):
    # A delta filter in the chain, as images are best compressed.
    filters = [{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
    path.write_bytes(lzma.compress(content, filters=filters))


def test_plain_files_are_memory_maps_and_compressed_ones_are_read(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    write_xz(tmp_path / "b.npy.xz", (tmp_path / "a.npy").read_bytes())
    plain, compressed = (read_npy(find_npy(tmp_path, name)) for name in "ab")
    assert isinstance(plain, np.memmap) and not plain.flags.writeable
    for read in (plain, compressed):
        assert read.dtype == np.int16
        np.testing.assert_array_equal(read, VALUES)
    assert find_npy(tmp_path, "c") is None


def test_files_that_cannot_be_used_are_one_line(tmp_path):
    path, squeezed = tmp_path / "a.npy", tmp_path / "a.npy.xz"
    np.save(path, VALUES)
    whole = path.read_bytes()
    for content, reason in (
        (b"", "no .npy file"),
        (b"\x80\x04K\x01.", "no .npy file"),  # a pickle
        (whole[:-5], "cannot be read (mmap length is greater than file size)"),
        (whole[:20], "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_npy(path)
        assert str(error.value).startswith(f"{path}: {reason}") and "\n" not in str(error.value)
    for content, reason in (
        (whole, "cannot be read (Input format not supported by decoder)"),
        (lzma.compress(whole)[:-20], "cannot be read"),
        (lzma.compress(b"text"), "no .npy file inside"),
        (lzma.compress(whole[:-5]), "cannot be read"),
    ):
        squeezed.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_npy(squeezed)
        assert str(error.value).startswith(f"{squeezed}: {reason}")
    with pytest.raises(DataError, match=r"none\.npy: cannot be read \(No such file or directory\)"):
        read_npy(tmp_path / "none.npy")


def test_python_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object))
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    write_xz(tmp_path / "b.npy.xz", (tmp_path / "a.npy").read_bytes())
    for name in ("a.npy", "b.npy.xz"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            read_npy(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read_npz(tmp_path / "a.npz")


def test_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=VALUES, y=VALUES[0])
    arrays = read_npz(path)
    assert list(arrays) == ["x", "y"]
    np.testing.assert_array_equal(arrays["x"], VALUES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a\.npz: cut off, or no \.npz file\."):
        read_npz(path)
    with pytest.raises(DataError, match=r"none\.npz: cannot be read \(No such file or directory\)"):
        read_npz(tmp_path / "none.npz")
