"""Regularised evolution (Real et al., 2019): tournaments, mutations, and the oldest dies."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import (
    OK,
    Array,
    Evaluation,
    Proposal,
    PyTree,
    SearchSpace,
    Strategy,
    explain_status,
)


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
    start: Literal["sample", "starts"] = "sample",
    frozen: bool = False,
    reward_fn=None,
) -> Strategy:
    """Builds regularised evolution.

    The first `population_size` members are drawn by the space's sampler, or are copies of its starts. From
    then on each child is a mutation of the best of `tournament_size` members drawn with replacement. Invalid
    candidates do not join; those that failed in training join with score 0.

    Args:
      space: how to draw and mutate.
      population_size: members.
      batch_size: candidates a generation. They do not know each other's scores, so 1 is the paper.
      tournament_size: members that compete to be a parent.
      num_random: of a generation's candidates that are drawn by the sampler and not children (not in the
        paper: a population that comes from one ancestor finds nothing else any more).
      start: "starts" fills the population with equally many copies of each of `space.starts`: each is
        trained once, all count as members.
      frozen: whether the population stays as it is once it is full: random mutation of the first members.
      reward_fn: not used.

    Raises:
      ValueError: for numbers out of range, and if the space has no such starts or one is invalid.
    """
    del reward_fn
    if not 0 <= num_random < batch_size:
        raise ValueError(
            f"num_random is {num_random}; allowed are 0 to below batch_size, which is {batch_size}."
        )

    if start == "starts":
        _check_starts(space, population_size)

    def init(key: Array) -> EvolutionState:
        shape = jax.eval_shape(space.sample, key)
        population = jax.tree.map(lambda leaf: jnp.zeros((population_size, *leaf.shape), leaf.dtype), shape)
        return EvolutionState(population, jnp.full(population_size, -jnp.inf, jnp.float32), jnp.int32(0))

    def child(key: Array, state: EvolutionState) -> PyTree:
        key_tournament, key_mutate = jax.random.split(key)
        members = jax.random.randint(key_tournament, (tournament_size,), 0, population_size)
        parent = members[jnp.argmax(state.scores[members])]
        return space.mutate(key_mutate, jax.tree.map(lambda leaf: leaf[parent], state.population))

    def newcomers(keys: Array, state: EvolutionState) -> tuple[PyTree, Array]:
        """Returns candidates for a population that is not full, and which of them it has room for."""
        if start == "sample":
            return jax.vmap(space.sample)(keys), jnp.ones(batch_size, bool)
        place = state.num_born + jnp.arange(batch_size)
        starts = jax.tree.map(jnp.asarray, space.starts)
        copies = population_size // len(jax.tree.leaves(starts)[0])
        which = jnp.minimum(place, population_size - 1) // copies
        return jax.tree.map(lambda leaf: leaf[which], starts), place < population_size

    @jax.jit
    def ask(key: Array, state: EvolutionState) -> tuple[Proposal, EvolutionState]:
        keys = jax.random.split(key, batch_size)
        # Branches for the whole batch: under vmap both would be computed.
        candidates, valid = jax.lax.cond(
            state.num_born < population_size,
            lambda: newcomers(keys, state),
            lambda: (
                jax.tree.map(
                    lambda *parts: jnp.concatenate(parts),
                    jax.vmap(space.sample)(keys[:num_random]),
                    jax.vmap(child, in_axes=(0, None))(keys[num_random:], state),
                )
                if num_random
                else jax.vmap(child, in_axes=(0, None))(keys, state),
                jnp.ones(batch_size, bool),
            ),
        )
        return Proposal(candidates, jnp.zeros(batch_size, jnp.int32), valid), state

    @jax.jit
    def join(state: EvolutionState, candidates: PyTree, scores: Array, joins: Array) -> EvolutionState:
        number = state.num_born + jnp.cumsum(joins) - 1
        if frozen:
            joins = joins & (number < population_size)
        place = number % population_size
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


def _check_starts(space: SearchSpace, population_size: int) -> None:
    """Raises ValueError unless a population can be filled with the space's starts."""
    if space.starts is None:
        raise ValueError(f"start is 'starts', but the space {space.name} was made without any.")
    statuses = np.asarray(jax.vmap(space.status)(jax.tree.map(jnp.asarray, space.starts)))
    for place, status in enumerate(statuses.tolist()):
        if status != OK:
            raise ValueError(f"start {place} of the space is {explain_status(status, space.reasons)}.")
    if population_size % len(statuses):
        raise ValueError(
            f"population_size is {population_size}; it must be a multiple of {len(statuses)}, the number of "
            "the space's starts."
        )
