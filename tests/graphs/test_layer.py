"""Blocks as layers: every step's value and all gradients against the reference, and going on from a state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, from_edges
from elenas_jax.graphs.export import parameter_names
from elenas_jax.graphs.layer import make_layer
from tests import reference
from tests.graphs.comparison import KINK, close
from tests.graphs.random_graphs import population

WIDTH, STEPS, EXAMPLES = 5, 6, 3


def layer_of(edges: np.ndarray, seed: int):
    """Returns the layer of a graph, its network, parameters by node and by name, and inputs; or None."""
    graph = ComputationGraph(jnp.asarray(edges))
    network = reference.analyse(
        edges, in_features=WIDTH, out_features=WIDTH, hidden_features=WIDTH, head="linear", time_steps=STEPS
    )
    if network.reason or not (network.recurrent or network.values[network.final][0] == STEPS):
        with pytest.raises(ValueError, match=r"not a valid network|row of a sequence"):
            make_layer(graph, WIDTH, STEPS)
        return None
    rng = np.random.default_rng(seed)
    by_node = {node: np.float64(np.float32(rng.normal(0, 0.5, s))) for node, s in network.parameters.items()}
    names = parameter_names(graph)
    by_name = {names[node]: np.float32(value) for node, value in by_node.items()}
    inputs = np.float32(rng.normal(size=(EXAMPLES, STEPS, WIDTH)))
    identity = {"head/kernel": np.eye(WIDTH), "head/bias": np.zeros(WIDTH)}
    return make_layer(graph, WIDTH, STEPS), network, by_node | identity, by_name, inputs, names


@functools.cache
def layers_of(name, every):
    found = {
        place: layer_of(population(name).drawn[place].edges, place)
        for place in range(0, population(name).num_valid, every)
    }
    return {place: each for place, each in found.items() if each is not None}


def steps_first(array):
    return np.swapaxes(np.asarray(array), 0, 1)


@pytest.mark.parametrize("name", ["extended", "paper"])
def test_layers_equal_the_reference(name):
    compared, layers = 0, layers_of(name, 14)
    with jax.disable_jit():  # a compilation a program would take minutes
        for place, found in layers.items():
            layer, network, by_node, by_name, inputs, names = found
            expected, _ = reference.evaluate(network, by_node, np.float64(inputs))
            (outputs, _), pull = jax.vjp(layer.apply, by_name, jnp.asarray(steps_first(inputs)), {})
            close(f"outputs of {place}", np.float64(steps_first(outputs)), expected, scale=0.01)
            cotangent = np.float32(np.random.default_rng(place).normal(size=expected.shape))
            grads, of_inputs, kink = reference.gradients(
                network, by_node, np.float64(inputs), np.float64(cotangent)
            )
            if kink < KINK:
                continue
            _, last = layer.apply(by_name, jnp.asarray(steps_first(inputs)), {})
            zeros = jax.tree.map(jnp.zeros_like, last)
            found_grads, found_inputs, _ = pull((jnp.asarray(steps_first(cotangent)), zeros))
            scale = 0.01 * max(np.max(np.abs(grad)) for grad in grads.values())
            close(f"inputs of {place}", np.float64(steps_first(found_inputs)), of_inputs, scale)
            for node, label in names.items():
                close(f"{label} of {place}", np.float64(found_grads[label]), grads[node], scale)
            compared += 1
    assert len(layers) >= 12 and compared > 0.8 * len(layers)


@pytest.mark.parametrize("name", ["extended", "paper"])
def test_pieces_of_a_sequence_equal_the_whole(name):
    recurrent = {place: each for place, each in layers_of(name, 28).items() if each[0].is_recurrent}
    pieces = {
        place: [
            make_layer(ComputationGraph(population(name).drawn[place].edges), WIDTH, n) for n in (2, 1, 3)
        ]
        for place in recurrent
    }
    with jax.disable_jit():
        for place, (layer, network, by_node, by_name, inputs, _) in recurrent.items():
            expected, _ = reference.evaluate(network, by_node, np.float64(inputs))
            outputs, state = [], layer.initial_state(EXAMPLES)
            for piece, (first, end) in zip(pieces[place], ((0, 2), (2, 3), (3, STEPS)), strict=True):
                output, state = piece.apply(by_name, jnp.asarray(steps_first(inputs[:, first:end])), state)
                outputs.append(steps_first(output))
            joined = np.float64(np.concatenate(outputs, axis=1))
            close(f"pieces of {place}", joined, expected, scale=0.01)
    assert len(recurrent) >= 5


def test_gradients_stop_at_the_state():
    """The gradients of a second piece are slopes of its own loss, its state held fixed."""
    width, graph = 4, KNOWN_BLOCKS["lstm"]
    whole, piece = make_layer(graph, width, 6), make_layer(graph, width, 3)
    rng = np.random.default_rng(0)
    params = {name: jnp.float32(rng.normal(0, 0.5, shape)) for name, shape in whole.parameters.items()}
    inputs = jnp.float32(rng.normal(size=(6, 2, width)))

    @jax.jit
    def cut(params, inputs):
        _, state = piece.apply(jax.lax.stop_gradient(params), inputs[:3], {})
        return jnp.sum(jnp.sin(piece.apply(params, inputs[3:], state)[0]))

    assert np.allclose(
        cut(params, inputs), jnp.sum(jnp.sin(whole.apply(params, inputs, {})[0][3:])), rtol=1e-5
    )
    grads, of_inputs = jax.grad(cut, argnums=(0, 1))(params, inputs)
    assert np.all(np.asarray(of_inputs[:3]) == 0) and np.all(np.any(np.asarray(of_inputs[3:]) != 0, axis=-1))
    step = 1e-2
    for name in ("W1", "W2"):
        direction = jnp.float32(rng.normal(size=params[name].shape))

        def moved(scale, name=name, direction=direction):
            _, state = piece.apply(params, inputs[:3], {})
            changed = params | {name: params[name] + scale * direction}
            return jnp.sum(jnp.sin(piece.apply(changed, inputs[3:], state)[0]))

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert np.isclose(slope, jnp.sum(grads[name] * direction), rtol=2e-2)


def test_a_block_that_reduces_the_sequence_is_refused():
    pooled = from_edges(5, [(0, 2, "matmul"), (1, 2, "matmul"), (2, 4, "add"), (4, 4, "mean_rows")])
    with pytest.raises(ValueError, match="makes 1 row of a sequence of 6"):
        make_layer(pooled, 4, 6)
