"""Known blocks at random places: what they compute does not change."""

import jax
import numpy as np
import pytest

from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, canonical_bytes
from elenas_jax.spaces import make_elenas
from elenas_jax.spaces.elenas_known import known_names
from elenas_jax.spaces.elenas_sampling import make_choices
from elenas_jax.types import OK


def test_blocks_are_those_that_fit():
    assert known_names(make_choices(32)) == ("elman", "lstm", "elena1", "elena2")
    assert set(known_names(make_choices(40, "extended"))) >= {"lstm", "gru", "mgu"}
    assert "lstm" not in known_names(make_choices(16))
    assert known_names(make_choices(16, (("none", "add"), ("identity",)))) == ()


@pytest.fixture(scope="module")
def drawn():
    space = make_elenas(num_nodes=16)
    known = jax.jit(jax.vmap(lambda key: (c := space.known(key), space.status(c))))
    candidates, status = known(jax.random.split(jax.random.key(0), 60))
    return [ComputationGraph(edges) for edges in np.asarray(candidates.edges)], np.asarray(status)


def test_every_second_one_is_a_known_block_and_the_others_are_valid_too(drawn):
    graphs, status = drawn
    assert (status == OK).all()
    blocks = {canonical_bytes(KNOWN_BLOCKS[name]): name for name in known_names(make_choices(16))}
    found = [blocks.get(canonical_bytes(graph)) for graph in graphs]
    assert set(found) == {*blocks.values(), None}
    assert 0.25 < np.mean([name is None for name in found]) < 0.75


def test_a_limit_of_parameters_leaves_larger_blocks_out():
    space = make_elenas(num_nodes=16, max_parameters=2000)  # the Elman network has 4,673
    known = jax.jit(jax.vmap(lambda key: (c := space.known(key), space.status(c))))
    candidates, status = known(jax.random.split(jax.random.key(0), 24))
    assert (status == OK).all()
    forms = {canonical_bytes(ComputationGraph(edges)) for edges in np.asarray(candidates.edges)}
    assert canonical_bytes(KNOWN_BLOCKS["elena2"]) in forms
    assert canonical_bytes(KNOWN_BLOCKS["elman"]) not in forms
    with pytest.raises(ValueError, match="No known recurrent block"):
        make_elenas(num_nodes=16, max_parameters=10).known(jax.random.key(0))


def test_places_differ(drawn):
    graphs, _ = drawn
    of_elman = {
        graph.edges.tobytes()
        for graph in graphs
        if canonical_bytes(graph) == canonical_bytes(KNOWN_BLOCKS["elman"])
    }
    assert len(of_elman) > 3


def test_no_block_is_a_clear_error():
    space = make_elenas(num_nodes=4)
    with pytest.raises(ValueError, match="No known recurrent block"):
        space.known(jax.random.key(0))
