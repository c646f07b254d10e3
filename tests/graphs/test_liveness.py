"""Which part of a graph is the network: rules (a) to (e), one by one and on random graphs."""

import jax
import numpy as np
import pytest

from elenas_jax.graphs import REASONS, ComputationGraph, explain, from_edges, liveness
from tests import reference
from tests.graphs.random_graphs import population

XW = [(0, 2, "matmul"), (1, 2, "matmul")]  # node 2 is x W

# name: nodes, edges, reason, nodes of the network
RULES = {
    "nothing": (3, [], 1, set()),
    "input_unused": (5, [(1, 2, "matmul"), (2, 4, "add")], 1, set()),
    "a_recursion_from_initial_is_none": (5, [*XW, (3, 2, "recursion")], 0, {0, 1, 2}),
    "a_leaves_a_node_without_edges": (5, [*XW, (3, 4, "recursion"), (4, 2, "add")], 0, {0, 1, 2}),
    "b_cascades": (9, [*XW, (4, 6, "add"), (6, 8, "hadamard"), (8, 2, "add")], 0, {0, 1, 2}),
    "b_spares_cycles": (7, [*XW, (4, 6, "add"), (6, 4, "recursion"), (6, 2, "add")], 0, {0, 1, 2, 4, 6}),
    "b_counts_recursion_as_incoming": (5, [*XW, (0, 4, "recursion"), (4, 2, "add")], 0, {0, 1, 2, 4}),
    "b_self_edge_is_no_incoming_edge": (5, [*XW, (4, 4, "tanh"), (4, 2, "add")], 0, {0, 1, 2}),
    "c_final_needs_a_path_from_the_input": (
        9,
        [*XW, (1, 4, "add"), (3, 4, "add"), (5, 4, "add"), (7, 4, "matmul")],
        0,
        {0, 1, 2},
    ),
    "c_path_may_be_a_recursion": (5, [(0, 4, "recursion"), (1, 4, "add")], 0, {0, 1, 4}),
    "c_outgoing_recursion_does_not_count": (5, [*XW, (2, 4, "recursion"), (4, 2, "add")], 0, {0, 1, 2, 4}),
    "c_whoever_feeds_is_not_final": (5, [*XW, (2, 4, "add")], 0, {0, 1, 2, 4}),
    "c_whoever_feeds_its_own_past_is_not_final": (
        5,
        [*XW, (2, 4, "add"), (4, 2, "recursion")],
        0,
        {0, 1, 2, 4},
    ),
    "d_most_ancestors": (7, [*XW, (3, 2, "add"), (0, 6, "add"), (5, 6, "add")], 0, {0, 1, 2, 3}),
    "d_ties_go_to_the_higher_index": (7, [*XW, (0, 6, "add"), (3, 6, "add")], 0, {0, 3, 6}),
    "d_counts_recursion_edges": (
        9,
        [*XW, (3, 2, "add"), (0, 6, "recursion"), (5, 6, "add"), (8, 6, "recursion"), (7, 8, "add")],
        0,
        {0, 5, 6, 7, 8},
    ),
    "d_never_counts_the_node_itself": (
        # 2 has ancestors 0, 1, 4 (and itself through 4); 8 has 0, 3, 5 and wins the tie.
        9,
        [*XW, (4, 2, "add"), (2, 4, "recursion"), *((s, 8, "add") for s in (0, 3, 5))],
        0,
        {0, 3, 5, 8},
    ),
    "e_loser_stays_as_an_ancestor": (
        # 6 loses against 2, which reads its previous value.
        7,
        [*XW, (3, 2, "add"), (0, 6, "add"), (6, 2, "recursion")],
        0,
        {0, 1, 2, 3, 6},
    ),
    "e_an_ancestor_needs_no_path": (5, [*XW, (3, 4, "matmul"), (4, 2, "add")], 0, {0, 1, 2, 3, 4}),
    "no_final": (5, [(0, 2, "add"), (2, 4, "add"), (4, 2, "add")], 2, set()),
    "f_illegitimate": (7, [(0, 2, "add"), (2, 4, "add"), (4, 2, "add"), (4, 6, "add")], 3, {0, 2, 4, 6}),
    "f_illegitimate_outside_the_network_is_nothing": (
        # 4 and 6 turn in a circle that only 8 reads, and 8 loses.
        11,
        [*XW, *((s, 2, "add") for s in (3, 5, 7, 9)), (0, 4, "add"), (4, 6, "add"), (6, 4, "add"),
         (6, 8, "add")],
        0,
        {0, 1, 2, 3, 5, 7, 9},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return jax.jit(liveness)


def padded(num_nodes, edges):
    matrix = np.zeros((12, 12), np.int8)
    matrix[:num_nodes, :num_nodes] = from_edges(num_nodes, edges).edges
    return matrix


@pytest.mark.parametrize("name", RULES)
def test_rules(name, run):
    num_nodes, edges, reason, network = RULES[name]
    matrix = padded(num_nodes, edges)
    expected = reference.analyse(matrix, in_features=3, out_features=3)
    assert set(expected.live) == network
    assert expected.reason == reason or (reason == 0 and expected.reason > 3)  # shapes are not the point here
    found = run(ComputationGraph(matrix))
    assert explain(found.reason) == REASONS[reason]
    assert set(np.flatnonzero(found.network)) == network
    assert int(found.final) == expected.final


@pytest.mark.parametrize("name", ["paper", "extended"])
def test_equals_the_reference_on_random_graphs(name):
    drawn = population(name)
    found = jax.device_get(jax.jit(jax.vmap(lambda edges: liveness(ComputationGraph(edges))))(drawn.edges))
    for place, (edges, expected) in enumerate(drawn.drawn):
        assert found.reason[place] == (expected.reason if expected.reason <= 3 else 0)
        assert found.final[place] == expected.final
        assert set(np.flatnonzero(found.network[place])) == expected.live
        if expected.final < 0:
            continue
        assert bool(found.recurrent[place]) == expected.recurrent
        depends = np.flatnonzero(found.depends_on_input[place] & found.network[place])
        assert set(depends) - {0} == expected.depends_on_input
        live = found.network[place]
        operands = np.array(edges) * (live[:, None] & live[None, :])
        np.fill_diagonal(operands, np.diagonal(edges) * live)
        operands[1::2][operands[1::2] == 4] = 0  # (a)
        np.testing.assert_array_equal(found.edges[place], operands)


def test_columns_of_the_input_and_of_initial_nodes_mean_nothing(run):
    rng = np.random.default_rng(0)
    meaningless = (np.arange(12) == 0) | (np.arange(12) % 2 == 1)
    for found in population("paper").drawn[::25]:
        noise = np.where(meaningless, rng.integers(0, 5, (12, 12)), 0).astype(np.int8)
        clean, noisy = run(ComputationGraph(found.edges)), run(ComputationGraph(found.edges + noise))
        jax.tree.map(np.testing.assert_array_equal, clean, noisy)


def test_explain_refuses_what_is_no_reason():
    assert [explain(status) for status in range(len(REASONS))] == list(REASONS) == list(reference.REASONS)
    with pytest.raises(ValueError, match="10"):
        explain(10)
    with pytest.raises(ValueError, match="-1"):
        explain(-1)
