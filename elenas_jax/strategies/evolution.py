"""Regularised evolution (Real et al., 2019): tournaments, mutations, and the oldest dies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import OK, Array, Evaluation, Proposal, PyTree, SearchSpace, Strategy


class EvolutionState(NamedTuple):
    """The population as a ring: the next to come takes the place of the oldest. P places."""

    population: PyTree  # candidates, leaves [P, ...]
    scores: Array  # [P] float32, -inf where a place is empty
    num_born: Array  # [] int32, members so far; the next takes place num_born % P


def make_evolution(
    space: SearchSpace,
    *,
    population_size: int = 64,
    batch_size: int = 16,
    tournament_size: int = 8,
    num_random: int = 0,
    reward_fn=None,
) -> Strategy:
    """Builds regularised evolution.

    The first `population_size` members are drawn by the space's sampler. From then on each
    child is a mutation of the best of `tournament_size` members drawn with replacement. Invalid
    candidates do not join; those that failed in training join with score 0.

    Args:
      space: how to draw and mutate.
      population_size: members.
      batch_size: candidates a generation. They do not know each other's scores, so 1 is the paper.
      tournament_size: members that compete to be a parent.
      num_random: of a generation's candidates that are drawn by the sampler and not children (not in the
        paper: a population that comes from one ancestor finds nothing else any more).
      reward_fn: not used.
    """
    del reward_fn
    if not 0 <= num_random < batch_size:
        raise ValueError(
            f"num_random is {num_random}; allowed are 0 to below batch_size, which is {batch_size}."
        )

    def init(key: Array) -> EvolutionState:
        shape = jax.eval_shape(space.sample, key)
        population = jax.tree.map(lambda leaf: jnp.zeros((population_size, *leaf.shape), leaf.dtype), shape)
        return EvolutionState(population, jnp.full(population_size, -jnp.inf, jnp.float32), jnp.int32(0))

    def child(key: Array, state: EvolutionState) -> PyTree:
        key_tournament, key_mutate = jax.random.split(key)
        members = jax.random.randint(key_tournament, (tournament_size,), 0, population_size)
        parent = members[jnp.argmax(state.scores[members])]
        return space.mutate(key_mutate, jax.tree.map(lambda leaf: leaf[parent], state.population))

    @jax.jit
    def ask(key: Array, state: EvolutionState) -> tuple[Proposal, EvolutionState]:
        keys = jax.random.split(key, batch_size)
        # Branches for the whole batch: under vmap both would be computed.
        candidates = jax.lax.cond(
            state.num_born < population_size,
            lambda: jax.vmap(space.sample)(keys),
            lambda: (
                jax.tree.map(
                    lambda *parts: jnp.concatenate(parts),
                    jax.vmap(space.sample)(keys[:num_random]),
                    jax.vmap(child, in_axes=(0, None))(keys[num_random:], state),
                )
                if num_random
                else jax.vmap(child, in_axes=(0, None))(keys, state)
            ),
        )
        return Proposal(candidates, jnp.zeros(batch_size, jnp.int32), jnp.ones(batch_size, bool)), state

    @jax.jit
    def join(state: EvolutionState, candidates: PyTree, scores: Array, joins: Array) -> EvolutionState:
        place = (state.num_born + jnp.cumsum(joins) - 1) % population_size
        # Of more newcomers than places only the last ones stay; those that do not join go nowhere.
        newer = jnp.cumsum(joins[::-1])[::-1] - joins
        place = jnp.where(joins & (newer < population_size), place, population_size)
        population = jax.tree.map(
            lambda old, new: old.at[place].set(new, mode="drop"), state.population, candidates
        )
        scores = state.scores.at[place].set(scores, mode="drop")
        return EvolutionState(population, scores, state.num_born + jnp.sum(joins, dtype=jnp.int32))

    def tell(key: Array, state: EvolutionState, proposal: Proposal, evaluation: Evaluation) -> EvolutionState:
        del key
        status, score = jnp.asarray(evaluation.status), jnp.asarray(evaluation.score, jnp.float32)
        joins = proposal.valid_candidates & ((status == OK) | (status > len(space.reasons)))
        return join(state, proposal.candidates, jnp.where(jnp.isfinite(score), score, 0.0), joins)

    def diagnostics(state: EvolutionState) -> dict[str, float]:
        scores = np.asarray(state.scores)
        members = scores[np.isfinite(scores)]
        if not members.size:
            return {}
        return {"population_mean": float(members.mean()), "population_best": float(members.max())}

    return Strategy(init=init, ask=ask, tell=tell, diagnostics=diagnostics)
