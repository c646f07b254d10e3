"""Canonical forms: equal for the same network up to renaming and dead parts, and only then."""

import hashlib
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs.canonical import (
    _find_network,
    canonical_bytes,
    canonical_graph,
    canonical_hash,
    canonical_renaming,
)
from elenas_jax.graphs.computation import (
    MATMUL,
    RECURSION,
    ComputationGraph,
    from_edges,
    intermediate_nodes,
    pad_graph,
)
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from elenas_jax.graphs.liveness import REASONS, liveness
from elenas_jax.graphs.program import HEADS
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests.graphs.random_graphs import KINDS, Widths, draw, sparse
from tests.reference import analyse, draw_params, evaluate

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
ROOM = 40  # nodes of the matrices that `meaning` is compiled for
_liveness = jax.jit(liveness)
_liveness_of_each = jax.jit(jax.vmap(liveness))


class Meaning(NamedTuple):
    """What a graph means, read off the constructor's liveness; nodes as in the graph."""

    reason: str
    final: int
    transforms: dict[int, int]  # of intermediate nodes
    factors: dict[int, tuple[tuple[int, ...], ...]]  # depending on the input, and not
    others: dict[int, frozenset[tuple[int, int]]]  # (source, code)
    nodes: tuple[int, ...]


def meaning(graph: ComputationGraph, head: str = "linear") -> Meaning:
    live = jax.tree.map(np.asarray, _liveness(pad_graph(graph, ROOM)))
    nodes = tuple(np.flatnonzero(live.network).tolist())
    final = int(live.final)
    transforms, factors, others = {}, {}, {}
    for node in nodes:
        if node == 0 or node % 2 == 1:
            continue
        dropped = node == final and head == "none" and TRANSFORMING[live.edges[node, node]].is_activation
        transforms[node] = 0 if dropped else int(live.edges[node, node])
        codes = {source: int(live.edges[source, node]) for source in nodes if source != node}
        matmul = [source for source, code in codes.items() if code == MATMUL]
        chains = [tuple(s for s in matmul if live.depends_on_input[s] == wanted) for wanted in (True, False)]
        factors[node] = tuple(chains)
        others[node] = frozenset((s, code) for s, code in codes.items() if code not in (0, MATMUL))
    return Meaning(REASONS[live.reason], final, transforms, factors, others, nodes)


def renamed(found: Meaning, names: dict[int, int]) -> Meaning:
    """Applies a renaming to what a graph means."""
    return Meaning(
        found.reason,
        names.get(found.final, -1),
        {names[n]: code for n, code in found.transforms.items()},
        {names[n]: tuple(tuple(names[s] for s in chain) for chain in f) for n, f in found.factors.items()},
        {names[n]: frozenset((names[s], code) for s, code in o) for n, o in found.others.items()},
        tuple(sorted(names[n] for n in found.nodes)),
    )


def feeds_nothing(found: Meaning, node: int) -> bool:
    """Says whether no node reads this one within the step."""
    in_factors = any(node in chain for chains in found.factors.values() for chain in chains)
    return not in_factors and all((node, c) not in o for o in found.others.values() for c in _WITHIN_STEP)


_WITHIN_STEP = [row.code for row in COMBINING[1:] if row.code not in (MATMUL, RECURSION)]


def random_names(found: Meaning, rng: np.random.Generator, most: int = ROOM) -> dict[int, int]:
    """Draws new names that keep kinds, the order of factors, and which node is the final one."""
    for _ in range(10_000):
        odd = iter(rng.permutation(np.arange(1, most, 2)).tolist())
        even = iter(rng.permutation(np.arange(2, most, 2)).tolist())
        names = {n: 0 if n == 0 else next(odd) if n % 2 else next(even) for n in found.nodes}
        # A few swaps mend what a blind draw got wrong.
        for chain in [chain for chains in found.factors.values() for chain in chains] * 3:
            for parity in (0, 1):
                members = [n for n in chain if n % 2 == parity and n]
                names |= dict(zip(members, sorted(names[n] for n in members), strict=True))
        ascending = all(
            names[a] < names[b]
            for f in found.factors.values()
            for chain in f
            for a, b in itertools.pairwise(chain)
        )
        rivals = [n for n in found.transforms if n != found.final and feeds_nothing(found, n)]
        if ascending and all(names[n] < names[found.final] for n in rivals):
            return names
    raise AssertionError("no renaming found")


