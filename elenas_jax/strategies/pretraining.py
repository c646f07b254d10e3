"""Pre-training of a policy: to predict the next edge of episodes that build known blocks.

Source: Aichberger and Klambauer (2023), the self-supervised task of section 3. An episode is simulated by
drawing a known block or a variant of one (`SearchSpace.known`) and taking the actions that build it. At
a random step the policy is asked for the next action; the loss is its cross-entropy. Left open there
and fixed here: steps at which the space's sampler would be wrong are drawn as often as all others together,
and weighted so that the loss is still that of all steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from elenas_jax.strategies.rollouts import PolicyFn, sampler_log_probs
from elenas_jax.types import Array, PyTree, SearchSpace


class Accuracy(NamedTuple):
    """How well a policy foresees simulated episodes; each [] float32, the sampler's beside the policy's."""

    policy: Array  # share of steps at which the likeliest action is the one taken
    sampler: Array
    rare: Array  # of the policy, at the steps at which the sampler's likeliest action is not the one taken
    episode: Array  # mean log-probability of an episode under the policy, nats
    sampler_episode: Array


class Pretraining(NamedTuple):
    """Pure functions that pre-train a policy."""

    init: Callable  # params -> state of the optimiser
    update: Callable  # key, params, state of the optimiser -> params, state, loss
    measure: Callable  # key, params -> Accuracy, on episodes of its own


def make_optimiser(learning_rate: float) -> optax.GradientTransformation:
    """Returns Adam."""
    return optax.adam(learning_rate)


class _Steps(NamedTuple):
    """Steps of simulated episodes; leaves [N, ...]."""

    states: PyTree
    actions: Array
    weights: Array


def make_pretraining(
    space: SearchSpace,
    policy: PolicyFn,
    *,
    num_episodes: int = 16,
    steps_per_episode: int = 32,
    learning_rate: float = 1e-3,
    measured_episodes: int = 32,
) -> Pretraining:
    """Builds the pre-training of a policy.

    Args:
      space: whose known blocks are built.
      policy: of a strategy.
      num_episodes: simulated for an update.
      steps_per_episode: of them that are learned from, drawn with replacement.
      learning_rate: of Adam.
      measured_episodes: that `measure` simulates, all steps of each.
    """
    growth = space.growth
    optimizer = make_optimiser(learning_rate)

    def simulate(key: Array) -> _Steps:
        """Returns all steps of one episode, weighted 1."""
        key_block, key_start = jax.random.split(key)
        start = growth.start(key_start)
        actions = growth.actions(start, space.known(key_block))
        states = jax.lax.scan(lambda state, action: (growth.extend(state, action), state), start, actions)[1]
        return _Steps(states, actions, jnp.ones(len(actions)))

    def sampler_is_right(steps: _Steps) -> Array:
        def one(state: PyTree, action: Array) -> Array:
            return jnp.argmax(sampler_log_probs(growth, state)) == action

        return jax.vmap(one)(steps.states, steps.actions)

    def draw(key: Array) -> _Steps:
        key_episode, key_steps = jax.random.split(key)
        steps = simulate(key_episode)
        right = sampler_is_right(steps)
        num = len(steps.actions)
        shares = jnp.stack([jnp.sum(~right), jnp.sum(right)])
        # Half of the draws from each kind, where there are both.
        each = jnp.where(jnp.all(shares > 0), 0.5 / jnp.maximum(shares, 1), 1.0 / num)
        chances = jnp.where(right, each[1], each[0])
        places = jax.random.categorical(key_steps, jnp.log(chances), shape=(steps_per_episode,))
        chosen = jax.tree.map(lambda leaf: leaf[places], steps)
        return chosen._replace(weights=1.0 / (num * chances[places] * steps_per_episode * num_episodes))

    def loss_of(params: PyTree, step: _Steps) -> Array:
        return -step.weights * policy(params, step.states).log_probs[step.actions]

    @jax.jit
    def update(key: Array, params: PyTree, opt_state: PyTree) -> tuple[PyTree, PyTree, Array]:
        steps = jax.lax.map(draw, jax.random.split(key, num_episodes))
        steps = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)

        def total(params: PyTree) -> Array:
            return jnp.sum(jax.vmap(loss_of, in_axes=(None, 0))(params, steps))

        loss, gradient = jax.value_and_grad(total)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    @jax.jit
    def measure(key: Array, params: PyTree) -> Accuracy:
        def one(step: _Steps):
            log_probs = policy(params, step.states).log_probs
            by_sampler = sampler_log_probs(growth, step.states)
            is_right = [jnp.argmax(each) == step.actions for each in (log_probs, by_sampler)]
            taken = [each[step.actions] for each in (log_probs, by_sampler)]
            return (*is_right, *taken)

        def episode(key: Array):
            return jax.lax.map(one, simulate(key))

        right, usual, log_prob, usual_log_prob = jax.lax.map(
            episode, jax.random.split(key, measured_episodes)
        )
        return Accuracy(
            jnp.mean(right),
            jnp.mean(usual),
            jnp.sum(right & ~usual) / jnp.maximum(jnp.sum(~usual), 1),
            jnp.mean(jnp.sum(log_prob, axis=1)),
            jnp.mean(jnp.sum(usual_log_prob, axis=1)),
        )

    return Pretraining(optimizer.init, update, measure)
