"""What a policy sees of an ELENAS graph on its way: nodes, edges of few kinds, and which edge is next.

Source: Aichberger and Klambauer (2023), section 4. Left open there and fixed here:

- *unused*: the input or an initial node without outgoing edges, an intermediate node without any;
- *dead*: an intermediate node without a path from the input, and an initial node that feeds no
  living intermediate node; an edge is dead if one of its ends is;
- a node *holds a value of the previous step* if a recursion edge leads into it;
- an added backward edge carries the type of the edge it turns round.
Recursion edges from initial nodes count as none throughout.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.computation import RECURSION, initial_nodes, intermediate_nodes
from elenas_jax.graphs.convert import single_graph
from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.spaces.elenas_sampling import Choices
from elenas_jax.types import Observation

POSITION_FEATURES = 8


class NodeStates(NamedTuple):
    """What is to be said of the nodes of a graph on its way; all [M] bool."""

    unused: jax.Array
    dead: jax.Array
    holds_previous: jax.Array


def _present(edges: jax.Array) -> jax.Array:
    """Returns `[M, M]` bool, True for combining edges that count."""
    num_nodes = edges.shape[0]
    counts = (edges > 0) & ~jnp.eye(num_nodes, dtype=bool)
    return counts & ~(jnp.asarray(initial_nodes(num_nodes))[:, None] & (edges == RECURSION))


def node_states(edges: jax.Array) -> NodeStates:
    """Returns what is to be said of the nodes of a graph, from its `[M, M]` int8 edges."""
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
    return NodeStates(
        unused=~outgoing & ~(incoming & intermediate),
        dead=jnp.where(initial, ~feeds, intermediate & ~reached),
        holds_previous=jnp.any(present & (edges == RECURSION), axis=0),
    )


def _positions(num_nodes: int) -> np.ndarray:
    """Returns `[M, POSITION_FEATURES]` sines and cosines of the node index (Vaswani et al., 2017)."""
    frequency = 1.0 / 64.0 ** (np.arange(POSITION_FEATURES // 2) / (POSITION_FEATURES // 2))
    angle = np.arange(num_nodes)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def make_observer(choices: Choices, positions: bool):
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
        states = node_states(edges)
        nodes = jnp.concatenate([constant_nodes, jnp.stack(states, axis=1)], axis=1)
        codes = jnp.where(roles == _BACKWARD, edges, edges.T).astype(jnp.int32)
        dead = states.dead[:, None] | states.dead[None, :]
        kinds = jnp.asarray(kind_of)[roles, jnp.append(predicted, False)[places] * 1, dead * 1, codes]
        edge_kinds = kinds[receivers, senders]
        listed = jnp.asarray(features)[edge_kinds]
        return Observation(
            graph=single_graph(nodes, listed, senders, receivers, context),
            focus=focus,
            node_types=node_types,
            kinds=kinds,
            edge_kinds=edge_kinds,
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
