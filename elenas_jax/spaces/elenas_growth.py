"""Growing an ELENAS graph edge by edge.

Source: Aichberger and Klambauer (2023), sections 3 and 4. An episode predicts each edge once, in
the order of `edge_order` or in a random one. What a policy sees is in `elenas_observation`, what a step
earns beside the score in `elenas_shaping`.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph
from elenas_jax.spaces.elenas_masks import make_masks
from elenas_jax.spaces.elenas_observation import make_observer
from elenas_jax.spaces.elenas_sampling import Choices, actions_from_graph
from elenas_jax.spaces.elenas_shaping import PAPER_WEIGHTS, ShapingWeights, shaping_reward
from elenas_jax.types import Evaluation, Growth, Observation

ORDERS = ("subgraphs", "random")
LEAST_PRIOR = 1e-4  # probability at least shown for an action that the sampler never draws


class GrowthState(NamedTuple):
    """A graph on its way. S edges."""

    edges: jax.Array  # [M, M] int8
    rank: jax.Array  # [S] int32, the step at which each edge is predicted
    step: jax.Array  # [] int32, edges predicted so far
    end: jax.Array  # [] int32, edges that are predicted at all: those among the nodes of a stage


def make_growth(
    choices: Choices,
    *,
    order: str = "subgraphs",
    stages: Sequence[int] = (),
    masks: bool = False,
    weights: ShapingWeights = PAPER_WEIGHTS,
    threshold: float = 0.8,
    positions: bool = True,
) -> Growth:
    """Builds the growth of ELENAS graphs.

    Args:
      choices: what may stand on each edge.
      order: "subgraphs" (target by target) or "random" (drawn anew for each episode).
      stages: numbers of nodes that a search grows through, the last is all of them; () is that one alone.
        An episode of a stage predicts the edges among its nodes, the others stay empty.
      masks: whether actions that can only lead to invalid graphs are forbidden, see `elenas_masks`.
      weights: of the shaping terms.
      threshold: of the first task, for `first_task_missed`.
      positions: whether observations tell nodes of one kind apart, by sines of their index.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; allowed are {', '.join(map(repr, ORDERS))}.")
    sizes = _check_stages(stages, choices.num_nodes)
    num_steps = choices.num_steps
    ends = jnp.asarray(choices.order)
    last = len(sizes) - 1
    # [stages, S]: whether an edge is among the nodes of a stage.
    belongs = np.max(choices.order, axis=1) < np.array(sizes)[:, None]
    forbids = make_masks(choices) if masks else None
    log_prior = jnp.log(jnp.maximum(jnp.asarray(choices.probabilities), LEAST_PRIOR))
    observe_graph = make_observer(choices, positions)

    def start(key: jax.Array, stage: jax.Array | int = last) -> GrowthState:
        rank = jnp.arange(num_steps, dtype=jnp.int32)
        if order == "random":
            rank = jax.random.permutation(key, rank)
        end = jnp.int32(num_steps)
        if len(sizes) > 1:
            chosen = jnp.asarray(belongs)[stage]
            # Edges of the stage come first, in the same order.
            rank = jnp.argsort(jnp.argsort(rank + num_steps * ~chosen)).astype(jnp.int32)
            end = jnp.sum(chosen, dtype=jnp.int32)
        edges = jnp.zeros((choices.num_nodes, choices.num_nodes), jnp.int8)
        return GrowthState(edges, rank, jnp.int32(0), end)

    def place(state: GrowthState) -> jax.Array:
        """Returns the edge that is predicted next; after the end some edge, which nothing is done to."""
        return jnp.argmax(state.rank == state.step)

    def extend(state: GrowthState, action: jax.Array) -> GrowthState:
        edge = place(state)
        source, target = ends[edge]
        code = jnp.asarray(choices.codes)[edge, action]
        edges = jnp.where(is_done(state), state.edges, state.edges.at[source, target].set(code))
        return state._replace(edges=edges, step=jnp.minimum(state.step + 1, state.end))

    def is_done(state: GrowthState) -> jax.Array:
        return state.step >= state.end

    def valid_actions(state: GrowthState) -> jax.Array:
        edge = place(state)
        valid = jnp.asarray(choices.valid_actions)[edge]
        if forbids is None:
            return valid
        still_open = (state.rank > state.step) & (state.rank < state.end)
        allowed = valid & ~forbids(state.edges, edge, still_open)
        # Where the past has left nothing that could help, everything is as good.
        return jnp.where(jnp.any(allowed), allowed, valid)

    def actions(state: GrowthState, candidate: ComputationGraph) -> jax.Array:
        by_edge = actions_from_graph(choices, candidate)
        return by_edge[jnp.argsort(state.rank)]

    def observe(state: GrowthState) -> Observation:
        edge = place(state)
        context = jnp.where(jnp.asarray(choices.valid_actions)[edge], log_prior[edge], 0.0)
        return observe_graph(state.edges, state.rank < state.step, context, ends[edge])

    def shaping(before: GrowthState, after: GrowthState, evaluation: Evaluation) -> jax.Array:
        return shaping_reward(weights, threshold, before.edges, after.edges, is_done(after), evaluation)

    return Growth(
        num_steps=num_steps,
        num_actions=choices.num_actions,
        start=start,
        num_stages=len(sizes),
        valid_actions=valid_actions,
        extend=extend,
        is_done=is_done,
        candidate=lambda state: ComputationGraph(state.edges),
        actions=actions,
        observe=observe,
        shaping=shaping,
    )


def _check_stages(stages: Sequence[int], num_nodes: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in stages) or (num_nodes,)
    if sizes[0] < 3 or any(a >= b for a, b in itertools.pairwise(sizes)) or sizes[-1] != num_nodes:
        raise ValueError(
            f"stages is {sizes}; it must ascend from at least 3 nodes to num_nodes, which is {num_nodes}."
        )
    return sizes
