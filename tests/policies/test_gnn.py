"""The graph network, which works by kinds of edges, against itself written edge by edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import convert
from elenas_jax.policies import GraphNetwork
from elenas_jax.spaces import make_elenas
from elenas_jax.spaces.grammar import parse_grammar
from elenas_jax.spaces.grammar_growth import make_grammar_growth
from tests.policies.graphs import padded, random_observation
from tests.policies.test_policies import after_some_training
from tests.reference import gnn

WIDTH, NUM_NODES, NUM_KINDS = 8, 6, 4
MODEL = GraphNetwork(WIDTH, num_rounds=2)


def embedded(observation):
    """Returns the graph with random nodes of the network's width; those of padding are zero."""
    graph = observation.graph
    nodes = np.random.default_rng(1).normal(size=(len(graph.nodes), WIDTH)).astype(np.float32)
    return graph._replace(nodes=jnp.where(convert.valid_nodes(graph)[:, None], nodes, 0.0))


def initial_params(observation):
    return after_some_training(jax.jit(MODEL.init)(jax.random.key(0), embedded(observation), observation))


@pytest.fixture(scope="module")
def params():
    return initial_params(random_observation(0, NUM_NODES, NUM_KINDS, 0.5))


def assert_as_edge_by_edge(params, observation, nodes):
    expected = gnn.graph_network(
        jax.tree.map(np.asarray, params["params"]), np.asarray(embedded(observation).nodes), observation
    )
    np.testing.assert_allclose(nodes, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("padding", [0, 3])
def test_messages_are_those_of_each_edge(params, density, padding):
    apply = jax.jit(MODEL.apply)
    for seed in range(3):
        observation = random_observation(seed, NUM_NODES, NUM_KINDS, density)
        if padding:
            observation = padded(observation, padding, 5)
        nodes = apply(params, embedded(observation), observation).nodes
        assert_as_edge_by_edge(params, observation, nodes)


@pytest.mark.parametrize(
    "growth",
    [make_elenas(num_nodes=8).growth, make_grammar_growth(parse_grammar("S -> add S S | x"), max_rules=6)],
    ids=["elenas", "grammar"],
)
def test_messages_of_spaces_are_those_of_each_edge(growth):
    state, extend = growth.start(jax.random.key(0)), jax.jit(growth.extend)
    for action in (0, 1, 0, 1):
        state = extend(state, jnp.int32(action))
    observation = jax.jit(growth.observe)(state)
    params = initial_params(observation)
    nodes = jax.jit(MODEL.apply)(params, embedded(observation), observation).nodes
    assert_as_edge_by_edge(params, observation, nodes)


def test_padding_changes_no_gradient(params):
    def loss(params, observation):
        nodes = MODEL.apply(params, embedded(observation), observation).nodes[:NUM_NODES]
        return jnp.sum(jnp.sin(nodes) * jnp.arange(1.0, WIDTH + 1))

    gradient = jax.jit(jax.grad(loss))
    observation = random_observation(2, NUM_NODES, NUM_KINDS, 0.4)
    short, long = gradient(params, observation), gradient(params, padded(observation, 3, 5))
    assert all(float(jnp.max(jnp.abs(leaf))) > 0 for leaf in jax.tree.leaves(short))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), short, long)
