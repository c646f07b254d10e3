"""Growing an ELENAS graph edge by edge: states, observations and reward shaping.

Source: Aichberger and Klambauer (2023), sections 3 and 4. An episode predicts each edge once, in
the order of `edge_order` or in a random one. Left open there and fixed here:

- *unused*: the input or an initial node without outgoing edges, an intermediate node without any;
- *dead*: an intermediate node without a path from the input, and an initial node that feeds no
  living intermediate node; an edge is dead if one of its ends is;
- a node *holds a value of the previous step* if a recursion edge leads into it;
- an added backward edge carries the type of the edge it turns round.
Recursion edges from initial nodes count as none throughout.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph, liveness
from elenas_jax.graphs.computation import RECURSION, initial_nodes, intermediate_nodes
from elenas_jax.graphs.convert import single_graph
from elenas_jax.graphs.liveness import ILLEGITIMATE_RECURSION, SHAPES
from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.spaces.elenas_masks import make_masks
from elenas_jax.spaces.elenas_sampling import Choices, actions_from_graph
from elenas_jax.types import OK, Evaluation, Growth, Observation

ORDERS = ("subgraphs", "random")
POSITION_FEATURES = 8
LEAST_PRIOR = 1e-4  # probability at least shown for an action that the sampler never draws


class GrowthState(NamedTuple):
    """A graph on its way. S edges."""

    edges: jax.Array  # [M, M] int8
    rank: jax.Array  # [S] int16, the step at which each edge is predicted
    step: jax.Array  # [] int32, edges predicted so far
    end: jax.Array  # [] int32, edges that are predicted at all: those among the nodes of a stage


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


class _NodeStates(NamedTuple):
    """What is to be said of the nodes of a graph on its way; all [M] bool."""

    unused: jax.Array
    dead: jax.Array
    holds_previous: jax.Array


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


PAPER_WEIGHTS = ShapingWeights()


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
    observe_graph = _make_observer(choices, positions)

    def start(key: jax.Array, stage: jax.Array | int = last) -> GrowthState:
        rank = jnp.arange(num_steps, dtype=jnp.int16)
        if order == "random":
            rank = jax.random.permutation(key, rank)
        end = jnp.int32(num_steps)
        if len(sizes) > 1:
            chosen = jnp.asarray(belongs)[stage]
            # Edges of the stage come first, in the same order.
            rank = jnp.argsort(jnp.argsort(rank + num_steps * ~chosen)).astype(jnp.int16)
            end = jnp.sum(chosen, dtype=jnp.int32)
        edges = jnp.zeros((choices.num_nodes, choices.num_nodes), jnp.int8)
        return GrowthState(edges, rank, jnp.int32(0), end)

    def place(state: GrowthState) -> jax.Array:
        """Returns the edge that is predicted next, 0 after the end."""
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
        return _shaping(weights, threshold, before, after, is_done(after), evaluation)

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


def _present(edges: jax.Array) -> jax.Array:
    """Returns `[M, M]` bool, True for combining edges that count."""
    num_nodes = edges.shape[0]
    counts = (edges > 0) & ~jnp.eye(num_nodes, dtype=bool)
    return counts & ~(jnp.asarray(initial_nodes(num_nodes))[:, None] & (edges == RECURSION))


def _node_states(edges: jax.Array) -> _NodeStates:
    num_nodes = edges.shape[0]
    initial = jnp.asarray(initial_nodes(num_nodes))
    intermediate = jnp.asarray(intermediate_nodes(num_nodes))
    present = _present(edges)
    outgoing, incoming = jnp.any(present, axis=1), jnp.any(present, axis=0)
    # Paths among intermediate nodes by repeated squaring: few and small matrix products.
    between = present[2::2, 2::2] | jnp.eye(len(range(2, num_nodes, 2)), dtype=bool)
    paths = between.astype(jnp.float32)
    for _ in range(max(1, int(np.ceil(np.log2(max(2, paths.shape[0])))))):
        paths = jnp.minimum(paths @ paths, 1.0)
    reached = present[0, 2::2].astype(jnp.float32) @ paths > 0
    reached = jnp.zeros(num_nodes, bool).at[2::2].set(reached)
    feeds = jnp.any(present & reached[None, :], axis=1)
    return _NodeStates(
        unused=~outgoing & ~(incoming & intermediate),
        dead=jnp.where(initial, ~feeds, intermediate & ~reached),
        holds_previous=jnp.any(present & (edges == RECURSION), axis=0),
    )


def _positions(num_nodes: int) -> np.ndarray:
    """Returns `[M, POSITION_FEATURES]` sines and cosines of the node index (Vaswani et al., 2017)."""
    frequency = 1.0 / 64.0 ** (np.arange(POSITION_FEATURES // 2) / (POSITION_FEATURES // 2))
    angle = np.arange(num_nodes)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def _make_observer(choices: Choices, positions: bool):
    """Returns (edges [M, M], predicted [S], context [K], focus [2]) -> Observation."""
    num_nodes = choices.num_nodes
    sources, targets = choices.order[:, 0], choices.order[:, 1]
    is_self = sources == targets
    # Turned round: edges from the input and from initial nodes.
    turned = np.flatnonzero((sources == 0) | (sources % 2 == 1))
    senders = np.concatenate([sources, targets[turned]])
    receivers = np.concatenate([targets, sources[turned]])

    index = np.arange(num_nodes)
    node_kinds = np.where(index == 0, 0, np.where(initial_nodes(num_nodes), 1, 2))
    constant_nodes = np.eye(3, dtype=np.float32)[node_kinds]
    if positions:
        constant_nodes = np.concatenate([constant_nodes, _positions(num_nodes)], axis=1)
    node_types = (node_kinds == 2).astype(np.int32)
    features, types, kind_of = _edge_kinds(choices)
    # Of the edge at [receiver, sender]: what it is, and its place in the order, the last where there is none.
    roles = np.full((num_nodes, num_nodes), _NO_EDGE)
    roles[targets, sources] = np.where(is_self, _SELF, _FORWARD)
    roles[sources[turned], targets[turned]] = _BACKWARD
    places = np.full((num_nodes, num_nodes), len(sources))
    places[targets, sources] = np.arange(len(sources))
    places[sources[turned], targets[turned]] = turned

    def observe_graph(edges: jax.Array, predicted: jax.Array, context: jax.Array, focus: jax.Array):
        states = _node_states(edges)
        nodes = jnp.concatenate([constant_nodes, jnp.stack(states, axis=1)], axis=1)
        codes = jnp.where(roles == _BACKWARD, edges, edges.T).astype(jnp.int32)
        dead = states.dead[:, None] | states.dead[None, :]
        kinds = jnp.asarray(kind_of)[roles, jnp.append(predicted, False)[places] * 1, dead * 1, codes]
        listed = jnp.asarray(features)[kinds[receivers, senders]]
        return Observation(
            graph=single_graph(nodes, listed, senders, receivers, context),
            focus=focus,
            node_types=node_types,
            kinds=kinds,
            kind_features=features,
            kind_types=types,
        )

    return observe_graph


# What may stand between two nodes of an observed graph.
_NO_EDGE, _FORWARD, _SELF, _BACKWARD = range(4)


def _edge_kinds(choices: Choices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Enumerates the kinds of edges that observations have. C kinds, O operations that may be drawn.

    Returns:
      `[C, O + 3]` features: the operation, one-hot, combining and transforming ones apart; dead;
      predicted; backward. `[C]` types. And the kind by role, predicted, dead and code, C for none.
    """
    is_self = choices.order[:, 0] == choices.order[:, 1]
    combining = np.unique(choices.codes[~is_self][choices.valid_actions[~is_self]])
    transforming = np.unique(choices.codes[is_self][choices.valid_actions[is_self]])
    num_operations = len(combining) + len(transforming)
    drawn = {
        _FORWARD: list(enumerate(combining)),
        _SELF: list(enumerate(transforming, start=len(combining))),
        _BACKWARD: list(enumerate(combining)),
    }
    # An edge that is not predicted yet is none, or identity.
    kinds = [
        (role, predicted, dead, code, column)
        for role, columns in drawn.items()
        for column, code in columns
        for predicted in ((0, 1) if code == 0 else (1,))
        for dead in (0, 1)
    ]
    features = np.zeros((len(kinds), num_operations + 3), np.float32)
    kind_of = np.full((4, 2, 2, max(len(COMBINING), len(TRANSFORMING))), len(kinds), np.int32)
    for kind, (role, predicted, dead, code, column) in enumerate(kinds):
        features[kind, column] = 1.0
        features[kind, num_operations:] = dead, predicted, role == _BACKWARD
        kind_of[role, predicted, dead, code] = kind
    return features, features[:, -1].astype(np.int32), kind_of


def _excess(edges: jax.Array) -> jax.Array:
    """Returns the edges of one combining type into one node beyond two (recursion: one), summed."""
    combining = jnp.where(jnp.eye(edges.shape[0], dtype=bool), 0, edges)
    total = jnp.float32(0.0)
    for row in COMBINING[1:]:
        count = jnp.sum(combining == row.code, axis=0)
        total += jnp.sum(jnp.maximum(0, count - (1 if row.delayed else 2)))
    return total


def _shaping(
    weights: ShapingWeights,
    threshold: float,
    before: GrowthState,
    after: GrowthState,
    done: jax.Array,
    evaluation: Evaluation,
) -> jax.Array:
    """Returns what a step earns beside the score; terms without weight are not computed."""
    states = _node_states(after.edges)
    live = liveness(ComputationGraph(after.edges))
    num_nodes = after.edges.shape[0]
    initial = jnp.asarray(initial_nodes(num_nodes))
    intermediate = jnp.asarray(intermediate_nodes(num_nodes))
    used = ~states.unused
    trained = evaluation.status == OK
    terms = {
        "excess": _excess(after.edges) - _excess(before.edges),
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
