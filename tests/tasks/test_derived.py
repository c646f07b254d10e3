"""Derived arrays: built once, anew for other settings or files, never where it is not allowed."""

import os

import numpy as np
import pytest

from elenas_jax.tasks.derived import derive
from elenas_jax.tasks.records import DataError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A data folder with one file, and a cache folder of the user."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    (data / "source.bin").write_bytes(b"one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return data, cache


def derive_one(data, settings=None, built=None):
    def build(folder):
        np.save(folder / "x.npy", np.arange(3))
        if built is not None:
            built.append(folder)

    return derive(data, "set", settings or {"seed": 0}, ("source.bin",), build)


def test_built_once_and_anew_for_other_settings_or_files(places):
    data, cache = places
    built = []
    first = derive_one(data, built=built)
    assert first.parent == data / "derived" and first.name.startswith("set-")
    assert [path.name for path in first.iterdir()] == ["x.npy"]
    assert derive_one(data, built=built) == first and len(built) == 1
    assert derive_one(data, {"seed": 1}, built) != first and len(built) == 2
    (data / "source.bin").write_bytes(b"another")
    assert derive_one(data, built=built) != first and len(built) == 3
    assert len(list((data / "derived").iterdir())) == 3 and not cache.exists()  # nothing half-built is left


def test_a_folder_that_is_not_to_be_written_stays_as_it_is(places):
    data, cache = places
    data.chmod(0o555)
    try:
        built = []
        folder = derive_one(data, built=built)
        assert folder.parent == cache / "elenas_jax" / "derived"
        assert derive_one(data, built=built) == folder and len(built) == 1
        assert [path.name for path in data.iterdir()] == ["source.bin"]
    finally:
        data.chmod(0o755)


def test_a_build_that_fails_leaves_nothing(places):
    data, _ = places

    def fail(folder):
        np.save(folder / "x.npy", np.arange(3))
        raise OSError(28, os.strerror(28))

    with pytest.raises(DataError, match=r"derived arrays cannot be written \(No space left on device\)\."):
        derive(data, "set", {}, (), fail)
    assert list((data / "derived").iterdir()) == []


def test_the_first_of_two_builders_wins(places):
    data, _ = places

    def build(folder):
        np.save(folder / "x.npy", np.zeros(3))
        derive_one(data)  # another process, done in the meantime

    folder = derive(data, "set", {"seed": 0}, ("source.bin",), build)
    np.testing.assert_array_equal(np.load(folder / "x.npy"), np.arange(3))
    assert len(list(folder.parent.iterdir())) == 1


def test_sources_may_be_downloaded_while_building(places):
    data, _ = places

    def build(folder):
        (data / "late.bin").write_bytes(b"x")

    first = derive(data, "set", {}, ("late.bin",), build)
    assert derive(data, "set", {}, ("late.bin",), lambda folder: pytest.fail("built twice")) == first