def build(found: Meaning, num_nodes: int = ROOM) -> np.ndarray:
    """Writes what a graph means as an edge matrix."""
    edges = np.zeros((num_nodes, num_nodes), np.int8)
    for node, code in found.transforms.items():
        edges[node, node] = code
        for source in itertools.chain(*found.factors[node]):
            edges[source, node] = MATMUL
        for source, combining in found.others[node]:
            edges[source, node] = combining
    return edges


def add_dead_parts(edges: np.ndarray, found: Meaning, rng: np.random.Generator) -> np.ndarray:
    """Sets entries that rules (a) to (e) make nothing of; the network stays as it is."""
    spare = [n for n in range(2, len(edges), 2) if n not in found.nodes]
    dead = rng.permutation(spare)[: len(spare) // 2].tolist()
    readers = [n for n in spare if n not in dead]
    edges = edges.copy()
    for target in range(2, len(edges), 2):
        # (a) recursion from initial nodes; (b) nodes without incoming edges, which may feed any node.
        for source in range(1, len(edges), 2):
            if edges[source, target] == 0 and rng.random() < 0.1:
                edges[source, target] = RECURSION
        for source in dead:
            if source != target and (target not in dead or source < target) and rng.random() < 0.2:
                edges[source, target] = rng.integers(1, len(COMBINING))
    edges[spare, spare] = rng.integers(len(TRANSFORMING), size=len(spare))
    # Entries that mean nothing at all.
    edges[:, 0] = rng.integers(len(COMBINING), size=len(edges))
    edges[:, 1::2] = rng.integers(len(COMBINING), size=edges[:, 1::2].shape)
    # (e) nodes that are not ancestors of the final node, where they do not become it.
    for target in readers:
        tried = edges.copy()
        for source in rng.choice(len(edges), 2):
            if source != target:
                tried[source, target] = rng.integers(1, len(COMBINING))
        if meaning(ComputationGraph(tried)) == found:
            edges = tried
    return edges


def random_graphs(seed: int, number: int, num_nodes: int) -> list[ComputationGraph]:
    """Draws graphs that have a final node, most of them with several nodes."""
    rng = np.random.default_rng([seed, num_nodes])
    graphs: list[ComputationGraph] = []
    while len(graphs) < number:
        edges = sparse(num_nodes, rng, extended=True)
        if rng.random() < 0.5:  # prefer operands with a lower index, and chains of them
            edges = np.where(np.tri(num_nodes, k=-1, dtype=bool) & (rng.random(edges.shape) < 0.8), 0, edges)
            edges[0, 2] = rng.integers(1, 4)
        network = _find_network(edges)
        if len(network.nodes) > 2:
            graphs.append(ComputationGraph(edges.astype(np.int8)))
    return graphs


@pytest.mark.parametrize("num_nodes", [3, 6, 11, 32])
def test_the_network_is_that_of_liveness(num_nodes):
    rng = np.random.default_rng(num_nodes)
    graphs = np.zeros((1000, ROOM, ROOM), np.int8)
    for edges in graphs:
        edges[:num_nodes, :num_nodes] = sparse(num_nodes, rng, extended=True)
    graphs[::2, 0, 2] = 3
    graphs[::3, :, 0] = 1  # means nothing, like the next
    graphs[::3, :, 1::2] = 2
    batch = jax.tree.map(np.asarray, _liveness_of_each(ComputationGraph(jnp.asarray(graphs))))
    final_exists = batch.final >= 0
    assert 50 < final_exists.sum() < 1000
    for i, edges in enumerate(graphs):
        network = _find_network(edges)
        np.testing.assert_array_equal(network.nodes, np.flatnonzero(batch.network[i]))
        if not final_exists[i]:
            assert network.reason == batch.reason[i]
            continue
        assert network.reason == 0
        assert network.nodes[network.final] == batch.final[i]
        np.testing.assert_array_equal(network.codes, batch.edges[i][np.ix_(network.nodes, network.nodes)])
        np.testing.assert_array_equal(network.depends_on_input, batch.depends_on_input[i][network.nodes])


@pytest.mark.parametrize("num_nodes", [7, 12, 24])
def test_renaming_and_dead_parts_change_nothing(num_nodes):
    rng = np.random.default_rng(num_nodes)
    for graph in random_graphs(0, 100, num_nodes):
        found = meaning(graph)
        names = random_names(found, rng)
        moved = renamed(found, names)
        edges = build(moved)
        assert meaning(ComputationGraph(edges)) == moved
        edges = add_dead_parts(edges, moved, rng)
        assert meaning(ComputationGraph(edges)) == moved
        for head in HEADS:
            assert canonical_bytes(ComputationGraph(edges), head) == canonical_bytes(graph, head)
            assert canonical_hash(ComputationGraph(edges), head) == canonical_hash(graph, head)
            ours, theirs = canonical_graph(ComputationGraph(edges), head), canonical_graph(graph, head)
            np.testing.assert_array_equal(ours.edges, theirs.edges)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("num_nodes", [7, 12, 32])
def test_the_canonical_graph_is_a_renaming_without_dead_parts_and_its_own(num_nodes, head):
    for graph in random_graphs(1, 100, num_nodes):
        canonical = canonical_graph(graph, head)
        names = canonical_renaming(graph, head)
        found = meaning(canonical, head)
        assert found == renamed(meaning(graph, head), names)
        assert canonical.edges.dtype == np.int8
        np.testing.assert_array_equal(build(found, canonical.num_nodes), canonical.edges)
        assert max(3, max(names.values()) + 1) == canonical.num_nodes <= graph.num_nodes
        again = canonical_graph(canonical, head)
        np.testing.assert_array_equal(again.edges, canonical.edges)
        assert canonical_bytes(canonical, head) == canonical_bytes(graph, head)


def smallest_form(found: Meaning) -> tuple:
    """Tries all renamings; equal exactly for graphs that some renaming maps to each other."""
    forms = []
    initial = [n for n in found.nodes if n % 2 == 1]
    intermediate = list(found.transforms)
    for odd in itertools.permutations(range(1, 2 * len(initial), 2)):
        for even in itertools.permutations(range(2, 2 * len(intermediate) + 1, 2)):
            form = renamed(found, {0: 0} | dict(zip(initial + intermediate, odd + even, strict=True)))
            parts = (form.transforms, form.factors, {n: sorted(o) for n, o in form.others.items()})
            forms.append((form.final, form.nodes, *(sorted(part.items()) for part in parts)))
    return min(forms)


@pytest.mark.parametrize("num_nodes", [5, 6, 7])
def test_equal_exactly_when_some_renaming_maps_one_to_the_other(num_nodes):
    rng = np.random.default_rng(num_nodes)
    hashes: dict[str, str] = {}
    num_graphs = 0
    while num_graphs < 700:
        share = rng.choice([0.2, 0.4, 0.6])
        edges = rng.integers(1, 5, (num_nodes, num_nodes)) * (rng.random((num_nodes, num_nodes)) < share)
        if rng.random() < 0.5:
            edges = np.minimum(edges, 1)  # matmul only: order matters everywhere
        np.fill_diagonal(edges, rng.integers(0, 2, num_nodes))
        edges[:, ~intermediate_nodes(num_nodes)] = 0
        if _find_network(edges.astype(np.int8)).reason:
            continue
        num_graphs += 1
        graph = ComputationGraph(edges.astype(np.int8))
        form = repr(smallest_form(meaning(graph)))
        assert hashes.setdefault(form, canonical_hash(graph)) == canonical_hash(graph)
    assert len(set(hashes.values())) == len(hashes) < num_graphs


@pytest.mark.parametrize("head", HEADS)
def test_equal_hashes_are_equal_functions(head):
    widths = Widths(3, 2, 4, head, 5)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 5, 3))
    outputs: dict[str, np.ndarray] = {}
    num_met_again = 0
    for num_nodes in (5, 7, 11):
        for edges, network in draw(0, 250, 0, num_nodes, widths, extended=True, kinds=KINDS):
            graph = ComputationGraph(edges)
            canonical = analyse(canonical_graph(graph, head).edges, **widths._asdict())
            assert canonical.reason == 0
            # One set of parameters for all graphs with this hash, by canonical nodes.
            digest = canonical_hash(graph, head)
            params = draw_params(canonical, np.random.default_rng(list(bytes.fromhex(digest))))
            names = canonical_renaming(graph, head)
            assert {names[node] for node in network.parameters} == set(canonical.parameters)
            own: dict[Any, np.ndarray] = {node: params[names.get(node, node)] for node in network.parameters}
            own |= {name: value for name, value in params.items() if isinstance(name, str)}
            result, _ = evaluate(network, own, inputs)
            num_met_again += digest in outputs
            outputs.setdefault(digest, evaluate(canonical, params, inputs)[0])
            np.testing.assert_allclose(result, outputs[digest], rtol=1e-9, atol=1e-12)
    assert num_met_again > 30 and len(outputs) > 300


