"""Pre-training: the policy foresees episodes that build known blocks better than before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces import make_elenas
from elenas_jax.strategies import STRATEGIES
from elenas_jax.strategies.pretraining import make_pretraining

SETTINGS = {
    "ppo": {"num_episodes": 2, "width": 8, "num_layers": 1, "num_heads": 1, "batch_size": 8},
    "reinforce": {"batch_size": 2, "num_minibatches": 1, "width": 8},
}


@pytest.fixture(scope="module")
def space():
    return make_elenas(num_nodes=7, max_draws=20)


def test_a_policy_learns_to_foresee_known_blocks(space):
    strategy = STRATEGIES["ppo"](space, **SETTINGS["ppo"])
    pretraining = make_pretraining(
        space, strategy.policy, num_episodes=4, steps_per_episode=16, learning_rate=1e-2, measured_episodes=8
    )
    params = strategy.init(jax.random.key(0)).params
    state = pretraining.init(params)
    key = jax.random.key(1)
    before = pretraining.measure(key, params)
    # A new policy is the sampler.
    np.testing.assert_allclose(before.policy, before.sampler)
    np.testing.assert_allclose(before.episode, before.sampler_episode, rtol=1e-4)
    assert float(before.rare) == 0.0
    for step in range(120):
        params, state, loss = pretraining.update(jax.random.fold_in(key, step), params, state)
    after = pretraining.measure(key, params)
    assert np.isfinite(float(loss))
    assert float(after.episode) > float(before.episode) + 2.0 and float(after.rare) > 0.1


def test_the_loss_is_that_of_all_steps(space):
    """Steps are drawn unevenly and weighted: its mean is the negative log-probability of an episode."""
    strategy = STRATEGIES["reinforce"](space, **SETTINGS["reinforce"])
    pretraining = make_pretraining(space, strategy.policy, num_episodes=64, measured_episodes=64)
    params = strategy.init(jax.random.key(0)).params
    state = pretraining.init(params)
    losses = [pretraining.update(jax.random.key(seed), params, state)[2] for seed in range(4)]
    per_step = -pretraining.measure(jax.random.key(9), params).episode / space.growth.num_steps
    np.testing.assert_allclose(jnp.mean(jnp.array(losses)), per_step, rtol=0.1)
