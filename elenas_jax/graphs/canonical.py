"""The canonical form of a computation graph: what makes two candidates the same network.

Two graphs have the same canonical form exactly if their networks, after rules (a) to (e) of the
ELENAS specification, are equal up to a renaming of nodes that keeps their kinds and the order in
which each node multiplies its matmul operands. Nothing else is simplified: graphs that compute the
same function in another way (a sum split in two, say) stay different. With head `none` the final
node's activation is no part of the network. Widths and time are no part of it either.

The canonical graph is the representative that is trained; the canonical bytes are its edges, and
the hash is short for the bytes. They are stable: cached scores depend on them, and a test holds
some of them. Host only, NumPy and plain integers: a graph of 32 nodes takes less than a millisecond.
"""

import functools
import hashlib
import itertools
from typing import NamedTuple

import numpy as np

from elenas_jax.graphs.computation import MATMUL, ComputationGraph, intermediate_nodes
from elenas_jax.graphs.labelling import canonical_order
from elenas_jax.graphs.liveness import NO_FINAL, NO_PATH, VALID
from elenas_jax.graphs.program import HEADS
from elenas_jax.graphs.slots import fill_slots
from elenas_jax.ops import COMBINING, COMBINING_BY_NAME, TRANSFORMING

_DELAYED = np.array([row.delayed for row in COMBINING])
_IS_ACTIVATION = np.array([row.is_activation for row in TRANSFORMING])
_FORMAT = 1  # first byte of the canonical bytes

# Kinds of nodes, and colours of the edges that take part in a matmul, in the described network.
_INPUT, _INITIAL, _INTERMEDIATE = range(3)
_DATA_FACTOR = 1 << 16  # plus the place among the operands that depend on the input
_OTHER_FACTOR = 1 << 24  # plus the place among the others


def canonical_bytes(graph: ComputationGraph, head: str = "linear") -> bytes:
    """Returns bytes that are equal for graphs with the same network, and only for those.

    A graph without a final node has the bytes of its reason.
    """
    return _canonicalise(graph, head).encoded


def canonical_hash(graph: ComputationGraph, head: str = "linear") -> str:
    """Returns 32 hexadecimal digits, the BLAKE2b digest of the canonical bytes."""
    return hashlib.blake2b(canonical_bytes(graph, head), digest_size=16).hexdigest()


def canonical_graph(graph: ComputationGraph, head: str = "linear") -> ComputationGraph:
    """Returns the representative of all graphs with the same canonical bytes.

    It holds the network and nothing else, is the same array for all of them, and is its own
    canonical graph. Nodes are numbered in the order of evaluation as far as the order of matmul
    operands allows, without gaps where that can be. A graph without a final node is represented
    by a small one that has none for the same reason.
    """
    return ComputationGraph(_canonicalise(graph, head).edges.copy())


def canonical_renaming(graph: ComputationGraph, head: str = "linear") -> dict[int, int]:
    """Returns {node of the graph: node of its canonical graph} for the nodes of the network."""
    return dict(_canonicalise(graph, head).renaming)


class _Canonical(NamedTuple):
    """The canonical form of one graph."""

    edges: np.ndarray  # [M, M] int8
    encoded: bytes
    renaming: dict[int, int]


def _canonicalise(graph: ComputationGraph, head: str) -> _Canonical:
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; allowed are {', '.join(map(repr, HEADS))}.")
    edges = np.asarray(graph.edges, np.int8)
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1]:
        raise ValueError(f"A canonical form is of one graph with edges [M, M]; got shape {edges.shape}.")
    return _canonicalise_edges(edges.tobytes(), edges.shape[0], head)