def test_invalid_networks_keep_their_reason():
    widths = Widths(3, 2, 4, "linear", 5)
    reasons = set()
    for edges, network in draw(1, 40, 400, 9, widths, extended=True):
        canonical = canonical_graph(ComputationGraph(edges))
        assert analyse(canonical.edges, **widths._asdict()).reason == network.reason
        reasons.add(network.reason)
    assert len(reasons) > 5


def test_graphs_without_a_final_node_hash_as_their_reason():
    no_path = [from_edges(3, []), from_edges(9, [(1, 2, "add"), (2, 4, "matmul"), (8, 8, "tanh")])]
    no_final = [
        from_edges(5, [(0, 2, "add"), (2, 4, "add"), (4, 2, "add")]),
        from_edges(9, [(0, 8, "matmul"), (1, 8, "matmul"), (8, 6, "add"), (6, 8, "add")]),
    ]
    for head in HEADS:
        for graphs, reason in ((no_path, "no path from input"), (no_final, "no final node")):
            assert len({canonical_bytes(graph, head) for graph in graphs}) == 1
            canonical = canonical_graph(graphs[1], head)
            assert meaning(canonical).reason == reason
            np.testing.assert_array_equal(canonical_graph(canonical, head).edges, canonical.edges)
            assert canonical_bytes(canonical, head) == canonical_bytes(graphs[0], head)
            assert canonical_renaming(graphs[1], head) == {}
        assert canonical_hash(no_path[0], head) != canonical_hash(no_final[0], head)


