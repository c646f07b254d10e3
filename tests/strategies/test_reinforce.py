"""REINFORCE: its gradient against enumeration, its rewards, its memory of the best."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.policies import GraphPolicy
from elenas_jax.spaces import make_elenas
from elenas_jax.strategies import make_reinforce, make_reward, reinforce
from elenas_jax.strategies.reinforce import (
    Batch,
    LossWeights,
    loss_and_gradient,
)
from elenas_jax.strategies.rollouts import Rollout, make_policy, replay, rewards_to_go, roll_out
from elenas_jax.types import DIVERGED, NOT_EVALUATED, OK, Evaluation

TINY = (("none", "matmul"), ("identity", "tanh"))  # 3 nodes, 3 edges, 2 actions: 8 episodes


@pytest.fixture(scope="module")
def tiny():
    return make_elenas(num_nodes=3, operations=TINY)


@pytest.fixture(scope="module", params=[0.0, 0.2], ids=["model alone", "with exploration"])
def policy(request, tiny):
    model = GraphPolicy(tiny.growth.num_actions, width=4)
    return make_policy(tiny.growth, model.apply, request.param), model


@pytest.fixture(scope="module")
def params(tiny):
    model = GraphPolicy(tiny.growth.num_actions, width=4)
    params = jax.jit(model.init)(jax.random.key(0), tiny.growth.observe(tiny.growth.start(jax.random.key(0))))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def all_episodes(growth):
    actions = jnp.array(list(itertools.product(range(growth.num_actions), repeat=growth.num_steps)))
    num = len(actions)
    start = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), growth.start(jax.random.key(0))
    )
    episodes = Rollout(start, actions, jnp.zeros(actions.shape), jnp.ones(actions.shape, bool))
    return episodes, jax.jit(lambda episodes: replay(growth, episodes))(episodes)


def test_gradient_is_that_of_the_expected_return(tiny, policy, params):
    """The estimate, weighted by the probability of each episode, is the exact gradient."""
    policy_fn, _ = policy
    episodes, (before, _) = all_episodes(tiny.growth)
    num, num_steps = episodes.actions.shape
    rewards = jax.random.normal(jax.random.key(2), (num, num_steps))
    # The same reward for the same past, as rewards are in an episode.
    for step in range(num_steps):
        size = 2 ** (num_steps - 1 - step)
        rewards = rewards.at[:, step].set(jnp.repeat(rewards[::size, step], size))

    def log_probs(params):
        def one(state, action):
            return policy_fn(params, state).log_probs[action]

        return jax.vmap(jax.vmap(one))(before, episodes.actions)

    def expected_return(params):
        return jnp.sum(jnp.exp(jnp.sum(log_probs(params), axis=1)) * jnp.sum(rewards, axis=1))

    probability = jnp.exp(jnp.sum(jax.jit(log_probs)(params), axis=1))
    np.testing.assert_allclose(jnp.sum(probability), 1.0, rtol=1e-5)
    weight = jnp.broadcast_to(probability[:, None], (num, num_steps))
    batch = Batch(before, episodes.actions, rewards_to_go(rewards, 1.0), weight, jnp.zeros_like(weight))
    weights = LossWeights(entropy=0.0, baseline=0.0)
    _, gradient = jax.jit(lambda params: loss_and_gradient(policy_fn, params, batch, weights))(params)
    exact = jax.jit(jax.grad(expected_return))(params)
    for ours, true in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(-ours, true, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("most", [1, 3, 4])
def test_blocks_of_episodes_add_up(tiny, policy, params, most, monkeypatch):
    """Also where the last block is filled up: eight episodes by three."""
    policy_fn, _ = policy
    episodes, (before, _) = all_episodes(tiny.growth)
    given = jax.random.normal(jax.random.key(3), (3, *episodes.actions.shape))
    batch = Batch(before, episodes.actions, *given)
    weights = LossWeights(entropy=0.1, baseline=0.5)

    def learned():
        return jax.jit(lambda params: loss_and_gradient(policy_fn, params, batch, weights))(params)

    whole = learned()
    monkeypatch.setattr(reinforce, "_most_on_cpu", lambda num_steps: most)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(learned()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_blocks_of_episodes_are_played_as_all_at_once(tiny, policy, params):
    policy_fn, _ = policy

    def play(most):
        return jax.jit(
            lambda key: roll_out(tiny.growth, policy_fn, params, key, 12, most_on_cpu=most)[1].actions
        )(jax.random.key(4))

    np.testing.assert_array_equal(play(5), play(12))  # by four


def test_entropy_term_leads_to_the_sampler(tiny, policy, params):
    policy_fn, _ = policy
    episodes, (before, _) = all_episodes(tiny.growth)
    shape = episodes.actions.shape
    batch = Batch(before, episodes.actions, jnp.zeros(shape), jnp.ones(shape), jnp.zeros(shape))

    @jax.jit
    def step(params):
        # No returns, and the baseline follows them; what is left is the entropy.
        (_, measures), gradient = loss_and_gradient(policy_fn, params, batch, LossWeights(1.0, 1.0))
        return jax.tree.map(lambda leaf, slope: leaf - 0.01 * slope, params, gradient), measures.divergence

    divergences = []
    for _ in range(60):
        params, divergence = step(params)
        divergences.append(float(divergence))
    assert divergences[-1] < 0.2 * divergences[0]


def test_policies_roll_out_as_they_say(tiny, policy, params):
    policy_fn, _ = policy
    growth = tiny.growth
    final, episodes = jax.jit(lambda key: roll_out(growth, policy_fn, params, key, 400))(jax.random.key(3))
    assert bool(jnp.all(jax.vmap(growth.is_done)(final))) and bool(jnp.all(episodes.valid_steps))
    before, after = replay(growth, episodes)
    np.testing.assert_array_equal(jax.tree.map(lambda leaf: leaf[:, -1], after).edges, final.edges)

    def log_prob(state, action):
        return policy_fn(params, state).log_probs[action]

    again = jax.jit(jax.vmap(jax.vmap(log_prob)))(before, episodes.actions)
    np.testing.assert_allclose(episodes.log_probs, again, rtol=1e-4, atol=1e-5)
    # Shares of the eight episodes against their probabilities.
    place = jnp.sum(episodes.actions * jnp.array([4, 2, 1]), axis=1)
    shares = jnp.bincount(place, length=8) / 400
    probability = jnp.zeros(8).at[place].set(jnp.exp(jnp.sum(again, axis=1)))
    np.testing.assert_allclose(shares, probability, atol=0.08)


def test_exploration_keeps_every_action_possible(tiny, params):
    policy_fn = make_policy(tiny.growth, lambda *_: (jnp.array([1e3, -1e3]), 0.0), 0.1)
    choice = policy_fn(params, tiny.growth.start(jax.random.key(0)))
    np.testing.assert_allclose(choice.log_probs[1], choice.prior_log_probs[1] + np.log(0.1), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(jnp.exp(choice.log_probs)), 1.0, rtol=1e-5)


def evaluations(status, score, num_tasks=2):
    num = len(status)
    return Evaluation(
        score=np.array(score, np.float32),
        metrics=np.full((num, num_tasks), np.nan, np.float32),
        status=np.array(status, np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )


def test_rewards_come_at_the_end_and_later_reasons_cost_less(tiny):
    episodes, (before, after) = all_episodes(tiny.growth)
    valid_steps = episodes.valid_steps.at[7, 2].set(False)  # an episode that ended early
    status = [OK, 1, 2, 4, 8, DIVERGED, NOT_EVALUATED, OK]
    rewards = make_reward(tiny, invalid=0.1, grading=0.5)(
        before, after, valid_steps, evaluations(status, [0.3, 9, 9, 9, 9, 9, 9, 0.2])
    )
    last = rewards[:, 2]
    np.testing.assert_allclose(last[0], 0.3)
    np.testing.assert_allclose(last[1], -0.1)
    np.testing.assert_allclose(last[4], -0.05)
    assert last[1] < last[2] < last[3] < last[4]
    np.testing.assert_array_equal(last[5:7], 0.0)
    np.testing.assert_allclose(rewards[7], [0.0, 0.2, 0.0])
    np.testing.assert_array_equal(rewards[:7, :2], 0.0)


def test_rewards_hold_the_shaping_of_each_step():
    space = make_elenas(num_nodes=3, operations=TINY, shaping={"input_unused": 0.5, "no_block": 0.25})
    episodes, (before, after) = all_episodes(space.growth)
    rewards = make_reward(space, invalid=0.1)(
        before, after, episodes.valid_steps, evaluations([1] * 8, [0.0] * 8)
    )
    unused = np.asarray(episodes.actions)[:, :1] == 0
    expected = np.where(unused, -0.5, 0.0) + np.array([0.0, 0.0, -0.25 - 0.1])
    np.testing.assert_allclose(rewards, expected, atol=1e-6)


def test_rewards_to_go():
    rewards = jnp.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(rewards_to_go(rewards, 0.5), [[1.5, 1.0, 2.0], [0.25, 0.5, 1.0]])


def test_every_minibatch_may_hold_what_was_trained():
    """Valid episodes that are trained come first in a generation; in updates they do not."""
    space = make_elenas(num_nodes=6)
    strategy = make_reinforce(space, batch_size=16, num_trained=2, num_minibatches=4, num_elites=0, width=8)
    state = strategy.init(jax.random.key(1))
    proposal, asked = strategy.ask(jax.random.key(0), state)
    status = np.asarray(jax.vmap(space.status)(proposal.candidates))
    told = proposal._replace(valid_candidates=np.asarray(proposal.valid_candidates))
    evaluation = evaluations(status, np.where(status == OK, 1.0, 0.0))
    first, again, other = (
        strategy.tell(jax.random.key(seed), asked, told, evaluation).params for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    differs = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), first, other)
    assert any(jax.tree.leaves(differs)), "the key shuffles"


def test_only_so_many_valid_candidates_are_proposed_for_training():
    space = make_elenas(num_nodes=8)
    strategy = make_reinforce(space, batch_size=32, num_trained=2, num_minibatches=1, width=8)
    proposal, _ = strategy.ask(jax.random.key(0), strategy.init(jax.random.key(1)))
    valid = np.asarray(jax.vmap(space.status)(proposal.candidates)) == OK
    asked = np.asarray(proposal.valid_candidates)
    assert valid.sum() > 2
    assert np.flatnonzero(asked & valid).tolist() == np.flatnonzero(valid)[:2].tolist()
    assert np.all(asked[~valid])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10, "num_minibatches": 4}, "num_minibatches"),
        ({"exploration": 1.0}, "exploration"),
    ],
)
def test_wrong_settings_are_named(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        make_reinforce(tiny, **settings)


def test_wrong_rewards_are_named(tiny):
    with pytest.raises(ValueError, match="grading"):
        make_reward(tiny, grading=2.0)
