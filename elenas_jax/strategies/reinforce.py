"""REINFORCE with a learned baseline (Williams, 1992) over a graph policy.

Episodes of a generation are rolled out in one compiled scan; their actions wait in the state for
the evaluations. Two additions for searches of a few hundred trainings, both of which a weight of
zero turns off: the entropy bonus is relative to the space's sampler, so that exploring means
drawing as the sampler does and not uniformly; and the best episodes so far are imitated (`elites`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.policies import GraphPolicy
from elenas_jax.strategies.elites import Elites, no_elites, update_elites
from elenas_jax.strategies.rewards import RewardFn, make_reward
from elenas_jax.strategies.rollouts import (
    PolicyFn,
    Rollout,
    check_stages,
    make_init,
    make_policy,
    no_episodes,
    replay,
    rewards_to_go,
    roll_out,
    side_by_side,
    stage_of,
)
from elenas_jax.types import (
    NOT_EVALUATED,
    OK,
    Array,
    Evaluation,
    Growth,
    Proposal,
    PyTree,
    SearchSpace,
    Strategy,
)

DIAGNOSTICS = (
    "mean_return",
    "valid_share",
    "entropy",
    "divergence",
    "baseline_loss",
    "gradient_norm",
    "elite_return",
)


class Moments(NamedTuple):
    """Running mean and mean square of returns, for their normalisation."""

    mean: Array  # [] float32
    square: Array  # [] float32
    weight: Array  # [] float32, 0 before the first update, towards 1


class ReinforceState(NamedTuple):
    """Everything REINFORCE remembers; no keys."""

    params: PyTree
    opt_state: PyTree
    pending: Rollout  # episodes whose candidates are being evaluated
    elites: Elites
    moments: Moments
    diagnostics: Array  # [len(DIAGNOSTICS)] float32, of the last update
    generation: Array  # [] int32, the one that is asked for next


class Batch(NamedTuple):
    """Steps to learn from. B episodes: those of this generation and the elites."""

    states: PyTree  # leaves [B, S, ...], before each action
    actions: Array  # [B, S] int32
    returns: Array  # [B, S] float32, normalised
    policy_weight: Array  # [B, S] float32, what the advantage is multiplied by
    imitation_weight: Array  # [B, S] float32


def make_reinforce(
    space: SearchSpace,
    *,
    batch_size: int = 64,
    num_trained: int = 8,
    learning_rate: float = 1e-2,
    entropy_weight: float = 0.01,
    baseline_weight: float = 0.5,
    exploration: float = 0.05,
    num_minibatches: int = 4,
    num_elites: int = 8,
    imitation_weight: float = 1.0,
    discount: float = 1.0,
    max_gradient_norm: float = 1.0,
    moments_decay: float = 0.8,
    width: int = 32,
    num_rounds: int = 2,
    generations_per_stage: int = 0,
    reward_fn: RewardFn | None = None,
    initial_params: Callable[[PyTree], PyTree] | None = None,
) -> Strategy:
    """Builds REINFORCE.

    Args:
      space: whose growth is learned.
      batch_size: episodes a generation.
      num_trained: valid candidates that are proposed for training in a generation, 0 for all; valid ones
        beyond are left out, invalid ones are always told apart and learned from. So what is learned from
        is invalid more often than what the policy draws; the elites make up for it (PPO, which may have
        none, weights trained candidates instead).
      learning_rate: of Adam.
      entropy_weight: of the entropy relative to the sampler.
      baseline_weight: of the squared error of the baseline.
      exploration: share of the sampler in the policy's probabilities, see `make_policy`.
      num_minibatches: steps of the optimiser a generation, each on its own part of the episodes and
        on all elites.
      num_elites: best episodes that are kept.
      imitation_weight: of their log-probability, relative to the policy gradient.
      discount: of rewards, per step.
      max_gradient_norm: gradients are clipped to it; 0 does not clip.
      moments_decay: of the running moments that normalise returns, per generation.
      width, num_rounds: of the graph network.
      generations_per_stage: of the space's growth, see `stage_of`; 0, and only 0, for a space of one stage.
      reward_fn: see `rewards`; None is `make_reward(space)`.
      initial_params: gives pre-trained parameters, from those of a new policy; None starts from scratch.
    """
    if batch_size % num_minibatches:
        raise ValueError(
            f"batch_size ({batch_size}) must be a multiple of num_minibatches ({num_minibatches})."
        )
    growth = space.growth
    check_stages(growth, generations_per_stage)
    reward_fn = make_reward(space) if reward_fn is None else reward_fn
    model = GraphPolicy(growth.num_actions, width, num_rounds)
    policy = make_policy(growth, model.apply, exploration)
    clip = optax.clip_by_global_norm(max_gradient_norm) if max_gradient_norm else optax.identity()
    optimizer = optax.chain(clip, optax.adam(learning_rate))
    weights = LossWeights(entropy_weight, baseline_weight)

    def new_state(params: PyTree, start: PyTree) -> ReinforceState:
        return ReinforceState(
            params=params,
            opt_state=optimizer.init(params),
            pending=no_episodes(start, batch_size, growth.num_steps),
            elites=no_elites(start, num_elites, growth.num_steps),
            moments=Moments(jnp.float32(0.0), jnp.float32(0.0), jnp.float32(0.0)),
            diagnostics=jnp.full(len(DIAGNOSTICS), jnp.nan, jnp.float32),
            generation=jnp.int32(0),
        )

    @jax.jit
    def ask(key: Array, state: ReinforceState) -> tuple[Proposal, ReinforceState]:
        stage = stage_of(state.generation, generations_per_stage, growth)
        final, rollout = roll_out(
            growth, policy, state.params, key, batch_size, stage, _most_on_cpu(growth.num_steps)
        )
        candidates = jax.vmap(growth.candidate)(final)
        valid = jax.vmap(space.status)(candidates) == OK
        left_out = valid & (jnp.cumsum(valid) > (num_trained or batch_size))
        proposal = Proposal(candidates, jnp.zeros(batch_size, jnp.int32), ~left_out)
        return proposal, state._replace(pending=rollout)

    @jax.jit
    def learn(key: Array, state: ReinforceState, evaluation: Evaluation, told: Array) -> ReinforceState:
        pending = state.pending._replace(valid_steps=state.pending.valid_steps & told[:, None])
        before, after = replay(growth, pending)
        rewards = jax.lax.stop_gradient(reward_fn(before, after, pending.valid_steps, evaluation))
        returns = rewards_to_go(rewards, discount)
        total = jnp.sum(rewards, axis=1)
        moments = _update_moments(state.moments, total, told, moments_decay)
        elites = update_elites(state.elites, pending, total, told & (evaluation.status == OK))
        batch = _make_batch(pending, before, _normalise(moments, returns))
        imitated = _imitation_batch(growth, elites, imitation_weight)

        def update(carry, minibatch: Batch):
            params, opt_state = carry
            # Sums over a minibatch: as many times its share of the batch, and the elites each time.
            minibatch = minibatch._replace(policy_weight=minibatch.policy_weight * num_minibatches)
            minibatch = jax.tree.map(lambda ours, elite: jnp.concatenate([ours, elite]), minibatch, imitated)
            (_, measures), gradient = loss_and_gradient(policy, params, minibatch, weights)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), (measures, optax.global_norm(gradient))

        # Shuffled: those that were trained are the first valid ones of a generation.
        order = jax.random.permutation(key, batch_size)
        minibatches = jax.tree.map(
            lambda leaf: leaf[order].reshape(num_minibatches, -1, *leaf.shape[1:]), batch
        )
        (params, opt_state), measured = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
        measures, gradient_norm = jax.tree.map(jnp.mean, measured)
        best = jnp.where(jnp.isfinite(elites.returns), elites.returns, jnp.nan)
        diagnostics = jnp.stack(
            [
                jnp.sum(total * told) / jnp.maximum(jnp.sum(told), 1),
                jnp.sum(told & (evaluation.status == OK)) / jnp.maximum(jnp.sum(told), 1),
                measures.entropy,
                measures.divergence,
                measures.baseline_loss,
                gradient_norm,
                jnp.nanmean(best),
            ]
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            elites=elites,
            moments=moments,
            diagnostics=diagnostics,
            generation=state.generation + 1,
        )

    def tell(key: Array, state: ReinforceState, proposal: Proposal, evaluation: Evaluation) -> ReinforceState:
        told = np.asarray(proposal.valid_candidates) & (np.asarray(evaluation.status) != NOT_EVALUATED)
        # Seconds differ from run to run and must not get into a result.
        evaluation = jax.tree.map(np.asarray, evaluation)._replace(seconds=np.zeros(batch_size, np.float32))
        return learn(key, state, evaluation, told)

    def diagnostics(state: ReinforceState) -> dict[str, float]:
        values = dict(zip(DIAGNOSTICS, np.asarray(state.diagnostics).tolist(), strict=True))
        return {name: value for name, value in values.items() if np.isfinite(value)}

    init = make_init(growth, model.init, new_state, initial_params)
    return Strategy(init=init, ask=ask, tell=tell, diagnostics=diagnostics, policy=policy)


class LossWeights(NamedTuple):
    """Weights of the loss beside the policy gradient, whose weights are in the batch."""

    entropy: float
    baseline: float


class Measures(NamedTuple):
    """Of an update, sums over the steps of an episode; all [] float32."""

    entropy: Array
    divergence: Array  # from the sampler, nats
    baseline_loss: Array


def loss_and_gradient(
    policy: PolicyFn, params: PyTree, batch: Batch, weights: LossWeights
) -> tuple[tuple[Array, Measures], PyTree]:
    """Returns loss, measures and gradient, summed over steps and episodes by their weights.

    Episodes are side by side, on a CPU some at a time, and gradients are added up step by step, so that
    memory does not grow with the length of episodes.
    """

    def one_step(params: PyTree, step: Batch) -> tuple[Array, Measures]:
        log_probs, prior, baseline = policy(params, step.states)
        probs = jnp.exp(log_probs)
        entropy = -jnp.sum(probs * log_probs)
        divergence = jnp.sum(probs * (log_probs - prior))
        error = jnp.square(step.returns - baseline)
        advantage = jax.lax.stop_gradient(step.returns - baseline)
        loss = -(step.policy_weight * advantage + step.imitation_weight) * log_probs[step.actions]
        loss += step.policy_weight * (weights.entropy * divergence + weights.baseline * error)
        return loss, Measures(*(step.policy_weight * each for each in (entropy, divergence, error)))

    def all_episodes(params: PyTree, step: Batch) -> tuple[Array, Measures]:
        return jax.tree.map(jnp.sum, jax.vmap(one_step, in_axes=(None, 0))(params, step))

    def accumulate(carry, step: Batch):
        found = jax.value_and_grad(all_episodes, has_aux=True)(params, step)
        return jax.tree.map(jnp.add, carry, found), None

    zero = jnp.float32(0.0)
    start = ((zero, Measures(zero, zero, zero)), jax.tree.map(jnp.zeros_like, params))
    num_episodes, num_steps = batch.actions.shape
    most = side_by_side(num_episodes, _most_on_cpu(num_steps))
    return jax.lax.scan(accumulate, start, _in_turn(batch, most))[0]


def _most_on_cpu(num_steps: int) -> int:
    """Returns how many episodes a CPU works on at once: 36 of 16 nodes, 8 of 32.

    A graph has about as many edges as its episode has steps; messages along more of them leave the caches.
    """
    return max(1, 4096 // num_steps)


def _in_turn(batch: Batch, most: int) -> Batch:
    """Returns leaves `[blocks * S, size, ...]`: blocks of at most so many episodes, step by step.

    The last block is filled up with episodes that weigh nothing.
    """
    num_episodes = len(batch.actions)
    num_blocks = -(-num_episodes // most)
    size = -(-num_episodes // num_blocks)
    places = np.arange(num_blocks * size)
    if len(places) > num_episodes:
        batch = jax.tree.map(lambda leaf: leaf[np.minimum(places, num_episodes - 1)], batch)
        counts = (places < num_episodes)[:, None]
        batch = batch._replace(
            policy_weight=batch.policy_weight * counts, imitation_weight=batch.imitation_weight * counts
        )

    def in_turn(leaf: Array) -> Array:
        blocks = leaf.reshape(num_blocks, size, *leaf.shape[1:])
        return jnp.swapaxes(blocks, 1, 2).reshape(-1, size, *leaf.shape[2:])

    return jax.tree.map(in_turn, batch)


def _make_batch(pending: Rollout, before: PyTree, returns: Array) -> Batch:
    """Makes a batch of this generation's episodes."""
    num_told = jnp.maximum(jnp.sum(jnp.any(pending.valid_steps, axis=1)), 1)
    # Divided by episodes, not by steps: padding must not shrink the gradient.
    weight = pending.valid_steps / num_told
    return Batch(before, pending.actions, returns, weight, jnp.zeros_like(weight))


