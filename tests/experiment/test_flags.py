"""Flags: what is missing is said in one line; recipes and settings."""

from pathlib import Path

import pytest
from absl import flags as absl_flags

from elenas_jax.experiment import flags
from elenas_jax.experiment.rules import ConfigError


def test_an_empty_flag_is_a_missing_one(monkeypatch):
    values = absl_flags.FlagValues()
    for name in ("block", "out"):
        absl_flags.DEFINE_string(name, None, "", flag_values=values)
    monkeypatch.setattr(flags.flags, "FLAGS", values)
    values(["export", "--block=lstm", "--out=here"])
    flags.require("block", "out")
    values(["export", "--out="])
    with pytest.raises(ConfigError, match=r"^--out=\.\.\. is missing"):
        flags.require("block", "out")


def test_a_recipe_is_added_where_none_is_given():
    recipe = Path("default.py")
    added = ["x", "--config=default.py", "--config.seed=3", "--seeds=1"]
    assert flags.with_recipe(["x", "--config.seed=3", "--seeds=1"], recipe) == added
    for given in ("--config=mine.py", "-config=mine.py", "--config"):
        assert flags.with_recipe(["x", given], recipe) == ["x", given]


def test_settings_are_pairs():
    assert flags.parse_settings(["length=64", "validation=fold"]) == {"length": "64", "validation": "fold"}
    assert flags.parse_settings([]) == {}
    for wrong in ("length", "length=", "=64"):
        with pytest.raises(ConfigError, match="it must look like"):
            flags.parse_settings([wrong])


def test_files_that_cannot_be_written(tmp_path):
    flags.check_writable("json", None)
    flags.check_writable("json", str(tmp_path / "new.json"))
    for value, words in ((tmp_path, "it is a folder"), (tmp_path / "no" / "a.json", "there is no folder")):
        with pytest.raises(ConfigError, match=rf"--json={value}: {words}"):
            flags.check_writable("json", str(value))
    assert not list(tmp_path.iterdir())
