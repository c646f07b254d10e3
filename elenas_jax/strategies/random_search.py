"""Random search: independent draws from the space's own sampler."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.types import Array, Evaluation, Proposal, SearchSpace, Strategy


class RandomSearchState(NamedTuple):
    """Random search remembers nothing but how often it asked."""

    num_asked: Array  # [] int32


def make_random_search(space: SearchSpace, *, batch_size: int = 32, reward_fn=None) -> Strategy:
    """Builds random search.

    Args:
      space: what to draw from.
      batch_size: candidates a generation.
      reward_fn: not used.
    """
    del reward_fn

    @jax.jit
    def ask(key: Array, state: RandomSearchState) -> tuple[Proposal, RandomSearchState]:
        candidates = jax.vmap(space.sample)(jax.random.split(key, batch_size))
        budget = jnp.zeros(batch_size, jnp.int32)
        proposal = Proposal(candidates, budget, jnp.ones(batch_size, bool))
        return proposal, RandomSearchState(state.num_asked + batch_size)

    def tell(
        key: Array, state: RandomSearchState, proposal: Proposal, evaluation: Evaluation
    ) -> RandomSearchState:
        del key, proposal, evaluation
        return state

    return Strategy(
        init=lambda key: RandomSearchState(jnp.int32(0)), ask=ask, tell=tell, diagnostics=lambda state: {}
    )
