"""The rounds of messages of `policies/gnn.py`, edge by edge in NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from elenas_jax.types import Observation


def graph_network(params: Mapping[str, Any], nodes: np.ndarray, observation: Observation) -> np.ndarray:
    """Returns `[M, width]` nodes after all rounds; padding becomes zero.

    Args:
      params: of `GraphNetwork`, as Flax names them.
      nodes: `[M, width]` embedded nodes.
      observation: whose list of edges, and their features, are read.
    """
    graph = observation.graph
    num_nodes, num_edges = int(graph.n_node[0]), int(graph.n_edge[0])
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    edges = np.asarray(graph.edges, np.float64)
    num_rounds = sum(name.startswith("message_") for name in params)
    nodes = np.array(nodes, np.float64)
    for place in range(num_rounds):
        layer = {name: params[f"{name}_{place}"] for name in ("message", "edge", "update", "normalise")}
        new = np.zeros_like(nodes)
        for node in range(num_nodes):
            received, count = np.zeros(nodes.shape[1]), 0
            for edge in range(num_edges):
                if receivers[edge] == node:
                    of_edge = edges[edge] @ layer["edge"]["kernel"] + layer["edge"]["bias"]
                    received += _leaky_relu(nodes[senders[edge]] @ layer["message"]["kernel"] + of_edge)
                    count += 1
            given = np.concatenate([nodes[node], received / np.sqrt(max(count, 1))])
            change = _leaky_relu(given @ layer["update"]["kernel"] + layer["update"]["bias"])
            new[node] = _layer_norm(nodes[node] + change, layer["normalise"])
        nodes = new
    return nodes


def _leaky_relu(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, 0.01 * values)


def _layer_norm(values: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    centred = values - values.mean()
    return centred / np.sqrt(np.square(centred).mean() + 1e-6) * params["scale"] + params["bias"]