def test_the_head_decides_on_the_final_activation():
    def block(final: str, hidden: str = "tanh") -> ComputationGraph:
        return from_edges(
            5,
            [
                (0, 2, "matmul"),
                (1, 2, "matmul"),
                (2, 2, hidden),
                (2, 4, "matmul"),
                (3, 4, "matmul"),
                (4, 4, final),
            ],
        )

    for name in ("sigmoid", "tanh", "relu"):
        assert canonical_hash(block(name), "none") == canonical_hash(block("identity"), "none")
        assert canonical_hash(block(name), "linear") != canonical_hash(block("identity"), "linear")
        assert canonical_hash(block("identity", name), "none") != canonical_hash(
            block("identity", "identity"), "none"
        )
        assert canonical_graph(block(name), "none").edges.diagonal().tolist() == [0, 0, 2, 0, 0]
    for name in ("transpose", "softmax", "negate"):
        assert canonical_hash(block(name), "none") != canonical_hash(block("identity"), "none")


def test_the_order_of_factors_counts_and_that_of_summands_does_not():
    def attention(*roles: int) -> ComputationGraph:
        edges = [(0, node, "matmul") for node in (2, 4, 6)] + [
            (node - 1, node, "matmul") for node in (2, 4, 6)
        ]
        return from_edges(
            9, [*edges, (roles[1], roles[1], "transpose"), *((node, 8, "matmul") for node in roles)]
        )

    # The transposed factor stands second in one and third in the other.
    assert canonical_hash(attention(2, 4, 6)) != canonical_hash(attention(2, 6, 4))
    # Parameters stand behind data in a product, whatever their index.
    before = from_edges(5, [(0, 4, "matmul"), (1, 4, "matmul"), (3, 4, "add")])
    behind = from_edges(5, [(0, 4, "matmul"), (3, 4, "matmul"), (1, 4, "add")])
    assert canonical_hash(before) == canonical_hash(behind)


