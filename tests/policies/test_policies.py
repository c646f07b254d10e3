"""Graph policies: what padding, order and the sampler's preferences do to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import convert
from elenas_jax.policies import GraphPolicy
from elenas_jax.spaces import make_elenas
from elenas_jax.types import Observation


@pytest.fixture(scope="module")
def growth():
    return make_elenas(num_nodes=8).growth


@pytest.fixture(scope="module")
def state(growth):
    """A graph that is half done."""
    state = growth.start(jax.random.key(0))
    extend = jax.jit(growth.extend)
    for action in (1, 1, 0, 3, 0, 0, 0, 2, 2, 0, 1, 0):
        state = extend(state, action)
    return state


@pytest.fixture(scope="module")
def model(growth):
    return GraphPolicy(growth.num_actions, width=16, num_rounds=2)


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(model.apply)


@pytest.fixture(scope="module")
def observation(growth, state):
    return jax.jit(growth.observe)(state)


@pytest.fixture(scope="module")
def params(model, observation):
    """Parameters as after some training: what starts at zero is not."""
    params = jax.jit(model.init)(jax.random.key(0), observation)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [leaf + 0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def test_a_new_policy_draws_as_the_sampler_does(model, apply, observation):
    logits, baseline = apply(jax.jit(model.init)(jax.random.key(2), observation), observation)
    np.testing.assert_array_equal(logits, observation.graph.globals[0])
    assert float(baseline) == 0.0


def test_padding_changes_nothing(apply, params, observation):
    graph = observation.graph
    padded = convert.pad(graph, graph.nodes.shape[0] + 3, graph.edges.shape[0] + 7)
    padded = padded._replace(nodes=padded.nodes.at[-3:].set(5.0), edges=padded.edges.at[-7:].set(5.0))
    for short, long in zip(
        apply(params, observation),
        apply(params, Observation(padded, observation.focus)),
        strict=True,
    ):
        np.testing.assert_allclose(short, long, rtol=1e-5, atol=1e-6)


def test_padding_needs_a_node(observation):
    graph = observation.graph
    with pytest.raises(ValueError, match="node of its own"):
        convert.pad(graph, graph.nodes.shape[0], graph.edges.shape[0])


def test_names_of_nodes_and_order_of_edges_change_nothing(apply, params, observation):
    graph, focus = observation
    num_nodes, num_edges = graph.nodes.shape[0], graph.edges.shape[0]
    new_name = np.random.default_rng(0).permutation(num_nodes)
    edges = np.random.default_rng(1).permutation(num_edges)
    renamed = graph._replace(
        nodes=graph.nodes[np.argsort(new_name)],
        edges=graph.edges[edges],
        senders=jnp.asarray(new_name)[graph.senders][edges],
        receivers=jnp.asarray(new_name)[graph.receivers][edges],
    )
    for given, other in zip(
        apply(params, observation),
        apply(params, Observation(renamed, jnp.asarray(new_name)[focus])),
        strict=True,
    ):
        np.testing.assert_allclose(given, other, rtol=1e-4, atol=1e-5)


def test_every_feature_matters(model, params, observation):
    def output(nodes, edges):
        graph = observation.graph._replace(nodes=nodes, edges=edges)
        logits, baseline = model.apply(params, observation._replace(graph=graph))
        return jnp.sum(logits[1:] * jnp.arange(1, logits.shape[0])) + baseline

    graph = observation.graph
    by_nodes, by_edges = jax.jit(jax.grad(output, argnums=(0, 1)))(graph.nodes, graph.edges)
    assert np.all(np.any(np.asarray(by_nodes) != 0, axis=0))
    assert np.all(np.any(np.asarray(by_edges) != 0, axis=0))


def test_batches_agree_with_single_observations(model, apply, params, growth, state):
    states = [growth.start(jax.random.key(0)), state]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    batched = jax.jit(jax.vmap(lambda state: model.apply(params, growth.observe(state))))(stacked)
    for row, each in enumerate(states):
        single = apply(params, growth.observe(each))
        for together, alone in zip(batched, single, strict=True):
            np.testing.assert_allclose(together[row], alone, rtol=1e-4, atol=1e-5)