def _imitation_batch(growth: Growth, elites: Elites, imitation_weight: float) -> Batch:
    """Makes a batch of the elites."""
    is_elite = jnp.isfinite(elites.returns)
    share = imitation_weight * is_elite / jnp.maximum(jnp.sum(is_elite), 1)
    before, _ = replay(growth, elites.episodes)
    nothing = jnp.zeros(elites.episodes.actions.shape)
    return Batch(
        before, elites.episodes.actions, nothing, nothing, elites.episodes.valid_steps * share[:, None]
    )


def _update_moments(moments: Moments, total: Array, told: Array, decay: float) -> Moments:
    count = jnp.sum(told)
    keep = jnp.where(count > 0, decay, 1.0)
    mean = jnp.sum(total * told) / jnp.maximum(count, 1)
    square = jnp.sum(jnp.square(total) * told) / jnp.maximum(count, 1)
    new = Moments(mean, square, jnp.float32(1.0))
    return jax.tree.map(lambda old, now: keep * old + (1.0 - keep) * now, moments, new)


def _normalise(moments: Moments, returns: Array) -> Array:
    """Returns to mean 0 and deviation 1 of the recent past; early averages are not biased to zero."""
    weight = jnp.maximum(moments.weight, 1e-6)
    mean, square = moments.mean / weight, moments.square / weight
    return (returns - mean) / jnp.sqrt(jnp.maximum(square - jnp.square(mean), 1e-6))
