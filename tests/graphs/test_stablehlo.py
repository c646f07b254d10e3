"""Serialised networks against the interpreter, at sizes that serialising did not know.

That they run without this package is tested with all else that is exported, in `test_exporting`.
"""

import jax
import numpy as np
import pytest
from jax import export

from elenas_jax.graphs import ComputationGraph, from_edges, init_params, pack_params
from elenas_jax.graphs.export import compiled_construct
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from elenas_jax.graphs.stablehlo import PLATFORMS, stablehlo
from elenas_jax.graphs.statements import rounded
from tests import reference
from tests.graphs.known_programs import IN, OUT, WIDTHS
from tests.graphs.random_graphs import KINDS, Widths, draw, kind

# h = mean_rows(x^T W1); y = h W2, as in test_export
OF_ONE_LENGTH = [(0, 2, "add"), (2, 2, "transpose"), (2, 4, "matmul"), (1, 4, "matmul"), (4, 4, "mean_rows")]
OF_ONE_LENGTH += [(3, 6, "matmul"), (4, 6, "matmul")]


def make(graph, head="linear", **widths):
    program = compiled_construct(rounded(graph), head=head, **(WIDTHS | widths))
    return jax.device_get(program)


def compare(program, network, lengths, seed):
    """Serialises once, runs batches of several sizes."""
    rng = np.random.default_rng(seed)
    params = reference.draw_params(network, rng)
    data = stablehlo(program, pack_params(program, params))
    loaded = export.deserialize(bytearray(data))
    for num, length in enumerate(lengths, 1):
        inputs = rng.normal(size=(num, length, IN))
        expected, _ = reference.evaluate(network, params, inputs)
        found = loaded.call(inputs.astype(np.float32))
        assert found.shape == expected.shape
        largest = max(1.0, float(np.max(np.abs(expected))))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * largest)
    return loaded


def test_random_networks_equal_the_reference_for_any_batch_and_length():
    widths = Widths(IN, OUT, WIDTHS["hidden_features"], "linear", None)
    drawn = draw(19, 8, 0, 12, widths, True, KINDS)
    assert {kind(found.network) for found in drawn} == set(KINDS)
    for place, found in enumerate(drawn):
        graph = ComputationGraph(found.edges)
        loaded = compare(make(graph), found.network, (1, 4), place)
        assert loaded.platforms == PLATFORMS


def test_a_network_of_one_length_takes_that_length():
    graph = from_edges(7, OF_ONE_LENGTH)
    network = reference.analyse(graph.edges, **WIDTHS, head="linear", time_steps=4)
    program = make(graph, time_steps=4)
    loaded = compare(program, network, (4,), 0)
    with pytest.raises(ValueError, match="4"):
        loaded.call(np.zeros((2, 5, IN), np.float32))


def test_a_recurrent_network_takes_any_length_whatever_it_was_constructed_for():
    network = reference.analyse(KNOWN_BLOCKS["elena2"].edges, **WIDTHS, head="none", time_steps=4)
    program = make(KNOWN_BLOCKS["elena2"], head="none", time_steps=4)
    compare(program, network, (3, 6), 0)


def test_what_is_no_network_is_refused():
    program = make(from_edges(3, [(1, 2, "add")]))
    with pytest.raises(ValueError, match="no path from input"):
        stablehlo(program, init_params(jax.random.key(0), program))
