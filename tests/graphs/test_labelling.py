"""Canonical orders: the same matrix for all renamings of a graph, another for another graph."""

import itertools

import numpy as np
import pytest

from elenas_jax.graphs.labelling import canonical_order


def relabelled(matrix: np.ndarray, order: np.ndarray) -> np.ndarray:
    return matrix[order][:, order]


def canonical_matrix(matrix: np.ndarray) -> bytes:
    order = canonical_order(matrix)
    assert sorted(order.tolist()) == list(range(len(matrix)))
    return relabelled(np.asarray(matrix, np.int64), order).tobytes()


def undirected(num_nodes: int, edges) -> np.ndarray:
    matrix = np.eye(num_nodes, dtype=np.int64)
    for a, b in edges:
        matrix[a, b] = matrix[b, a] = 1
    return matrix


def cycles(*lengths: int) -> np.ndarray:
    starts = np.cumsum((0, *lengths))
    edges = [(s + i, s + (i + 1) % n) for s, n in zip(starts, lengths, strict=False) for i in range(n)]
    return undirected(sum(lengths), edges)


def projective_plane(order: int) -> np.ndarray:
    """Points and lines over the integers modulo a prime."""
    points = [p for p in itertools.product(range(order), repeat=3) if next((x for x in p if x), 0) == 1]
    lies_on = [
        (i, len(points) + j)
        for i, p in enumerate(points)
        for j, line in enumerate(points)
        if np.dot(p, line) % order == 0
    ]
    return undirected(2 * len(points), lies_on)


def rook() -> np.ndarray:
    pairs = itertools.combinations(range(16), 2)
    return undirected(16, [(a, b) for a, b in pairs if a // 4 == b // 4 or a % 4 == b % 4])


def shrikhande() -> np.ndarray:
    """Has the parameters of the rook's graph, so that refinement cannot tell them apart."""
    steps = {(0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3)}
    pairs = itertools.combinations(range(16), 2)
    return undirected(16, [(a, b) for a, b in pairs if ((a // 4 - b // 4) % 4, (a - b) % 4) in steps])


def copies(number: int, length: int) -> np.ndarray:
    """A number of equal directed paths into one node."""
    matrix = np.zeros((1 + number * length,) * 2, np.int64)
    for start in range(1, len(matrix), length):
        for node in range(start, start + length - 1):
            matrix[node, node + 1] = 1
        matrix[start + length - 1, 0] = 2
    return matrix


# The last few would take for ever without pruning by automorphisms.
SYMMETRIC = {
    "one node": np.ones((1, 1), np.int64),
    "no edges": np.eye(100, dtype=np.int64),
    "all edges": np.ones((100, 100), np.int64),
    "bipartite": np.kron(1 - np.eye(2, dtype=np.int64), np.ones((40, 40), np.int64)),
    "a cycle": cycles(60),
    "two cycles": cycles(30, 30),
    "other cycles": cycles(29, 31),
    "cube": undirected(64, [(i, i ^ (1 << b)) for i in range(64) for b in range(6)]),
    "tree": undirected(63, [(i, (i - 1) // 2) for i in range(1, 63)]),
    "rook": rook(),
    "shrikhande": shrikhande(),
    "plane of order 5": projective_plane(5),
    "plane of order 7": projective_plane(7),
    "many copies": copies(30, 4),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_renaming_symmetric_graphs_changes_nothing(name):
    rng = np.random.default_rng(0)
    matrix = SYMMETRIC[name]
    expected = canonical_matrix(matrix)
    for _ in range(3):
        assert canonical_matrix(relabelled(matrix, rng.permutation(len(matrix)))) == expected


def test_symmetric_graphs_are_told_apart():
    assert len({canonical_matrix(matrix) for matrix in SYMMETRIC.values()}) == len(SYMMETRIC)


@pytest.mark.parametrize("num_colours", [2, 3])
@pytest.mark.parametrize("num_nodes", [3, 4, 5])
def test_equal_exactly_when_some_renaming_maps_one_to_the_other(num_nodes, num_colours):
    rng = np.random.default_rng([num_nodes, num_colours])
    permutations = [np.array(p) for p in itertools.permutations(range(num_nodes))]
    forms: dict[bytes, bytes] = {}
    for _ in range(300):
        matrix = rng.integers(num_colours, size=(num_nodes, num_nodes))
        if rng.random() < 0.5:  # undirected ones have more automorphisms
            matrix = np.maximum(matrix, matrix.T)
        if rng.random() < 0.8:
            np.fill_diagonal(matrix, 0)
        smallest = min(relabelled(matrix, order).tobytes() for order in permutations)
        assert forms.setdefault(smallest, canonical_matrix(matrix)) == canonical_matrix(matrix)
    assert len(set(forms.values())) == len(forms)
