"""Whole batches of episodes in one compiled scan: a policy builds candidates step by step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import Array, Growth, Observation, PyTree

ModelFn = Callable[..., Any]  # params, Observation -> [K] logits, [] baseline


class Choice(NamedTuple):
    """How a policy sees one state."""

    log_probs: Array  # [K] of the actions, about -inf where an action is not valid
    prior_log_probs: Array  # [K] of what exploring falls back to, the space's own sampler or all alike
    baseline: Array  # [] expected return


PolicyFn = Callable[[PyTree, PyTree], Choice]  # params, one state -> Choice

# Episodes that a CPU plays side by side: what policies compute from their parameters alone is then
# shared, and a kernel has more to do than to start; more of them leave the caches.
CPU_BLOCK = 32


class Rollout(NamedTuple):
    """A batch of episodes; what is needed to go through them again."""

    start: PyTree  # states before the first step, leaves [E, ...]
    actions: Array  # [E, S] int32
    log_probs: Array  # [E, S] float32, of the actions under the policy that drew them
    valid_steps: Array  # [E, S] bool, False after an episode's end


def side_by_side(num_episodes: int, most_on_cpu: int) -> int:
    """Returns how many episodes are worked on at once: all of them but on a CPU."""
    return min(num_episodes, most_on_cpu) if jax.default_backend() == "cpu" else num_episodes


def make_policy(growth: Growth, model: ModelFn, exploration: float, use_prior: bool = True) -> PolicyFn:
    """Makes a model choose among valid actions, with some draws from the space's sampler.

    Args:
      growth: what is built.
      model: logits and baseline from an observation.
      exploration: share of the sampler in the policy's probabilities, 0 to below 1. Whatever the
        model has learned, that share of actions is as likely as in the sampler.
      use_prior: whether the sampler is the space's own; if not, all valid actions are as likely.

    Raises:
      ValueError: for an exploration that is no such share.
    """
    if not 0 <= exploration < 1:
        raise ValueError(f"exploration is {exploration}; allowed is 0 to below 1.")

    def policy(params: PyTree, state: PyTree) -> Choice:
        observation = growth.observe(state)
        valid_actions = growth.valid_actions(state)
        logits, baseline = model(params, observation)
        log_probs = log_probabilities(logits, valid_actions)
        prior = log_probabilities(
            _shown(observation, growth) if use_prior else jnp.zeros_like(logits), valid_actions
        )
        if exploration:
            log_probs = jnp.logaddexp(log_probs + np.log1p(-exploration), prior + np.log(exploration))
        return Choice(log_probs, prior, baseline)

    return policy


def log_probabilities(logits: Array, valid_actions: Array) -> Array:
    """Returns `[K]` log-probabilities of valid actions, about -1e9 elsewhere.

    Not -inf: products with a probability of zero must stay finite, gradients included.
    """
    return jax.nn.log_softmax(jnp.where(valid_actions, logits, -1e9))


def sampler_log_probs(growth: Growth, state: PyTree) -> Array:
    """Returns the `[K]` log-probabilities of the space's own sampler; all valid actions alike if unknown."""
    return log_probabilities(_shown(growth.observe(state), growth), growth.valid_actions(state))


def _shown(observation: Observation, growth: Growth) -> Array:
    shown = observation.graph.globals
    return jnp.zeros(growth.num_actions) if shown is None else shown[0]


def make_init(
    growth: Growth,
    model_init: Callable[[Array, Observation], PyTree],
    new_state: Callable[[PyTree, PyTree], PyTree],
    initial_params: Callable[[PyTree], PyTree] | None,
) -> Callable[[Array], PyTree]:
    """Makes the `init` of a strategy that learns a policy, two programs in all.

    Args:
      growth: what is built.
      model_init: of the policy's network, from a key and an observation.
      new_state: makes a strategy's state of parameters and of any state of the growth, for its shapes.
      initial_params: gives pre-trained parameters, from those of a new policy; None starts from scratch.
    """

    @jax.jit  # one program, not one for each operation of the model
    def new_params(key: Array) -> PyTree:
        key_params, key_start = jax.random.split(key)
        return model_init(key_params, growth.observe(growth.start(key_start)))

    @jax.jit
    def with_state(key: Array, params: PyTree) -> PyTree:
        return new_state(params, growth.start(jax.random.split(key)[1]))

    def init(key: Array) -> PyTree:
        params = new_params(key)
        if initial_params is not None:  # reads files
            params = initial_params(params)
        return with_state(key, params)

    return init