# Bytes, hash and graph of a candidate are asked for one after the other.
@functools.lru_cache(maxsize=1024)
def _canonicalise_edges(data: bytes, num_nodes: int, head: str) -> _Canonical:
    network = _find_network(np.frombuffer(data, np.int8).reshape(num_nodes, num_nodes))
    if network.reason != VALID:
        return _Canonical(_without_final(network.reason), _encode(network.reason, np.zeros((0, 3))), {})
    if head == "none" and _IS_ACTIVATION[network.codes[network.final, network.final]]:
        network.codes[network.final, network.final] = 0
    described = _describe(network)
    order = canonical_order(described)
    described = described[order[:, None], order]
    # From here on only the order just found is used, so that what follows is canonical too.
    slots = fill_slots(*_slot_constraints(described))
    codes = network.codes[order[:, None], order]
    edges = np.zeros((max(3, slots.max() + 1),) * 2, np.int8)
    edges[slots[:, None], slots] = codes
    sources, targets = np.nonzero(edges)
    encoded = _encode(VALID, np.stack([sources, targets, edges[sources, targets]], axis=1))
    renaming = dict(zip(network.nodes[order].tolist(), slots.tolist(), strict=True))
    return _Canonical(edges, encoded, renaming)


def _encode(reason: int, entries: np.ndarray) -> bytes:
    """Writes `[E, 3]` entries (source, target, code) of an edge matrix without zeros."""
    return bytes([_FORMAT, reason]) + entries.astype("<u2").tobytes()


def _without_final(reason: int) -> np.ndarray:
    """Returns the smallest edge matrix without a final node, for this reason."""
    add = COMBINING_BY_NAME["add"].code
    if reason == NO_PATH:
        return np.zeros((3, 3), np.int8)
    edges = np.zeros((5, 5), np.int8)
    edges[0, 2] = edges[2, 4] = edges[4, 2] = add
    return edges


class _Network(NamedTuple):
    """The network of a graph; its n nodes in ascending order."""

    reason: int  # VALID, or why there is no final node; the rest is then empty
    nodes: np.ndarray  # [n] int64 indices in the graph
    codes: np.ndarray  # [n, n] int8 combining codes, transforming codes on the diagonal
    depends_on_input: np.ndarray  # [n] bool
    final: int  # place in `nodes`


def _find_network(edges: np.ndarray) -> _Network:
    """Applies rules (a) to (e); a twin of `liveness` for one graph on the host."""
    num_nodes = edges.shape[0]
    is_intermediate = intermediate_nodes(num_nodes)
    combining = np.where(is_intermediate, edges, np.int8(0))
    np.fill_diagonal(combining, 0)
    combining[1::2][_DELAYED[combining[1::2]]] = 0  # (a)
    alive = np.ones(num_nodes, bool)
    while (dead := alive & is_intermediate & ~combining.any(axis=0)).any():  # (b)
        combining[dead] = 0
        alive &= ~dead

    present = combining != 0
    targets, sources = _masks(present), _masks(present.T)
    reached = _reach(0, targets)
    feeds = (present & ~_DELAYED[combining]).any(axis=1)
    candidates = [node for node in _members(reached) if not feeds[node]]  # (c)
    if not candidates:
        reason = NO_FINAL if reached else NO_PATH
        return _Network(reason, np.zeros(0, np.int64), np.zeros((0, 0), np.int8), np.zeros(0, bool), -1)
    ancestors = [_reach(node, sources) | 1 << node for node in candidates]
    best = max(range(len(candidates)), key=lambda place: (ancestors[place].bit_count(), place))  # (d)
    nodes = np.array(_members(ancestors[best]))  # (e)
    codes = combining[nodes[:, None], nodes]
    np.fill_diagonal(codes, np.where(is_intermediate, np.diagonal(edges), 0)[nodes])
    depends_on_input = np.array([node == 0 or bool(reached >> node & 1) for node in nodes.tolist()])
    return _Network(VALID, nodes, codes, depends_on_input, int(np.searchsorted(nodes, candidates[best])))


def _masks(adjacency: np.ndarray) -> list[int]:
    """Returns the rows of a Boolean matrix as integers, column j as bit j."""
    packed = np.packbits(adjacency, axis=1, bitorder="little")
    width, data = packed.shape[1], packed.tobytes()
    return [int.from_bytes(data[start : start + width], "little") for start in range(0, len(data), width)]


