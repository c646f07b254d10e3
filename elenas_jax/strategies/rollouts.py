"""Whole batches of episodes in one compiled scan: a policy builds candidates step by step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.types import Array, Growth, Observation, PyTree

PolicyFn = Callable[[PyTree, Observation], tuple[Array, Array]]  # params, one observation -> logits, baseline


# Messages that are worked on at once by a CPU: more do not stay in its caches, and gradients of
# batched gathers and scatters then take ten times as long. Accelerators take all episodes at once.
_CPU_MESSAGES = 1 << 15


class Rollout(NamedTuple):
    """A batch of episodes; what is needed to go through them again."""

    start: PyTree  # states before the first step, leaves [E, ...]
    actions: Array  # [E, S] int32
    log_probs: Array  # [E, S] float32, of the actions under the policy that drew them
    valid_steps: Array  # [E, S] bool, False after an episode's end


def episodes_at_once(growth: Growth, num_episodes: int, width: int) -> int:
    """Returns how many episodes to work on side by side, a divisor of `num_episodes`."""
    if jax.default_backend() != "cpu":
        return num_episodes
    observation = jax.eval_shape(lambda key: growth.observe(growth.start(key)), jax.random.key(0))
    most = max(1, _CPU_MESSAGES // (observation.graph.senders.shape[0] * width))
    return max(size for size in range(1, min(most, num_episodes) + 1) if num_episodes % size == 0)


def masked_logits(growth: Growth, policy: PolicyFn, params: PyTree, state: PyTree) -> tuple[Array, Array]:
    """Returns `[K]` log-probabilities, about -inf where an action is not valid, and the `[]` baseline."""
    logits, baseline = policy(params, growth.observe(state))
    # Not -inf: products with a probability of zero must stay finite, gradients included.
    logits = jnp.where(growth.valid_actions(state), logits, -1e9)
    return jax.nn.log_softmax(logits), baseline


def roll_out(
    growth: Growth, policy: PolicyFn, params: PyTree, key: Array, num_episodes: int, at_once: int
) -> tuple[PyTree, Rollout]:
    """Plays episodes from start to end, `at_once` of them side by side.

    Returns:
      States after the last step, leaves `[E, ...]`, and what was done.
    """

    def step(state: PyTree, key_action: Array):
        log_probs, _ = masked_logits(growth, policy, params, state)
        action = jax.random.categorical(key_action, log_probs).astype(jnp.int32)
        return growth.extend(state, action), (action, log_probs[action], ~growth.is_done(state))

    def episode(key_episode: Array):
        key_start, key_actions = jax.random.split(key_episode)
        start = growth.start(key_start)
        final, taken = jax.lax.scan(step, start, jax.random.split(key_actions, growth.num_steps))
        return final, Rollout(start, *taken)

    return jax.lax.map(episode, jax.random.split(key, num_episodes), batch_size=at_once)


def replay(growth: Growth, rollout: Rollout) -> tuple[PyTree, PyTree]:
    """Returns the states before and after each step, leaves `[E, S, ...]`."""

    def step(state: PyTree, action: Array):
        after = growth.extend(state, action)
        return after, (state, after)

    def episode(start: PyTree, actions: Array):
        return jax.lax.scan(step, start, actions)[1]

    return jax.vmap(episode)(rollout.start, rollout.actions)
