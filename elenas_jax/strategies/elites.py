"""The best episodes of a search so far, for policies that imitate them.

Priority queue training (Abolafia et al., *Neural program synthesis with priority queue training*, 2018):
beside the policy gradient, the log-probability of the best episodes so far is raised.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.strategies.rollouts import Rollout, no_episodes
from elenas_jax.types import Array, PyTree


class Elites(NamedTuple):
    """The best episodes so far. Q places."""

    episodes: Rollout
    returns: Array  # [Q] float32, -inf where a place is empty


def no_elites(start: PyTree, num_elites: int, num_steps: int) -> Elites:
    """Returns empty places; `start` is any state, for its shapes."""
    return Elites(no_episodes(start, num_elites, num_steps), jnp.full(num_elites, -jnp.inf, jnp.float32))


def update_elites(elites: Elites, episodes: Rollout, returns: Array, counts: Array) -> Elites:
    """Keeps the best episodes with distinct returns: equal candidates have equal scores.

    With other dead parts their returns may differ, and both stay. To know equal ones by their scores was
    tried: what learned nothing scores alike, one of it stays, and a policy learns less from so few.

    Args:
      elites: those before.
      episodes: new ones, E of them.
      returns: `[E]` of the new ones.
      counts: `[E]` booleans, which of them may become elites.
    """
    num_elites = elites.returns.shape[0]
    if not num_elites:
        return elites
    pool = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), elites.episodes, episodes)
    totals = jnp.concatenate([elites.returns, jnp.where(counts, returns, -jnp.inf)])
    order = jnp.argsort(-totals, stable=True)
    ranked = totals[order]
    repeated = jnp.append(False, ranked[1:] == ranked[:-1])
    ranked = jnp.where(repeated, -jnp.inf, ranked)
    best = jnp.argsort(-ranked, stable=True)[:num_elites]
    return Elites(jax.tree.map(lambda leaf: leaf[order[best]], pool), ranked[best])
