"""Weights as variables of the exported module: names and shapes that the module itself has."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import ComputationGraph, flax_source, from_edges, init_params, unpack_params
from elenas_jax.graphs.export import compiled_construct
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from elenas_jax.graphs.statements import rounded
from elenas_jax.graphs.weights import flax_params, weights_file
from tests.graphs.known_programs import IN, WIDTHS
from tests.graphs.random_graphs import KINDS, Widths, draw

DRAWN_FOR = Widths(WIDTHS["in_features"], WIDTHS["out_features"], WIDTHS["hidden_features"], "linear", None)
RANDOM = draw(17, 6, 0, 12, DRAWN_FOR, True, KINDS)
GRAPHS = {name: KNOWN_BLOCKS[name] for name in ("gru", "elena2", "softmax_attention")}
GRAPHS |= {f"random {place}": ComputationGraph(found.edges) for place, found in enumerate(RANDOM)}


def make(graph, head="linear", **widths):
    """Returns a program and parameters for the widths of `known_programs`, or others."""
    program = jax.device_get(compiled_construct(rounded(graph), head=head, **(WIDTHS | widths)))
    return program, init_params(jax.random.key(1), program)


def module_shapes(graph, head, recurrent, **widths):
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(flax_source(graph, "Block", head=head, **(WIDTHS | widths)), "exported", "exec"), namespace)
    block, x = namespace["Block"](), jnp.zeros((2, 4, widths.get("in_features", IN)))
    if not recurrent:
        return jax.eval_shape(block.init, jax.random.key(0), x)
    carry = block.initialize_carry(jax.random.key(0), x[:, 0].shape)
    return jax.eval_shape(block.init, jax.random.key(0), carry, x[:, 0])


@pytest.mark.parametrize("name", GRAPHS)
def test_variables_are_those_of_the_module(name):
    graph = GRAPHS[name]
    program, params = make(graph)
    variables = flax_params(graph, program, params)
    expected = module_shapes(graph, "linear", bool(program.recurrent))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, expected)


def test_a_width_of_one_is_a_matrix_where_the_module_has_one():
    """What is a row for these widths alone is none in a module whose widths are fields."""
    graph = KNOWN_BLOCKS["gru"]
    program, params = make(graph, "none", hidden_features=1, out_features=1)
    variables = flax_params(graph, program, params)
    expected = module_shapes(graph, "none", True, hidden_features=1, out_features=1)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, expected)
    assert "head" not in variables["params"]


def test_every_number_is_where_its_name_says():
    program, params = make(KNOWN_BLOCKS["elena2"])
    unpacked = unpack_params(program, params)
    found = flax_params(KNOWN_BLOCKS["elena2"], program, params)["params"]
    for node, name in {1: "W1", 3: "b1", 5: "b2", 7: "W2"}.items():
        np.testing.assert_array_equal(np.atleast_2d(found[name]), unpacked[node])
    np.testing.assert_array_equal(found["head"]["kernel"], unpacked["head/kernel"])
    assert found["head"]["bias"].shape == (WIDTHS["out_features"],)


def test_a_file_holds_flat_names_and_no_objects():
    graph = KNOWN_BLOCKS["elena2"]
    program, params = make(graph)
    variables = flax_params(graph, program, params)
    with np.load(io.BytesIO(weights_file(variables)), allow_pickle=False) as file:
        assert set(file) == {"W1", "W2", "b1", "b2", "head/kernel", "head/bias"}
        assert all(file[name].dtype == np.float32 for name in file)
        np.testing.assert_array_equal(file["W2"], variables["params"]["W2"])
        np.testing.assert_array_equal(file["head/kernel"], variables["params"]["head"]["kernel"])


def test_programs_of_other_graphs_are_refused():
    program, params = make(KNOWN_BLOCKS["elena2"])
    with pytest.raises(ValueError, match="not of this graph"):
        flax_params(KNOWN_BLOCKS["lstm"], program, params)
    invalid, params = make(from_edges(3, [(1, 2, "add")]))
    with pytest.raises(ValueError, match="no path from input"):
        flax_params(KNOWN_BLOCKS["lstm"], invalid, params)
