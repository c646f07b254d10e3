"""Successive halving (Jamieson and Talwalkar, 2016): many candidates briefly, the better ones for longer.

A bracket draws candidates and evaluates them with the evaluator's first budget; the best 1/eta of them go
on to the next one, and so on to the last. Then a new bracket begins. A generation is a rung of a bracket.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.types import OK, Array, Evaluation, Proposal, PyTree, SearchSpace, Strategy


class SuccessiveHalvingState(NamedTuple):
    """A bracket between two rungs. B places, as many as candidates of the first rung."""

    survivors: PyTree  # candidates, leaves [B, ...], best first; not read on rung 0
    num_survivors: Array  # [] int32
    rung: Array  # [] int32, the next one
    num_brackets: Array  # [] int32, that ended


def make_successive_halving(
    space: SearchSpace,
    *,
    num_candidates: int = 27,
    eta: int = 3,
    num_budgets: int = 1,
    reward_fn=None,
) -> Strategy:
    """Builds successive halving.

    Args:
      space: what to draw from.
      num_candidates: of a bracket's first rung.
      eta: of so many candidates the best one goes on; at least one does.
      num_budgets: of the evaluator, smallest first: the rungs.
      reward_fn: not used.

    Raises:
      ValueError: for numbers out of range.
    """
    del reward_fn
    if num_budgets < 2:
        raise ValueError(
            f"evaluator.budgets has length {num_budgets}; successive halving needs 2 or more, smallest first."
        )
    if num_candidates < 2 or eta < 2:
        raise ValueError(f"num_candidates ({num_candidates}) and eta ({eta}) must be at least 2.")
    sizes = jnp.array([max(1, num_candidates // eta**rung) for rung in range(num_budgets)], jnp.int32)

    def init(key: Array) -> SuccessiveHalvingState:
        shape = jax.eval_shape(space.sample, key)
        nobody = jax.tree.map(lambda leaf: jnp.zeros((num_candidates, *leaf.shape), leaf.dtype), shape)
        return SuccessiveHalvingState(nobody, jnp.int32(0), jnp.int32(0), jnp.int32(0))

    @jax.jit
    def ask(key: Array, state: SuccessiveHalvingState) -> tuple[Proposal, SuccessiveHalvingState]:
        candidates = jax.lax.cond(
            state.rung == 0,
            lambda: jax.vmap(space.sample)(jax.random.split(key, num_candidates)),
            lambda: state.survivors,
        )
        valid = (state.rung == 0) | (jnp.arange(num_candidates) < state.num_survivors)
        return Proposal(candidates, jnp.full(num_candidates, state.rung, jnp.int32), valid), state

    @jax.jit
    def promote(
        state: SuccessiveHalvingState, candidates: PyTree, scores: Array, sound: Array
    ) -> SuccessiveHalvingState:
        # A stable order: of equal scores the first goes on.
        order = jnp.argsort(jnp.where(sound, -scores, jnp.inf), stable=True)
        survivors = jax.tree.map(lambda leaf: leaf[order], candidates)
        rung = state.rung + 1
        num_survivors = jnp.minimum(sizes[jnp.minimum(rung, num_budgets - 1)], jnp.sum(sound))
        ended = (rung == num_budgets) | (num_survivors == 0)
        return SuccessiveHalvingState(
            survivors,
            jnp.where(ended, 0, num_survivors).astype(jnp.int32),
            jnp.where(ended, 0, rung).astype(jnp.int32),
            state.num_brackets + ended.astype(jnp.int32),
        )

    def tell(
        key: Array, state: SuccessiveHalvingState, proposal: Proposal, evaluation: Evaluation
    ) -> SuccessiveHalvingState:
        del key
        scores = jnp.asarray(evaluation.score, jnp.float32)
        sound = proposal.valid_candidates & (jnp.asarray(evaluation.status) == OK) & jnp.isfinite(scores)
        return promote(state, proposal.candidates, scores, sound)

    def diagnostics(state: SuccessiveHalvingState) -> dict[str, float]:
        return {"rung": float(state.rung), "brackets": float(state.num_brackets)}

    return Strategy(init=init, ask=ask, tell=tell, diagnostics=diagnostics)
