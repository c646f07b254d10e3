"""Flags: what is missing is said in one line."""

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
