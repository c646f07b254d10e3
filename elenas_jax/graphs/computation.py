"""Computation graphs of elementary operations: the edge matrix and what can be read off it.

Node 0 is the input, odd nodes are initial (learnable parameters), even nodes from 2 on are
intermediate (Aichberger and Klambauer, 2023, section 3). Conventions the paper leaves open are
those of the ELENAS specification of this project; the rules (a) to (f) named below are its rules
for what of a graph is the network.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.ops import COMBINING, COMBINING_BY_NAME, TRANSFORMING, TRANSFORMING_BY_NAME

MATMUL = COMBINING_BY_NAME["matmul"].code
RECURSION = COMBINING_BY_NAME["recursion"].code


class ComputationGraph(NamedTuple):
    """A graph by its edges.

    edges: `[M, M]` int8, `edges[source, target]`. Off the diagonal a combining code, on it the
      transforming code of the node. Columns 0 and odd columns mean nothing and are zero.
    """

    edges: jax.Array | np.ndarray

    @property
    def num_nodes(self) -> int:
        return self.edges.shape[-1]


def intermediate_nodes(num_nodes: int) -> np.ndarray:
    """Returns `[M]` booleans, True for intermediate nodes; a constant of the size."""
    index = np.arange(num_nodes)
    return (index % 2 == 0) & (index > 0)


def initial_nodes(num_nodes: int) -> np.ndarray:
    """Returns `[M]` booleans, True for initial nodes (parameters)."""
    return np.arange(num_nodes) % 2 == 1


def from_edges(num_nodes: int, edges: Iterable[tuple[int, int, str]]) -> ComputationGraph:
    """Builds a graph from `(source, target, operation name)` triples.

    Args:
      num_nodes: how many nodes, at least 3.
      edges: with `source == target` the name is a transforming one, else a combining one.

    Raises:
      ValueError: for an unknown operation, a node out of range, an edge into the input or an
        initial node, or two operations for one edge.
    """
    if num_nodes < 3:
        raise ValueError(
            f"A graph has at least 3 nodes (input, initial, intermediate); got num_nodes={num_nodes}."
        )
    matrix = np.zeros((num_nodes, num_nodes), np.int8)
    seen: set[tuple[int, int]] = set()
    for source, target, name in edges:
        edge = f"edge ({source}, {target}, {name!r})"
        if not (0 <= source < num_nodes and 0 <= target < num_nodes):
            raise ValueError(f"{edge}: nodes are 0 to {num_nodes - 1}.")
        if target == 0 or target % 2 == 1:
            kind = "the input" if target == 0 else "an initial node"
            raise ValueError(
                f"{edge}: node {target} is {kind}, which has no incoming edges; targets are even, from 2."
            )
        table = TRANSFORMING_BY_NAME if source == target else COMBINING_BY_NAME
        if name not in table:
            kind = "transforming" if source == target else "combining"
            raise ValueError(f"{edge}: {name!r} is not a {kind} operation; allowed are {', '.join(table)}.")
        if (source, target) in seen:
            raise ValueError(f"{edge}: this edge was given before.")
        seen.add((source, target))
        matrix[source, target] = table[name].code
    return ComputationGraph(matrix)


def to_edges(graph: ComputationGraph) -> list[tuple[int, int, str]]:
    """Returns the triples of `from_edges`, without none and identity; host only."""
    matrix = np.asarray(graph.edges)
    listed = []
    for target in np.flatnonzero(intermediate_nodes(matrix.shape[0])):
        for source in np.flatnonzero(matrix[:, target]):
            table = TRANSFORMING if source == target else COMBINING
            listed.append((int(source), int(target), table[matrix[source, target]].name))
    return listed


def pad_graph(graph: ComputationGraph, num_nodes: int) -> ComputationGraph:
    """Adds nodes without edges, up to `num_nodes`."""
    extra = num_nodes - graph.num_nodes
    if extra < 0:
        raise ValueError(f"The graph has {graph.num_nodes} nodes; it cannot be padded to {num_nodes}.")
    return ComputationGraph(np.pad(np.asarray(graph.edges), ((0, extra), (0, extra))))


def edge_order(num_nodes: int) -> np.ndarray:
    """Returns `[S, 2]` int32 (source, target): each edge an episode predicts, once.

    S = M (number of intermediate nodes), 480 for 32 nodes. Sub-graphs of five intermediate nodes
    in ascending order (Aichberger and Klambauer, 2023, section 3); inside one, target by target,
    sources ascending and the self-edge last, so that the whole is target by target too.
    """
    order: list[tuple[int, int]] = []
    for target in map(int, np.flatnonzero(intermediate_nodes(num_nodes))):
        order += [(source, target) for source in range(num_nodes) if source != target]
        order.append((target, target))
    return np.array(order, np.int32)
