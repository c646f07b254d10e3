"""Pre-trained policies on disk: made, gone on with, loaded, and refused where they do not fit."""

import jax
import numpy as np
import pytest

from elenas_jax.experiment.build import build_space, build_strategy, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.pretrained import load_params, pretrain
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.strategies import LEARNING

SETTINGS = {
    "ppo": {"num_episodes": 2, "width": 8, "num_layers": 1, "num_heads": 1, "batch_size": 8},
    "reinforce": {"batch_size": 2, "num_minibatches": 1, "width": 8},
}


def make_config(name, num_nodes=7, **changes):
    return check_config(
        {
            "ladder": ("reber",),
            "space": {"name": "elenas", "num_nodes": num_nodes, "max_draws": 20},
            "strategy": {"name": name, **SETTINGS[name], **changes},
        }
    )


def make_pretrained(config, folder, updates=3, **settings):
    space = build_space(config, build_tasks(config))
    strategy = build_strategy(config, space)
    return pretrain(config, space, strategy, folder, updates=updates, learning_rate=1e-2, **settings)


def params_of(config):
    strategy = build_strategy(config, build_space(config, build_tasks(config)))
    return jax.tree.leaves(strategy.init(jax.random.key(0)).params)


@pytest.mark.parametrize("name", LEARNING)
def test_strategies_start_from_what_was_pretrained(tmp_path, name):
    config = make_config(name)
    make_pretrained(config, tmp_path / "policy", updates=1)
    ours, scratch = params_of(make_config(name, pretrained=str(tmp_path / "policy"))), params_of(config)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(ours, scratch, strict=True))


def test_a_killed_pretraining_goes_on_to_the_same_bits(tmp_path):
    name = "ppo"
    config = make_config(name)
    folder = tmp_path / "policy"

    class Killed(Exception):
        pass

    def kill(done, loss):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        make_pretrained(config, folder, save_every=1, on_update=kill)
    wanted = make_config(name, pretrained=str(folder))
    with pytest.raises(ConfigError, match="not finished"):
        load_params(wanted)
    found = make_pretrained(config, folder, save_every=1)
    whole = make_pretrained(config, tmp_path / "whole", save_every=1)
    assert found == whole and found["updates"] == 3 and set(found["after"]) >= {"policy", "rare"}
    ours, theirs = params_of(wanted), params_of(make_config(name, pretrained=str(tmp_path / "whole")))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ConfigError, match="other settings"):
        make_pretrained(config, folder, updates=4)
    with pytest.raises(ConfigError, match=r"strategy\.width=8; this config has 16"):
        load_params(make_config(name, pretrained=str(folder), width=16))
    with pytest.raises(ConfigError, match=r"space\.num_nodes=7; this config has 8"):
        load_params(make_config(name, 8, pretrained=str(folder)))


def test_no_known_block_and_no_folder_are_said_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="No known recurrent block"):
        make_pretrained(make_config("ppo", 4), tmp_path / "policy")
    assert not (tmp_path / "policy").exists()
    with pytest.raises(ConfigError, match=r"there is no pretraining\.json"):
        load_params(make_config("ppo", pretrained=str(tmp_path)))