def test_which_of_two_final_nodes_counts_is_kept():
    # Nodes 2 and 4 remember each other; the higher index is the final node, whichever that is.
    def pair(low: str, high: str) -> ComputationGraph:
        edges = [
            (0, 2, "add"),
            (0, 4, "add"),
            (2, 4, "recursion"),
            (4, 2, "recursion"),
            (1, 2, "add"),
            (1, 4, "add"),
        ]
        return from_edges(5, [*edges, (2, 2, low), (4, 4, high)])

    assert canonical_hash(pair("tanh", "relu")) != canonical_hash(pair("relu", "tanh"))
    canonical = canonical_graph(pair("tanh", "relu"))
    assert meaning(canonical).transforms[meaning(canonical).final] == 3


@pytest.mark.parametrize("name", KNOWN_BLOCKS)
def test_known_blocks_keep_their_size(name):
    block = KNOWN_BLOCKS[name]
    for head in HEADS:
        canonical = canonical_graph(block, head)
        assert canonical.num_nodes <= block.num_nodes
        assert len(canonical_renaming(block, head)) == len(_find_network(np.asarray(block.edges)).nodes)
        np.testing.assert_array_equal(canonical_graph(canonical, head).edges, canonical.edges)


def test_known_blocks_differ():
    assert len({canonical_hash(block) for block in KNOWN_BLOCKS.values()}) == len(KNOWN_BLOCKS)


def test_symmetric_parts_are_interchangeable():
    # Ten equal branches tanh(x W + b + c): 10 x 2 x 2 renamings each, and ten biases that all add.
    edges = []
    for branch in range(10):
        node = 2 + 2 * branch
        w, b, c = 1 + 6 * branch, 3 + 6 * branch, 5 + 6 * branch
        edges += [(0, node, "matmul"), (w, node, "matmul"), (b, node, "add"), (c, node, "add")]
        edges += [(node, node, "tanh"), (node, 22, "add"), (61 + 2 * branch, 22, "add")]
    graph = from_edges(81, edges)
    rng = np.random.default_rng(0)
    for _ in range(3):
        names = np.arange(81)
        names[1::2] = rng.permutation(names[1::2])
        names[2:23:2] = rng.permutation(names[2:23:2])
        shuffled = from_edges(81, [(int(names[s]), int(names[t]), name) for s, t, name in edges])
        assert canonical_bytes(shuffled) == canonical_bytes(graph)
    changed = from_edges(81, [*edges[:-1], (79, 22, "hadamard")])
    assert canonical_bytes(changed) != canonical_bytes(graph)


def test_hashes_are_stable():
    """Caches and archives name candidates by these hashes: change them only with a new format byte."""
    edges = [(0, 2, "matmul"), (3, 2, "matmul"), (6, 4, "recursion"), (2, 6, "add"), (4, 6, "add")]
    block = from_edges(7, edges)
    assert canonical_hash(block) == "06b7829aca293d8eee05b5c268752e9a"
    stored = json.loads((GOLDEN / "graphs64.json").read_text())
    graphs = [from_edges(entry["num_nodes"], entry["edges"]) for entry in stored]
    together = "".join(canonical_hash(graph, head) for graph in graphs for head in HEADS)
    assert hashlib.blake2b(together.encode(), digest_size=8).hexdigest() == "21f8293554f7348d"


def test_arrays_of_either_library_give_the_same():
    block = KNOWN_BLOCKS["lstm"]
    assert canonical_bytes(ComputationGraph(jnp.asarray(block.edges))) == canonical_bytes(block)


def test_the_returned_graph_may_be_changed():
    block = KNOWN_BLOCKS["elman"]
    expected = np.array(canonical_graph(block).edges)
    np.asarray(canonical_graph(block).edges)[:] = 0
    np.testing.assert_array_equal(canonical_graph(block).edges, expected)


def test_mistakes_are_reported():
    with pytest.raises(ValueError, match="head is 'both'; allowed are 'none', 'linear'"):
        canonical_hash(KNOWN_BLOCKS["elman"], head="both")
    with pytest.raises(ValueError, match=r"one graph with edges \[M, M\]; got shape \(2, 5, 5\)"):
        canonical_graph(ComputationGraph(np.zeros((2, 5, 5), np.int8)))