def roll_out(
    growth: Growth,
    policy: PolicyFn,
    params: PyTree,
    key: Array,
    num_episodes: int,
    stage: Array | int | None = None,
    most_on_cpu: int = CPU_BLOCK,
) -> tuple[PyTree, Rollout]:
    """Plays episodes from start to end.

    Args:
      growth: what is built.
      policy: how it is chosen.
      params: of the policy.
      key: of the draws.
      num_episodes: E.
      stage: of the growth; None is its last.
      most_on_cpu: episodes that a CPU plays side by side, see `side_by_side`.

    Returns:
      States after the last step, leaves `[E, ...]`, and what was done.
    """

    def step(state: PyTree, key_action: Array):
        log_probs = policy(params, state).log_probs
        action = jax.random.categorical(key_action, log_probs).astype(jnp.int32)
        return growth.extend(state, action), (action, log_probs[action], ~growth.is_done(state))

    def episode(key_episode: Array):
        key_start, key_actions = jax.random.split(key_episode)
        start = growth.start(key_start, growth.num_stages - 1 if stage is None else stage)
        final, taken = jax.lax.scan(step, start, jax.random.split(key_actions, growth.num_steps))
        return final, Rollout(start, *taken)

    # Blocks of one size need one program.
    most = side_by_side(num_episodes, most_on_cpu)
    block = next(size for size in range(most, 0, -1) if num_episodes % size == 0)
    return jax.lax.map(episode, jax.random.split(key, num_episodes), batch_size=block)


def replay(growth: Growth, rollout: Rollout) -> tuple[PyTree, PyTree]:
    """Returns the states before and after each step, leaves `[E, S, ...]`."""

    def step(state: PyTree, action: Array):
        after = growth.extend(state, action)
        return after, (state, after)

    def episode(start: PyTree, actions: Array):
        return jax.lax.scan(step, start, actions)[1]

    return jax.vmap(episode)(rollout.start, rollout.actions)


def no_episodes(start: PyTree, num_episodes: int, num_steps: int) -> Rollout:
    """Returns episodes of which no step is valid, as room for others.

    Args:
      start: any state, for its shapes.
    """
    shape = (num_episodes, num_steps)
    return Rollout(
        start=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_episodes, *leaf.shape)), start),
        actions=jnp.zeros(shape, jnp.int32),
        log_probs=jnp.zeros(shape),
        valid_steps=jnp.zeros(shape, bool),
    )


def rewards_to_go(rewards: Array, discount: float) -> Array:
    """Returns `[E, S]` discounted sums of each step's reward and those after it."""

    def step(later: Array, reward: Array):
        total = reward + discount * later
        return total, total

    _, returns = jax.lax.scan(step, jnp.zeros(rewards.shape[0]), rewards.T, reverse=True)
    return returns.T


def check_stages(growth: Growth, generations_per_stage: int) -> None:
    """Raises ValueError if the space grows in stages and the strategy does not, or the other way round."""
    if generations_per_stage < 0 or (growth.num_stages > 1) != bool(generations_per_stage):
        raise ValueError(
            f"generations_per_stage is {generations_per_stage} and the space has {growth.num_stages} stages: "
            "with several (space.stages) it must be at least 1, with one it must be 0."
        )


def stage_of(generation: Array, generations_per_stage: int, growth: Growth) -> Array:
    """Returns the `[]` int32 stage of a generation: each lasts as long, the last one to the end.

    Args:
      generation: `[]` int32, from 0 on.
      generations_per_stage: 0 where there is one stage.
    """
    last = growth.num_stages - 1
    if not generations_per_stage:
        return jnp.int32(last)
    return jnp.minimum(generation // generations_per_stage, last).astype(jnp.int32)
