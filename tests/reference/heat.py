"""PaperPolicy once more, edge by edge in NumPy, as its sources write it."""

from collections.abc import Mapping

import numpy as np

from elenas_jax.types import Observation


def _leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - np.max(x))
    return powers / np.sum(powers)


def _dense(params: Mapping, x: np.ndarray) -> np.ndarray:
    return x @ params["kernel"] + params["bias"]


def heat_conv(params: Mapping, nodes: np.ndarray, observation: Observation) -> np.ndarray:
    """Maps `[M, F]` nodes to `[M, width]` along the edges of `observation.graph`."""
    graph = observation.graph
    num_heads = params["attention"].shape[1]
    types = observation.node_types
    nodes = np.stack(
        [x @ params["node_kernel"][t] + params["node_bias"][t] for x, t in zip(nodes, types, strict=True)]
    )
    out = nodes.copy()
    for i in range(int(graph.n_node[0])):
        logits, messages = [], []
        for edge in range(int(graph.n_edge[0])):
            j = int(graph.senders[edge])
            if int(graph.receivers[edge]) != i:
                continue
            features = np.asarray(graph.edges[edge])
            edge_type = observation.kind_types[int(observation.kinds[i, j])]
            embedded = _leaky(features @ params["edge_kernel"])
            typed = _leaky(params["type_embedding"][edge_type])
            logits.append(_leaky(np.concatenate([nodes[i], nodes[j], typed, embedded]) @ params["attention"]))
            messages.append(np.concatenate([nodes[j], embedded]) @ params["message_kernel"])
        for head in range(num_heads):
            if logits:
                attention = _softmax(np.stack(logits)[:, head])
                for weight, message in zip(attention, messages, strict=True):
                    out[i] += weight * (message + params["message_bias"]) / num_heads
    return out


def seed_pooling(params: Mapping, nodes: np.ndarray, observation: Observation, num_heads: int) -> np.ndarray:
    """Maps `[M, F]` nodes to `[F]`, graph convolutions and heads written out."""
    num_nodes, width = nodes.shape
    adjacency = np.eye(num_nodes)
    graph = observation.graph
    for edge in range(int(graph.n_edge[0])):
        adjacency[graph.receivers[edge], graph.senders[edge]] = 1.0
    degree = adjacency.sum(axis=1)
    normalised = adjacency / np.sqrt(degree[:, None] * degree[None, :])
    real = slice(0, int(graph.n_node[0]))
    keys = (normalised @ nodes @ params["key_kernel"] + params["key_bias"])[real]
    values = (normalised @ nodes @ params["value_kernel"] + params["value_bias"])[real]
    query = _dense(params["query"], params["seed"])
    pooled = query.copy()
    for head in range(num_heads):
        part = slice(head * width // num_heads, (head + 1) * width // num_heads)
        weights = _softmax(keys[:, part] @ query[part] / np.sqrt(width))
        pooled[part] += weights @ values[:, part]
    return pooled + np.maximum(_dense(params["output"], pooled), 0.0)


def paper_policy(
    params: Mapping, observation: Observation, num_layers: int, num_heads: int
) -> tuple[np.ndarray, float]:
    """Returns `[K]` logits, the sampler's included, and the value."""
    graph = observation.graph
    nodes = np.asarray(graph.nodes)
    for layer in range(num_layers):
        nodes = _leaky(heat_conv(params[f"conv_{layer}"], nodes, observation))
    hidden = nodes[np.asarray(observation.focus)].reshape(-1)
    for layer in range(2):
        hidden = _leaky(_dense(params[f"actor_{layer}"], hidden))
    logits = _dense(params["actor_2"], hidden) + np.asarray(graph.globals[0])
    pooled = seed_pooling(params["pooling"], nodes, observation, num_heads)
    hidden = _leaky(_dense(params["critic_0"], pooled))
    return logits, float(_dense(params["critic_1"], hidden)[0])
