import itertools

import jax
import numpy as np
import pytest

from elenas_jax.graphs import ComputationGraph
from elenas_jax.spaces import make_elenas
from elenas_jax.spaces.elenas_enumeration import enumerate_blocks
from elenas_jax.spaces.elenas_sampling import make_choices


def all_forms(space, choices):
    """Every assignment of every edge, one after another, without any rule."""
    allowed = [codes[valid] for codes, valid in zip(choices.codes, choices.valid_actions)]
    graphs = np.zeros((np.prod([len(each) for each in allowed]), *(choices.num_nodes,) * 2), np.int8)
    for graph, codes in zip(graphs, itertools.product(*allowed)):
        graph[choices.order[:, 0], choices.order[:, 1]] = codes
    status = np.asarray(jax.jit(jax.vmap(space.status))(ComputationGraph(graphs)))
    return {space.canonical(ComputationGraph(graph)) for graph in graphs[status == 0]}


@pytest.mark.parametrize(
    "num_nodes, operations",
    [
        (3, (("none", "matmul", "hadamard", "add", "recursion"), ("identity", "tanh"))),
        (4, (("none", "matmul", "hadamard", "recursion"), ("identity", "tanh", "transpose"))),
        (5, (("none", "matmul", "recursion"), ("identity",))),
        (6, (("none", "matmul"), ("identity",))),
    ],
)
def test_every_block_is_there_once(num_nodes, operations):
    space = make_elenas(num_nodes=num_nodes, operations=operations)
    choices = make_choices(num_nodes, operations)
    blocks = enumerate_blocks(space, choices)
    assert set(blocks) == all_forms(space, choices)
    assert list(blocks) == sorted(blocks)
    for form, edges in blocks.items():
        assert space.canonical(ComputationGraph(edges)) == form


def test_a_large_space_is_refused():
    with pytest.raises(ValueError, match="graphs; at most"):
        enumerate_blocks(make_elenas(num_nodes=16), make_choices(16))