def _members(mask: int) -> list[int]:
    """Returns the set bits of an integer, ascending."""
    members = []
    while mask:
        members.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return members


def _reach(start: int, neighbours: list[int]) -> int:
    """Returns the mask of nodes that one or more steps lead to."""
    reached, frontier = 0, neighbours[start]
    while frontier:
        reached |= frontier
        following = 0
        for node in _members(frontier):
            following |= neighbours[node]
        frontier = following & ~reached
    return reached


def _describe(network: _Network) -> np.ndarray:
    """Returns `[n, n]` int64 colours that hold all that the meaning of a network depends on.

    Off the diagonal the combining code, for matmul the place among the factors; on it the kind of
    the node, its transform, and whether it is the final node.
    """
    codes = network.codes.astype(np.int64)
    diagonal = np.diagonal(codes).copy()
    np.fill_diagonal(codes, 0)
    is_factor = codes == MATMUL
    is_data = network.depends_on_input[:, None]
    for member, offset in ((is_factor & is_data, _DATA_FACTOR), (is_factor & ~is_data, _OTHER_FACTOR)):
        codes = np.where(member, offset + np.cumsum(member, axis=0), codes)
    kind = np.where(network.nodes == 0, _INPUT, np.where(network.nodes % 2 == 1, _INITIAL, _INTERMEDIATE))
    is_final = np.arange(len(diagonal)) == network.final
    np.fill_diagonal(codes, 1 + is_final + 2 * (kind + 3 * diagonal))
    return codes


def _slot_constraints(described: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Says how the nodes of a described network may be numbered.

    Returns:
      The initial and the intermediate nodes, each in the order preferred: that of evaluation;
      and for each node the mask of the nodes that must have lower numbers: earlier factors of a
      matmul, and for the final node whatever would else become the final node.
    """
    num_nodes = len(described)
    colour = np.diagonal(described) - 1
    kind = (colour // 2 % 3).tolist()
    final = int(np.argmax(colour % 2))
    edges = described.copy()
    np.fill_diagonal(edges, 0)
    is_factor = edges >= _DATA_FACTOR
    delayed = ~is_factor & _DELAYED[np.where(is_factor, 0, edges)]
    targets = _masks(edges != 0)
    within_step = (edges != 0) & ~delayed

    lower = [0] * num_nodes
    for target, sources in enumerate(_masks(is_factor.T)):
        factors = sorted((int(edges[source, target]), source) for source in _members(sources))
        for (place, source), (next_place, next_source) in itertools.pairwise(factors):
            if next_place == place + 1:  # the same kind of factor
                lower[next_source] |= 1 << source
    if targets[final]:
        # Nodes that have all others as ancestors, as the final node has: the highest index decides.
        feeds = within_step.any(axis=1)
        for node in _members(_reach(final, targets)):
            if node != final and not feeds[node]:
                lower[final] |= 1 << node

    needs = _masks(within_step.T)
    waiting = [node for node in range(num_nodes) if kind[node] == _INTERMEDIATE]
    done = sum(1 << node for node in range(num_nodes) if kind[node] != _INTERMEDIATE)
    evaluation: list[int] = []
    while waiting:
        # Level by level; a cycle within the step has no order.
        ready = [node for node in waiting if not needs[node] & ~done] or waiting
        waiting = [node for node in waiting if node not in ready]
        evaluation += ready
        done |= sum(1 << node for node in ready)
    # Initial nodes in the order of first use, factors first.
    use = np.where(is_factor, edges - 2 * _OTHER_FACTOR, edges).T.tolist()
    initial: dict[int, None] = {}
    for node in evaluation:
        parameters = [source for source in _members(needs[node]) if kind[source] == _INITIAL]
        initial |= dict.fromkeys(sorted(parameters, key=use[node].__getitem__))
    return list(initial), evaluation, lower
