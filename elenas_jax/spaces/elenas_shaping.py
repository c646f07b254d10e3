"""Reward shaping of ELENAS graphs: what a step earns or costs beside the score.

Source: Aichberger and Klambauer (2023), section 4, whose weights are the defaults; what *unused* and
*dead* mean is in `elenas_observation`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.graphs import ComputationGraph, liveness
from elenas_jax.graphs.computation import initial_nodes, intermediate_nodes
from elenas_jax.graphs.liveness import ILLEGITIMATE_RECURSION, SHAPES
from elenas_jax.ops import COMBINING
from elenas_jax.spaces.elenas_observation import node_states
from elenas_jax.types import OK, Evaluation


class ShapingWeights(NamedTuple):
    """Weights of the shaping terms, each 0 or more; defaults are the paper's.

    Penalties are subtracted, `first_task_missed` is added. Counts and conditions are those of the
    graph after a step and are charged at every step; `excess` is charged when it grows.
    """

    excess: float = 0.001  # edges of one combining type into one node beyond 2 (recursion: 1)
    first_task_missed: float = 0.01  # trained, but below the threshold of the first task
    input_unused: float = 0.0
    initial_nodes: float = 0.0  # each that is used
    intermediate_nodes: float = 0.0  # each that is used
    dead_nodes: float = 0.0  # each that is dead but not unused
    unused_nodes: float = 0.0
    no_initial: float = 0.0  # no initial node in the network
    no_recursion: float = 0.0
    no_final: float = 0.0
    illegitimate_recursion: float = 0.0
    shapes_do_not_fit: float = 0.0  # as the evaluation says
    no_block: float = 0.0  # at the end of the episode, as the evaluation says


PAPER_WEIGHTS = ShapingWeights()


def shaping_weights(weights: Mapping[str, float]) -> ShapingWeights:
    """Returns the defaults with some replaced.

    Raises:
      ValueError: for an unknown name or a negative weight.
    """
    for name, value in weights.items():
        if name not in ShapingWeights._fields:
            raise ValueError(
                f"Unknown shaping weight {name!r}; allowed are {', '.join(ShapingWeights._fields)}."
            )
        if not value >= 0:
            raise ValueError(f"The shaping weight {name!r} is {value}; it must not be negative.")
    return ShapingWeights(**weights)


def _excess(edges: jax.Array) -> jax.Array:
    """Returns the edges of one combining type into one node beyond two (recursion: one), summed."""
    combining = jnp.where(jnp.eye(edges.shape[0], dtype=bool), 0, edges)
    total = jnp.float32(0.0)
    for row in COMBINING[1:]:
        count = jnp.sum(combining == row.code, axis=0)
        total += jnp.sum(jnp.maximum(0, count - (1 if row.delayed else 2)))
    return total


def shaping_reward(
    weights: ShapingWeights,
    threshold: float,
    before: jax.Array,
    after: jax.Array,
    done: jax.Array,
    evaluation: Evaluation,
) -> jax.Array:
    """Returns what a step earns beside the score, [] float32; terms without weight are not computed.

    Args:
      weights: of the terms.
      threshold: of the first task, for `first_task_missed`.
      before, after: [M, M] int8, edges of the graph.
      done: [] bool, whether the episode ends with this step.
      evaluation: of the candidate; its leaves without an axis of candidates.
    """
    states = node_states(after)
    live = liveness(ComputationGraph(after))
    num_nodes = after.shape[0]
    initial = jnp.asarray(initial_nodes(num_nodes))
    intermediate = jnp.asarray(intermediate_nodes(num_nodes))
    used = ~states.unused
    trained = evaluation.status == OK
    terms = {
        "excess": _excess(after) - _excess(before),
        "first_task_missed": -jnp.float32(trained & (evaluation.metrics[0] < threshold)),
        "input_unused": states.unused[0],
        "initial_nodes": jnp.sum(used & initial),
        "intermediate_nodes": jnp.sum(used & intermediate),
        "dead_nodes": jnp.sum(used & states.dead),
        "unused_nodes": jnp.sum(states.unused),
        "no_initial": ~jnp.any(live.network & initial),
        "no_recursion": ~live.recurrent,
        "no_final": live.final < 0,
        "illegitimate_recursion": live.reason == ILLEGITIMATE_RECURSION,
        "shapes_do_not_fit": evaluation.status == SHAPES,
        "no_block": done & (evaluation.status != OK),
    }
    reward = jnp.float32(0.0)
    for name, term in terms.items():
        weight = getattr(weights, name)
        if weight:
            reward -= weight * jnp.float32(term)
    return reward
