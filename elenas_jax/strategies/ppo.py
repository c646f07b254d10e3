"""Proximal policy optimisation (Schulman et al., 2017), the paper's strategy, over a graph policy.

Hyper-parameters are those of Aichberger and Klambauer (2023), as far as the paper gives them. Episodes
of a generation are the buffer; its steps are gone through several times in minibatches. Left open
there and fixed here:

- the advantage of a step is its discounted return less the value, over the whole episode, normalised
  over the buffer; the value learns the return as it is;
- the entropy bonus is relative to the space's sampler where the policy starts from it (`use_prior`),
  so that exploring means drawing as the sampler does; without it, this is the usual bonus;
- an episode that builds nothing new in a step earns the score of the candidate as it stood before.

Not in the paper, and off unless `num_elites` says otherwise: the best episodes so far are imitated
(`elites`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.policies import PaperPolicy
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

REWARDS = ("end", "step")  # when candidates are evaluated: at the end of an episode, or after every step
_ELITES = 1  # folded into the key of an epoch: which of their steps a minibatch imitates
DIAGNOSTICS = (
    "mean_return",
    "valid_share",
    "entropy",
    "divergence",
    "value_loss",
    "clipped_share",
    "explained_variance",
    "gradient_norm",
    "elite_return",
)


class PPOState(NamedTuple):
    """Everything PPO remembers; no keys."""

    params: PyTree
    opt_state: PyTree
    pending: Rollout  # episodes whose candidates are being evaluated
    elites: Elites
    generation: Array  # [] int32, the one that is asked for next
    diagnostics: Array  # [len(DIAGNOSTICS)] float32, of the last update


class Steps(NamedTuple):
    """Steps of episodes to learn from, in any order; leaves `[N, ...]`."""

    states: PyTree  # before each action
    actions: Array  # [N] int32
    log_probs: Array  # [N] float32, of the actions when they were drawn
    advantages: Array  # [N] float32
    returns: Array  # [N] float32, discounted
    weights: Array  # [N] float32, 0 for steps after an episode's end, and of elites
    imitation: Array  # [N] float32, of the log-probability; 0 but for elites


class LossWeights(NamedTuple):
    """Weights of the terms of the loss, and where ratios are clipped."""

    policy: float
    value: float
    entropy: float
    clip: float


class Measures(NamedTuple):
    """Of an update, sums over steps by their weights; all [] float32."""

    entropy: Array
    divergence: Array  # from the sampler, nats
    value_loss: Array
    clipped: Array


def make_ppo(
    space: SearchSpace,
    *,
    num_episodes: int = 20,
    rewards: str = "end",
    num_trained: int = 0,
    clip: float = 0.2,
    epochs: int = 4,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 1e-4,
    discount: float = 0.99,
    value_weight: float = 0.5,
    policy_weight: float = 1.0,
    entropy_weight: float = 0.01,
    max_gradient_norm: float = 0.0,
    exploration: float = 0.0,
    num_elites: int = 0,
    imitation_weight: float = 1.0,
    use_prior: bool = True,
    width: int = 256,
    num_layers: int = 2,
    num_heads: int = 4,
    generations_per_stage: int = 0,
    reward_fn: RewardFn | None = None,
    initial_params: Callable[[PyTree], PyTree] | None = None,
) -> Strategy:
    """Builds PPO.

    Args:
      space: whose growth is learned.
      num_episodes: of a buffer; 20 of 480 steps are the paper's 9,600 steps.
      rewards: "end" evaluates finished candidates, "step" a candidate after every step that changed its
        network, as the paper does: then B is E * S, episode-major.
      num_trained: with rewards at the end, how many valid candidates of a generation are proposed for
        training, 0 for all; valid ones beyond are left out, invalid ones are told apart and learned from.
      clip: of the ratio of new and old probability, about 1.
      epochs: times that a buffer is gone through.
      batch_size: steps of a minibatch.
      learning_rate, betas, weight_decay: of Adam; the decay is added to the gradient.
      discount: of rewards, per step.
      value_weight, policy_weight, entropy_weight: of the terms of the loss.
      max_gradient_norm: gradients are clipped to it; 0 does not clip.
      exploration: share of the sampler in the policy's probabilities, see `make_policy`.
      num_elites: episodes of the highest discounted returns that are kept, 0 for none. Each minibatch draws
        as many of their steps as it has of its own, padding and empty places among them, or takes all if
        there are no more.
      imitation_weight: of the mean log-probability of these steps in the loss. It is not clipped, so what the
        imitation moves beyond `clip` the policy gradient leaves alone.
      use_prior: whether a new policy draws as the space's sampler does; if not, about uniformly.
      width, num_layers, num_heads: of the graph network.
      generations_per_stage: of the space's growth, see `stage_of`; 0, and only 0, for a space of one stage.
      reward_fn: see `rewards`; None is `make_reward(space)`.
      initial_params: gives pre-trained parameters, from those of a new policy; None starts from scratch.

    Raises:
      ValueError: for settings that do not go together.
    """
    growth = space.growth
    check_stages(growth, generations_per_stage)
    num_steps = growth.num_steps
    if rewards not in REWARDS:
        raise ValueError(f"rewards is {rewards!r}; allowed are {', '.join(map(repr, REWARDS))}.")
    if rewards == "step" and num_trained:
        raise ValueError(f"num_trained is {num_trained}; with rewards 'step' all candidates are trained: 0.")
    if min(width, num_heads) < 1 or width % num_heads:
        raise ValueError(f"width ({width}) must be a multiple of num_heads ({num_heads}).")
    if len(betas) != 2:
        raise ValueError(f"betas is {tuple(betas)}; Adam has two.")
    if min(num_episodes, epochs, batch_size) < 1 or batch_size > num_episodes * num_steps:
        raise ValueError(
            f"num_episodes ({num_episodes}), epochs ({epochs}) and batch_size ({batch_size}) must be at "
            f"least 1, and a batch no larger than a buffer of {num_episodes * num_steps} steps."
        )
    reward_fn = make_reward(space) if reward_fn is None else reward_fn
    model = PaperPolicy(growth.num_actions, width, num_layers, num_heads, use_prior)
    policy = make_policy(growth, model.apply, exploration, use_prior)
    steps_of_optimiser = [
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(*betas),
        optax.scale_by_learning_rate(learning_rate),
    ]
    if max_gradient_norm:
        steps_of_optimiser.insert(0, optax.clip_by_global_norm(max_gradient_norm))
    optimizer = optax.chain(*steps_of_optimiser)
    weights = LossWeights(policy_weight, value_weight, entropy_weight, clip)
    num_minibatches = num_episodes * num_steps // batch_size
    num_imitated = min(batch_size, num_elites * num_steps)

    def new_state(params: PyTree, start: PyTree) -> PPOState:
        return PPOState(
            params=params,
            opt_state=optimizer.init(params),
            pending=no_episodes(start, num_episodes, num_steps),
            elites=no_elites(start, num_elites, num_steps),
            generation=jnp.int32(0),
            diagnostics=jnp.full(len(DIAGNOSTICS), jnp.nan, jnp.float32),
        )

    @jax.jit
    def ask(key: Array, state: PPOState) -> tuple[Proposal, PPOState]:
        stage = stage_of(state.generation, generations_per_stage, growth)
        final, rollout = roll_out(growth, policy, state.params, key, num_episodes, stage)
        if rewards == "step":
            _, after = replay(growth, rollout)
            candidates = jax.vmap(jax.vmap(growth.candidate))(after)
            asked = _changed(space, candidates, rollout.valid_steps).reshape(-1)
            candidates = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), candidates)
        else:
            candidates = jax.vmap(growth.candidate)(final)
            valid = jax.vmap(space.status)(candidates) == OK
            asked = ~(valid & (jnp.cumsum(valid) > num_trained)) if num_trained else jnp.ones_like(valid)
        proposal = Proposal(candidates, jnp.zeros(len(asked), jnp.int32), asked)
        return proposal, state._replace(pending=rollout)

    @jax.jit
    def learn(key: Array, state: PPOState, evaluation: Evaluation, asked: Array) -> PPOState:
        pending = state.pending
        if rewards == "step":
            evaluation = _carry_forward(evaluation, asked, num_episodes)
            told, share = jnp.ones(num_episodes, bool), jnp.ones(num_episodes)
            at_end = jax.tree.map(lambda leaf: leaf[:, -1], evaluation)
        else:
            told, at_end = asked, evaluation
            # Valid candidates that were left out are stood for by those that were trained: else what is
            # learned from would be invalid more often than what the policy draws.
            is_invalid = (evaluation.status > OK) & (evaluation.status < len(space.reasons))
            trained = told & ~is_invalid
            share = jnp.where(is_invalid, 1.0, 1.0 + jnp.sum(~told) / jnp.maximum(jnp.sum(trained), 1))
            pending = pending._replace(valid_steps=pending.valid_steps & told[:, None])
        before, after = replay(growth, pending)
        earned = jax.lax.stop_gradient(reward_fn(before, after, pending.valid_steps, evaluation))
        returns = rewards_to_go(earned, discount)
        steps, explained = _make_steps(policy, state.params, pending, before, returns, share)
        elites = update_elites(state.elites, pending, returns[:, 0], told & (at_end.status == OK))
        imitated = _steps_of_elites(growth, elites)

        def one_epoch(carry, key_epoch: Array):
            # What a buffer has beyond whole minibatches waits for the next shuffle.
            order = jax.random.permutation(key_epoch, num_episodes * num_steps)
            order = order[: num_minibatches * batch_size].reshape(num_minibatches, batch_size)
            keys_elites = jax.random.split(jax.random.fold_in(key_epoch, _ELITES), num_minibatches)
            return jax.lax.scan(one_update, carry, (order, keys_elites))

        def one_update(carry, given: tuple[Array, Array]):
            (params, opt_state), (places, key_elites) = carry, given
            minibatch = jax.tree.map(lambda leaf: leaf[places], steps)
            # A mean over the real steps of the minibatch.
            total = jnp.maximum(jnp.sum(minibatch.weights), 1.0)
            minibatch = minibatch._replace(weights=minibatch.weights / total)
            if num_imitated:
                drawn = jax.random.permutation(key_elites, num_elites * num_steps)[:num_imitated]
                elite = jax.tree.map(lambda leaf: leaf[drawn], imitated)
                share = imitation_weight / jnp.maximum(jnp.sum(elite.imitation), 1.0)
                elite = elite._replace(imitation=share * elite.imitation)
                minibatch = jax.tree.map(lambda own, other: jnp.concatenate([own, other]), minibatch, elite)
            (_, measures), gradient = loss_and_gradient(policy, params, minibatch, weights)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), (measures, optax.global_norm(gradient))

        keys = jax.random.split(key, epochs)
        (params, opt_state), measured = jax.lax.scan(one_epoch, (state.params, state.opt_state), keys)
        measures, gradient_norm = jax.tree.map(jnp.mean, measured)
        stands_for = told * share  # of all episodes, as the policy draws them
        num_told = jnp.maximum(jnp.sum(stands_for), 1)
        diagnostics = jnp.stack(
            [
                jnp.sum(jnp.sum(earned, axis=1) * stands_for) / num_told,
                jnp.sum(stands_for * (at_end.status == OK)) / num_told,
                measures.entropy,
                measures.divergence,
                measures.value_loss,
                measures.clipped,
                explained,
                gradient_norm,
                jnp.nanmean(jnp.where(jnp.isfinite(elites.returns), elites.returns, jnp.nan)),
            ]
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            elites=elites,
            generation=state.generation + 1,
            diagnostics=diagnostics.astype(jnp.float32),
        )

    def tell(key: Array, state: PPOState, proposal: Proposal, evaluation: Evaluation) -> PPOState:
        asked = np.asarray(proposal.valid_candidates) & (np.asarray(evaluation.status) != NOT_EVALUATED)
        # Seconds differ from run to run and must not get into a result.
        evaluation = jax.tree.map(np.asarray, evaluation)
        evaluation = evaluation._replace(seconds=np.zeros(len(asked), np.float32))
        return learn(key, state, evaluation, asked)

    def diagnostics(state: PPOState) -> dict[str, float]:
        values = dict(zip(DIAGNOSTICS, np.asarray(state.diagnostics).tolist(), strict=True))
        return {name: value for name, value in values.items() if np.isfinite(value)}

    init = make_init(growth, model.init, new_state, initial_params)
    return Strategy(init=init, ask=ask, tell=tell, diagnostics=diagnostics, policy=policy)


def loss_and_gradient(
    policy: PolicyFn, params: PyTree, steps: Steps, weights: LossWeights
) -> tuple[tuple[Array, Measures], PyTree]:
    """Returns loss, measures and gradient, summed over steps by their weights.

    The loss is -policy * min(ratio * advantage, clip(ratio) * advantage) + value * (return - value)^2 +
    entropy * divergence from the sampler (Schulman et al., 2017, equation 9); elites' steps have their
    log-probability alone, by its own weight.
    """

    def one_step(params: PyTree, step: Steps) -> tuple[Array, Measures]:
        log_probs, prior, value = policy(params, step.states)
        ratio = jnp.exp(log_probs[step.actions] - step.log_probs)
        clipped = jnp.clip(ratio, 1.0 - weights.clip, 1.0 + weights.clip)
        gain = jnp.minimum(ratio * step.advantages, clipped * step.advantages)
        probs = jnp.exp(log_probs)
        divergence = jnp.sum(probs * (log_probs - prior))
        error = jnp.square(step.returns - value)
        loss = -weights.policy * gain + weights.value * error + weights.entropy * divergence
        imitation = step.imitation * log_probs[step.actions]
        measures = (-jnp.sum(probs * log_probs), divergence, error, (ratio != clipped) * 1.0)
        return step.weights * loss - imitation, Measures(*(step.weights * each for each in measures))

    def all_steps(params: PyTree, steps: Steps) -> tuple[Array, Measures]:
        return jax.tree.map(jnp.sum, jax.vmap(one_step, in_axes=(None, 0))(params, steps))

    return jax.value_and_grad(all_steps, has_aux=True)(params, steps)


def _changed(space: SearchSpace, candidates: PyTree, valid_steps: Array) -> Array:
    """Returns `[E, S]` booleans: steps that changed the network, and the last step of each episode."""
    networks = jax.lax.map(jax.vmap(space.to_graph), candidates)
    differs = [
        jnp.any((leaf[:, 1:] != leaf[:, :-1]).reshape(*leaf[:, 1:].shape[:2], -1), axis=-1)
        for leaf in jax.tree.leaves(networks)
    ]
    is_first = jnp.ones((valid_steps.shape[0], 1), bool)
    changed = jnp.concatenate([is_first, jnp.any(jnp.stack(differs), axis=0)], axis=1)
    is_last = valid_steps & ~jnp.concatenate([valid_steps[:, 1:], ~is_first], axis=1)
    return valid_steps & (changed | is_last)


def _carry_forward(evaluation: Evaluation, asked: Array, num_episodes: int) -> Evaluation:
    """Gives steps that changed nothing the evaluation before them: leaves `[E, S, ...]`."""
    asked = asked.reshape(num_episodes, -1)
    place = jnp.where(asked, jnp.arange(asked.shape[1]), 0)
    place = jax.lax.cummax(place, axis=1)

    def spread(leaf: Array) -> Array:
        by_episode = jnp.asarray(leaf).reshape(*asked.shape, *leaf.shape[1:])
        return jax.vmap(lambda row, at: row[at])(by_episode, place)

    return jax.tree.map(spread, evaluation)


def _make_steps(
    policy: PolicyFn, params: PyTree, pending: Rollout, before: PyTree, returns: Array, share: Array
) -> tuple[Steps, Array]:
    """Flattens a buffer to `[E * S]` steps, with advantages of mean 0 and deviation 1.

    Args:
      policy, params: what drew the episodes.
      pending, before: the episodes.
      returns: `[E, S]`.
      share: `[E]` how many episodes each stands for.

    Returns:
      The steps, and the share of the variance of returns that the values explain.
    """
    values = jax.lax.map(jax.vmap(lambda state: policy(params, state).baseline), before)
    is_real = pending.valid_steps
    weights = is_real * share[:, None] * 1.0
    total = jnp.maximum(jnp.sum(weights), 1.0)

    def standardise(array: Array) -> tuple[Array, Array]:
        mean = jnp.sum(weights * array) / total
        centred = jnp.where(is_real, array - mean, 0.0)
        variance = jnp.sum(weights * jnp.square(centred)) / total
        return centred / jnp.sqrt(variance + 1e-8), variance

    advantages, left = standardise(returns - values)
    explained = 1.0 - left / jnp.maximum(standardise(returns)[1], 1e-8)
    steps = Steps(
        before, pending.actions, pending.log_probs, advantages, returns, weights, jnp.zeros_like(weights)
    )
    return _flatten(steps), explained


def _steps_of_elites(growth: Growth, elites: Elites) -> Steps:
    """Returns the `[Q * S]` steps of elites, of which nothing counts but imitation, 1 for real steps."""
    episodes = elites.episodes
    before, _ = replay(growth, episodes)
    is_real = episodes.valid_steps & jnp.isfinite(elites.returns)[:, None]
    nothing = jnp.zeros(episodes.actions.shape)
    return _flatten(
        Steps(before, episodes.actions, episodes.log_probs, nothing, nothing, nothing, is_real * 1.0)
    )


def _flatten(steps: Steps) -> Steps:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
