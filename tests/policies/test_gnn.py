"""The graph network, which works by kinds of edges, against itself written edge by edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.policies import GraphNetwork
from tests.policies.graphs import padded, random_observation
from tests.policies.test_policies import after_some_training
from tests.reference import gnn

WIDTH, NUM_NODES, NUM_KINDS = 8, 6, 4
MODEL = GraphNetwork(WIDTH, num_rounds=2)


def embedded(observation):
    """Returns the graph with random nodes of the network's width; those of padding are zero."""
    nodes = np.zeros((len(observation.graph.nodes), WIDTH), np.float32)
    nodes[:NUM_NODES] = np.random.default_rng(1).normal(size=(NUM_NODES, WIDTH))
    return observation.graph._replace(nodes=jnp.asarray(nodes))


@pytest.fixture(scope="module")
def params():
    observation = random_observation(0, NUM_NODES, NUM_KINDS, 0.5)
    return after_some_training(MODEL.init(jax.random.key(0), embedded(observation), observation))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("padding", [0, 3])
def test_messages_are_those_of_each_edge(params, density, padding):
    apply = jax.jit(MODEL.apply)
    for seed in range(3):
        observation = random_observation(seed, NUM_NODES, NUM_KINDS, density)
        if padding:
            observation = padded(observation, padding, 5)
        graph = embedded(observation)
        expected = gnn.graph_network(
            jax.tree.map(np.asarray, params["params"]), np.asarray(graph.nodes), observation
        )
        nodes = apply(params, graph, observation).nodes
        np.testing.assert_allclose(nodes, expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_no_gradient(params):
    def loss(params, observation):
        nodes = MODEL.apply(params, embedded(observation), observation).nodes[:NUM_NODES]
        return jnp.sum(jnp.sin(nodes) * jnp.arange(1.0, WIDTH + 1))

    gradient = jax.jit(jax.grad(loss))
    observation = random_observation(2, NUM_NODES, NUM_KINDS, 0.4)
    short, long = gradient(params, observation), gradient(params, padded(observation, 3, 5))
    assert all(float(jnp.max(jnp.abs(leaf))) > 0 for leaf in jax.tree.leaves(short))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), short, long)
