"""PPO: its gradient against enumeration, clipping, rewards at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.policies import PaperPolicy
from elenas_jax.spaces import make_elenas
from elenas_jax.strategies import make_ppo
from elenas_jax.strategies.ppo import LossWeights, Steps, loss_and_gradient
from elenas_jax.strategies.rollouts import make_policy, replay, rewards_to_go
from elenas_jax.types import DIVERGED, NOT_EVALUATED, OK
from tests.strategies.test_reinforce import TINY, all_episodes, evaluations

PLAIN = LossWeights(policy=1.0, value=0.0, entropy=0.0, clip=0.2)


@pytest.fixture(scope="module")
def tiny():
    return make_elenas(num_nodes=3, operations=TINY)


@pytest.fixture(scope="module")
def known(tiny):
    """A policy, its parameters, all eight episodes with their probabilities and rewards."""
    model = PaperPolicy(tiny.growth.num_actions, width=8, num_layers=1, num_heads=2)
    policy = make_policy(tiny.growth, model.apply, 0.0)
    start = tiny.growth.start(jax.random.key(0))
    params = jax.jit(model.init)(jax.random.key(0), tiny.growth.observe(start))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten(
        [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    episodes, (before, _) = all_episodes(tiny.growth)

    def log_probs(params):
        def one(state, action):
            return policy(params, state).log_probs[action]

        return jax.vmap(jax.vmap(one))(before, episodes.actions)

    rewards = jax.random.normal(jax.random.key(2), episodes.actions.shape)
    rewards = rewards.at[:, :-1].set(0.0)  # at the end, so that equal pasts have equal rewards
    old = jax.jit(log_probs)(params)
    probability = jnp.exp(jnp.sum(old, axis=1))
    steps = Steps(
        before,
        episodes.actions,
        old,
        rewards_to_go(rewards, 1.0),
        rewards_to_go(rewards, 1.0),
        jnp.broadcast_to(probability[:, None], rewards.shape),
        jnp.zeros(rewards.shape),
    )
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
    return policy, params, log_probs, rewards, flat


def assert_close(ours, true):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_first_gradient_is_that_of_the_expected_return(known):
    policy, params, log_probs, rewards, steps = known

    def expected_return(params):
        return jnp.sum(jnp.exp(jnp.sum(log_probs(params), axis=1)) * jnp.sum(rewards, axis=1))

    _, gradient = jax.jit(lambda params: loss_and_gradient(policy, params, steps, PLAIN))(params)
    assert_close(jax.tree.map(jnp.negative, gradient), jax.jit(jax.grad(expected_return))(params))


def test_ratios_beyond_the_clip_teach_nothing_more(known):
    policy, params, _, _, steps = known
    find = jax.jit(lambda steps: loss_and_gradient(policy, params, steps, PLAIN))

    def gain(shift, sign):
        moved = steps._replace(log_probs=steps.log_probs - shift, advantages=sign * jnp.abs(steps.advantages))
        (_, measures), gradient = find(moved)
        return float(measures.clipped), max(
            float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient)
        )

    total = float(jnp.sum(steps.weights))
    assert gain(0.5, 1.0) == (pytest.approx(total, rel=1e-5), 0.0)  # likelier than before, and good
    assert gain(-0.5, -1.0)[1] == 0.0  # rarer than before, and bad
    assert gain(0.5, -1.0)[1] > 1e-3  # what went the wrong way is taken back in full
    assert gain(0.1, 1.0)[0] == 0.0


def test_value_and_entropy_have_their_gradients(known):
    policy, params, _, _, steps = known
    weights = LossWeights(policy=0.0, value=0.5, entropy=0.1, clip=0.2)

    def loss(params):
        def one(state, target, weight):
            log_probs, prior, value = policy(params, state)
            divergence = jnp.sum(jnp.exp(log_probs) * (log_probs - prior))
            return weight * (0.5 * (target - value) ** 2 + 0.1 * divergence)

        return jnp.sum(jax.vmap(one)(steps.states, steps.returns, steps.weights))

    (value, _), gradient = jax.jit(lambda params: loss_and_gradient(policy, params, steps, weights))(params)
    np.testing.assert_allclose(value, jax.jit(loss)(params), rtol=1e-4)
    assert_close(gradient, jax.jit(jax.grad(loss))(params))


def test_steps_of_elites_teach_their_log_probabilities_alone(known):
    policy, params, log_probs, rewards, steps = known
    nothing = jnp.zeros(steps.weights.shape)
    share = jnp.arange(steps.weights.size) / steps.weights.size
    imitated = steps._replace(weights=nothing, advantages=nothing, imitation=share)
    weights = LossWeights(policy=1.0, value=0.5, entropy=0.1, clip=0.2)

    def loss(params):
        return -jnp.sum(share.reshape(rewards.shape) * log_probs(params))

    (value, measures), gradient = jax.jit(lambda p: loss_and_gradient(policy, p, imitated, weights))(params)
    np.testing.assert_allclose(value, jax.jit(loss)(params), rtol=1e-4)
    assert_close(gradient, jax.jit(jax.grad(loss))(params))
    assert not any(jax.tree.leaves(measures))


SETTINGS = {"num_episodes": 3, "batch_size": 8, "epochs": 1, "width": 8, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def small():
    return make_elenas(num_nodes=5)


def test_rewards_at_every_step_evaluate_what_changed(small):
    strategy = make_ppo(small, rewards="step", use_prior=False, **SETTINGS)
    state = strategy.init(jax.random.key(0))
    proposal, _ = strategy.ask(jax.random.key(1), state)
    num_steps = small.growth.num_steps
    asked = np.asarray(proposal.valid_candidates).reshape(3, num_steps)
    edges = np.asarray(proposal.candidates.edges).reshape(3, num_steps, 5, 5)
    assert asked[:, 0].all() and asked[:, -1].all()
    networks = np.asarray(
        jax.vmap(jax.vmap(lambda e: small.to_graph(type(proposal.candidates)(e)).edges))(edges)
    )
    for episode, step in np.argwhere(~asked):
        np.testing.assert_array_equal(networks[episode, step], networks[episode, step - 1])
        before, now = (type(proposal.candidates)(edges[episode, place]) for place in (step - 1, step))
        assert small.canonical(before) == small.canonical(now)
    assert (~asked).any()
    # What is built step by step: each state differs from the one before in one edge at most.
    assert ((edges[:, 1:] != edges[:, :-1]).sum((2, 3)) <= 1).all()


def test_a_step_that_changed_nothing_earns_what_stood_before(small):
    """All evaluations valid with score 1 where asked: every step of every episode earns 1."""
    seen = []

    def reward_fn(before, after, valid_steps, evaluation):
        seen.append(evaluation.score.shape)
        return jnp.where(valid_steps, evaluation.score, 0.0)

    strategy = make_ppo(small, rewards="step", reward_fn=reward_fn, **SETTINGS)
    proposal, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0)))
    asked = np.asarray(proposal.valid_candidates)
    evaluation = evaluations(np.where(asked, OK, NOT_EVALUATED), np.where(asked, 1.0, 0.0))
    told = strategy.tell(jax.random.key(2), state, proposal, evaluation)
    assert seen == [(3, small.growth.num_steps)]
    assert strategy.diagnostics(told)["mean_return"] == pytest.approx(small.growth.num_steps)


def test_the_best_episodes_become_likelier():
    """Nothing is earned but by one episode; what is told after it teaches nothing."""
    space = make_elenas(num_nodes=5)
    settings = {"num_elites": 2, "imitation_weight": 1.0, "policy_weight": 0.0, "learning_rate": 1e-2}
    strategy = make_ppo(space, **(SETTINGS | {"num_episodes": 8} | settings))
    state = strategy.init(jax.random.key(0))
    proposal, state = strategy.ask(jax.random.key(1), state)
    status = np.full(8, OK)  # as if all were valid
    told = strategy.tell(jax.random.key(2), state, proposal, evaluations(status, [0, 0, 0, 9, 0, 0, 0, 0]))
    assert strategy.diagnostics(told)["elite_return"] > 4
    best = np.asarray(state.pending.actions)[3]
    np.testing.assert_array_equal(told.elites.episodes.actions[0], best)
    assert np.isfinite(told.elites.returns[0]) and float(told.elites.returns[0]) > 4

    def log_prob(params):
        before, _ = replay(space.growth, jax.tree.map(lambda leaf: leaf[3:4], state.pending))
        states = jax.tree.map(lambda leaf: leaf[0], before)
        chosen = jax.vmap(lambda s, a: strategy.policy(params, s).log_probs[a])(states, jnp.asarray(best))
        return float(jnp.sum(chosen))

    first = log_prob(told.params)
    proposal, asked = strategy.ask(jax.random.key(3), told)
    later = strategy.tell(jax.random.key(4), asked, proposal, evaluations(status, np.zeros(8)))
    assert log_prob(later.params) > first > log_prob(state.params)


def test_without_elites_yet_nothing_is_imitated():
    """All fail, so there is none: the weight of imitation changes nothing."""
    space = make_elenas(num_nodes=5)
    found = []
    for weight in (2.0, 50.0):  # programs that differ in a constant alone: others may round differently
        strategy = make_ppo(space, num_elites=2, imitation_weight=weight, **SETTINGS)
        proposal, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0)))
        evaluation = evaluations(np.full(3, DIVERGED), np.zeros(3))
        told = strategy.tell(jax.random.key(2), state, proposal, evaluation)
        assert "elite_return" not in strategy.diagnostics(told)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(told.params))
        found.append(told.params)
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_new_policy_without_prior_is_about_uniform(small):
    strategy = make_ppo(small, use_prior=False, **(SETTINGS | {"num_episodes": 40}))
    proposal, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0)))
    shares = np.bincount(np.asarray(state.pending.actions).ravel(), minlength=5) / state.pending.actions.size
    np.testing.assert_allclose(shares, 0.2, atol=0.04)
    assert len(proposal.valid_candidates) == 40


def test_stages_of_growth_follow_generations():
    space = make_elenas(num_nodes=6, stages=(4, 6))
    strategy = make_ppo(space, generations_per_stage=2, **SETTINGS)
    state = strategy.init(jax.random.key(0))
    for generation, nodes in enumerate((4, 4, 6, 6)):
        state = state._replace(generation=jnp.int32(generation))
        proposal, _ = strategy.ask(jax.random.key(1), state)
        used = np.argwhere(np.asarray(proposal.candidates.edges))[:, 1:]
        assert nodes - 2 <= used.max() < nodes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": "never"}, "rewards is 'never'"),
        ({"rewards": "step", "num_trained": 4}, "num_trained is 4"),
        ({"exploration": 1.0}, "exploration is 1.0"),
        ({"batch_size": 10**6}, "no larger than a buffer"),
        ({"betas": (0.9,)}, "betas"),
    ],
)
def test_wrong_settings_are_named(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        make_ppo(tiny, **settings)
