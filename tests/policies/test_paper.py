"""The paper's policy against its sources written edge by edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.policies import PaperPolicy
from elenas_jax.policies.heat import masked_softmax
from tests.policies.graphs import NUM_ACTIONS, padded, random_observation
from tests.policies.test_policies import after_some_training
from tests.reference import heat

NUM_LAYERS, NUM_HEADS = 2, 2


@pytest.fixture(scope="module")
def model():
    return PaperPolicy(NUM_ACTIONS, width=8, num_layers=NUM_LAYERS, num_heads=NUM_HEADS)


@pytest.fixture(scope="module")
def params(model):
    init = jax.jit(model.init)
    return after_some_training(init(jax.random.key(0), random_observation(0, 6, 4, 0.5)))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("padding", [0, 3])
def test_policy_is_that_of_its_sources(model, params, density, padding):
    apply = jax.jit(model.apply)
    for seed in range(3):
        observation = random_observation(seed, 6, 4, density)
        if padding:
            observation = padded(observation, padding, 5)
        logits, value = apply(params, observation)
        arrays = jax.tree.map(np.asarray, params["params"])
        expected_logits, expected_value = heat.paper_policy(arrays, observation, NUM_LAYERS, NUM_HEADS)
        np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-5)


def test_without_the_sampler_first_logits_are_small(model):
    plain = model.clone(use_prior=False)
    observation = random_observation(0, 6, 4, 0.5)
    logits, value = plain.apply(plain.init(jax.random.key(0), observation), observation)
    assert 0.0 < float(jnp.max(jnp.abs(logits))) < 0.2
    assert float(value) == 0.0


def test_softmax_of_nothing_is_zero_and_has_a_gradient():
    logits = jnp.ones((2, 3))
    valid = np.array([[True, False, True], [False, False, False]])
    np.testing.assert_allclose(masked_softmax(logits, valid), [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    gradient = jax.grad(lambda x: jnp.sum(masked_softmax(x, valid) ** 2))(logits)
    assert bool(jnp.all(jnp.isfinite(gradient)))
