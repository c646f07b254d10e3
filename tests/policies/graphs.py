"""Random observations, and what may be done to one without changing it."""

import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import convert
from elenas_jax.types import Observation

NUM_FEATURES, NUM_EDGE_FEATURES, NUM_ACTIONS = 4, 3, 5


def random_observation(seed: int, num_nodes: int, num_kinds: int, density: float) -> Observation:
    """Returns an observation of a random simple graph, self-edges included."""
    rng = np.random.default_rng(seed)
    there_is = rng.random((num_nodes, num_nodes)) < density
    kinds = np.where(there_is, rng.integers(num_kinds, size=there_is.shape), num_kinds).astype(np.int32)
    features = rng.normal(size=(num_kinds, NUM_EDGE_FEATURES)).astype(np.float32)
    receivers, senders = np.nonzero(there_is)
    nodes = rng.normal(size=(num_nodes, NUM_FEATURES)).astype(np.float32)
    return Observation(
        graph=convert.single_graph(
            jnp.asarray(nodes),
            jnp.asarray(features[kinds[receivers, senders]]),
            senders,
            receivers,
            jnp.asarray(rng.normal(size=NUM_ACTIONS), jnp.float32),
        ),
        focus=jnp.asarray(rng.integers(num_nodes, size=2), jnp.int32),
        node_types=rng.integers(2, size=num_nodes).astype(np.int32),
        kinds=jnp.asarray(kinds),
        edge_kinds=jnp.asarray(kinds[receivers, senders]),
        kind_features=features,
        kind_types=rng.integers(2, size=num_kinds).astype(np.int32),
    )


def padded(observation: Observation, extra_nodes: int, extra_edges: int) -> Observation:
    """Pads an observation; what stands in the padding of its features is not zero."""
    num_nodes, num_edges = observation.kinds.shape[0], observation.graph.edges.shape[0]
    graph = convert.pad(observation.graph, num_nodes + extra_nodes, num_edges + extra_edges)
    graph = graph._replace(
        nodes=graph.nodes.at[num_nodes:].set(5.0), edges=graph.edges.at[num_edges:].set(5.0)
    )
    return observation._replace(
        graph=graph,
        node_types=np.pad(observation.node_types, (0, extra_nodes)),
        kinds=jnp.pad(
            observation.kinds, (0, extra_nodes), constant_values=observation.kind_features.shape[0]
        ),
        edge_kinds=jnp.pad(
            observation.edge_kinds, (0, extra_edges), constant_values=observation.kind_features.shape[0]
        ),
    )


def renamed(observation: Observation) -> Observation:
    """Gives nodes and kinds of edges other numbers, and edges another order."""
    rng, graph = np.random.default_rng(0), observation.graph
    num_kinds = observation.kind_features.shape[0]
    node = rng.permutation(observation.kinds.shape[0])  # new number of each
    kind = np.append(rng.permutation(num_kinds), num_kinds)
    edges = rng.permutation(graph.edges.shape[0])
    old_node, old_kind = np.argsort(node), np.argsort(kind)[:num_kinds]
    return Observation(
        graph=graph._replace(
            nodes=graph.nodes[old_node],
            edges=graph.edges[edges],
            senders=jnp.asarray(node)[graph.senders][edges],
            receivers=jnp.asarray(node)[graph.receivers][edges],
        ),
        focus=jnp.asarray(node)[observation.focus],
        node_types=np.asarray(observation.node_types)[old_node],
        kinds=jnp.asarray(kind)[observation.kinds][old_node][:, old_node],
        edge_kinds=jnp.asarray(kind)[observation.edge_kinds][edges],
        kind_features=np.asarray(observation.kind_features)[old_kind],
        kind_types=np.asarray(observation.kind_types)[old_kind],
    )
