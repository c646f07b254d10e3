"""The edge matrix: what `from_edges` accepts, and what it says of the rest."""

import numpy as np
import pytest

from elenas_jax.graphs import ComputationGraph, edge_order, from_edges, pad_graph, to_edges
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests.graphs.random_graphs import population


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([(0, 2, "matmull")], r"\(0, 2, 'matmull'\).*not a combining operation.*matmul"),
        ([(0, 2, "tanh")], r"\(0, 2, 'tanh'\).*not a combining operation"),
        ([(2, 2, "matmul")], r"\(2, 2, 'matmul'\).*not a transforming operation.*tanh"),
        ([(0, 6, "add")], r"\(0, 6, 'add'\).*nodes are 0 to 4"),
        ([(-1, 2, "add")], r"\(-1, 2, 'add'\).*nodes are 0 to 4"),
        ([(2, 0, "recursion")], r"\(2, 0, 'recursion'\).*input"),
        ([(0, 0, "identity")], r"\(0, 0, 'identity'\).*input"),
        ([(0, 3, "add")], r"\(0, 3, 'add'\).*initial node"),
        ([(1, 1, "tanh")], r"\(1, 1, 'tanh'\).*initial node"),
        ([(0, 2, "add"), (1, 2, "add"), (0, 2, "matmul")], r"\(0, 2, 'matmul'\).*given before"),
        ([(0, 2, "none"), (0, 2, "matmul")], r"\(0, 2, 'matmul'\).*given before"),
    ],
)
def test_from_edges_says_which_edge_is_wrong_and_what_is_allowed(edges, says):
    with pytest.raises(ValueError, match=says):
        from_edges(5, edges)


@pytest.mark.parametrize("num_nodes", [2, 0, -1])
def test_from_edges_wants_room_for_one_node_of_each_kind(num_nodes):
    with pytest.raises(ValueError, match=f"at least 3 nodes.*{num_nodes}"):
        from_edges(num_nodes, [])


def test_from_edges_knows_every_operation_by_name():
    edges = [(source, 16, row.name) for source, row in enumerate(COMBINING)]
    edges += [(target, target, row.name) for target, row in zip(range(2, 40, 2), TRANSFORMING, strict=False)]
    matrix = np.asarray(from_edges(40, edges).edges)
    assert matrix.dtype == np.int8
    np.testing.assert_array_equal(matrix[: len(COMBINING), 16], [row.code for row in COMBINING])
    np.testing.assert_array_equal(
        matrix.diagonal()[2 : 2 * len(TRANSFORMING) + 1 : 2], [row.code for row in TRANSFORMING]
    )
    assert np.count_nonzero(matrix) == len(COMBINING) - 1 + len(TRANSFORMING) - 1


def test_to_edges_undoes_from_edges():
    for found in population("extended").drawn[::10]:
        edges = to_edges(ComputationGraph(found.edges))
        np.testing.assert_array_equal(from_edges(len(found.edges), edges).edges, found.edges)


def test_an_empty_graph_is_all_none_and_identity():
    graph = from_edges(4, [(0, 2, "none"), (2, 2, "identity")])
    np.testing.assert_array_equal(graph.edges, np.zeros((4, 4)))
    assert graph.num_nodes == 4 and to_edges(graph) == []


def test_pad_graph_keeps_the_edges_and_refuses_to_shrink():
    graph = from_edges(5, [(0, 2, "matmul"), (4, 2, "add"), (1, 4, "add"), (4, 4, "tanh")])
    padded = pad_graph(graph, 8)
    assert padded.num_nodes == 8 and to_edges(padded) == to_edges(graph)
    assert padded.edges.dtype == np.int8
    np.testing.assert_array_equal(pad_graph(graph, 5).edges, graph.edges)
    with pytest.raises(ValueError, match=r"5 nodes.*4"):
        pad_graph(graph, 4)


@pytest.mark.parametrize("num_nodes", [3, 4, 9, 12, 31, 32])
def test_edge_order_has_each_edge_of_the_paper_once(num_nodes):
    order = edge_order(num_nodes)
    m = num_nodes
    assert len(order) == (m * (m - 1) // 2 if m % 2 else m * (m - 2) // 2)
    assert len({tuple(edge) for edge in order.tolist()}) == len(order)
    sources, targets = order.T
    assert set(targets) == set(range(2, m, 2)) and set(sources) == set(range(m))
    # Sub-graphs of five intermediate nodes; inside one target by target, sources ascending, self-edge last.
    sub_graph = (targets // 2 - 1) // 5
    wanted = sorted(order.tolist(), key=lambda e: ((e[1] // 2 - 1) // 5, e[1], e[0] == e[1], e[0]))
    assert np.all(np.diff(sub_graph) >= 0) and order.tolist() == wanted


def test_edge_order_of_the_paper_has_480_steps():
    assert len(edge_order(32)) == 480
