"""Graphs as `jraph.GraphsTuple`; the only place that knows jraph's padding.

jraph pads a batch with one more graph that holds all surplus nodes and edges. Here a padded tuple
is one graph and its padding: `n_node` and `n_edge` are `[2]`, surplus edges join the last node
to itself. jraph's own `pad_with_graphs` cannot be jitted.
"""

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from elenas_jax.graphs.computation import ComputationGraph, edge_order, initial_nodes
from elenas_jax.graphs.liveness import liveness
from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.types import AnyArray


def single_graph(
    nodes: jax.Array,
    edges: jax.Array,
    senders: AnyArray,
    receivers: AnyArray,
    context: jax.Array | None = None,
) -> jraph.GraphsTuple:
    """Makes a tuple of one graph without padding.

    Args:
      nodes: `[M, F]` features.
      edges: `[L, G]` features.
      senders, receivers: `[L]` int32 nodes.
      context: `[K]` what belongs to the whole graph.
    """
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=edges,
        senders=jnp.asarray(senders, jnp.int32),
        receivers=jnp.asarray(receivers, jnp.int32),
        n_node=jnp.array([nodes.shape[0]], jnp.int32),
        n_edge=jnp.array([edges.shape[0]], jnp.int32),
        globals=None if context is None else context[None],
    )


def pad(graph: jraph.GraphsTuple, num_nodes: int, num_edges: int) -> jraph.GraphsTuple:
    """Pads a tuple of one graph to `num_nodes` nodes, at least one more than it has, and `num_edges`."""
    extra_nodes, extra_edges = num_nodes - graph.nodes.shape[0], num_edges - graph.edges.shape[0]
    if extra_nodes < 1 or extra_edges < 0:
        raise ValueError(
            f"A graph of {graph.nodes.shape[0]} nodes and {graph.edges.shape[0]} edges cannot be padded to "
            f"{num_nodes} and {num_edges}; padding needs a node of its own."
        )

    def pad_rows(array: jax.Array, extra: int, value: int = 0) -> jax.Array:
        return jnp.pad(array, [(0, extra)] + [(0, 0)] * (array.ndim - 1), constant_values=value)

    return graph._replace(
        nodes=pad_rows(graph.nodes, extra_nodes),
        edges=pad_rows(graph.edges, extra_edges),
        senders=pad_rows(graph.senders, extra_edges, num_nodes - 1),
        receivers=pad_rows(graph.receivers, extra_edges, num_nodes - 1),
        n_node=jnp.append(graph.n_node, extra_nodes),
        n_edge=jnp.append(graph.n_edge, extra_edges),
        globals=None if graph.globals is None else pad_rows(graph.globals, 1),
    )


def valid_nodes(graph: jraph.GraphsTuple) -> jax.Array:
    """Returns `[M]` booleans, True for nodes of the first graph of a tuple."""
    return jnp.arange(graph.nodes.shape[0]) < graph.n_node[0]


def valid_edges(graph: jraph.GraphsTuple) -> jax.Array:
    """Returns `[L]` booleans, True for edges of the first graph of a tuple."""
    return jnp.arange(graph.senders.shape[0]) < graph.n_edge[0]


def network_graph(graph: ComputationGraph) -> jraph.GraphsTuple:
    """Returns the network of a computation graph, padded to fixed shapes; jittable.

    Nodes and edges of the network come first, in the order of their indices; the rest is padding.
    Node features are one-hot: kind (input, initial, intermediate) and transforming operation;
    edge features the one-hot combining operation. A graph without a final node has no nodes.
    """
    num_nodes = graph.num_nodes
    live = liveness(graph)
    order = edge_order(num_nodes)
    order = order[order[:, 0] != order[:, 1]]
    sources, targets = order[:, 0], order[:, 1]

    index = np.arange(num_nodes)
    kinds = np.where(index == 0, 0, np.where(initial_nodes(num_nodes), 1, 2))
    transforms = jnp.where(kinds == 2, jnp.diagonal(live.edges), 0)
    nodes = jnp.concatenate(
        [jax.nn.one_hot(kinds, 3), jax.nn.one_hot(transforms, len(TRANSFORMING)) * (kinds == 2)[:, None]],
        axis=1,
    )
    node_order = jnp.argsort(~live.network, stable=True)
    place = jnp.argsort(node_order)
    codes = live.edges[sources, targets]
    edge_places = jnp.argsort(codes == 0, stable=True)
    num_live_nodes, num_live_edges = jnp.sum(live.network), jnp.sum(codes > 0)
    is_live = jnp.arange(len(order)) < num_live_edges
    is_node = jnp.arange(num_nodes + 1) < num_live_nodes
    nodes = jnp.concatenate([nodes[node_order], jnp.zeros((1, nodes.shape[1]))])
    edges = jax.nn.one_hot(codes[edge_places], len(COMBINING))
    return jraph.GraphsTuple(
        nodes=jnp.where(is_node[:, None], nodes, 0.0),
        edges=jnp.where(is_live[:, None], edges, 0.0),
        senders=jnp.where(is_live, place[sources][edge_places], num_nodes).astype(jnp.int32),
        receivers=jnp.where(is_live, place[targets][edge_places], num_nodes).astype(jnp.int32),
        n_node=jnp.stack([num_live_nodes, num_nodes + 1 - num_live_nodes]).astype(jnp.int32),
        n_edge=jnp.stack([num_live_edges, len(order) - num_live_edges]).astype(jnp.int32),
        globals=None,
    )
