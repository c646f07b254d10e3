"""Graph policies: what padding, order, features and the sampler's preferences do to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import convert
from elenas_jax.policies import GraphPolicy, PaperPolicy
from elenas_jax.spaces import make_elenas
from tests.policies.graphs import padded, renamed

POLICIES = {
    "graph": lambda num_actions: GraphPolicy(num_actions, width=16, num_rounds=2),
    "paper": lambda num_actions: PaperPolicy(num_actions, width=16, num_layers=2, num_heads=2),
}


def after_some_training(params):
    """Returns parameters of which what starts at zero is not."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [leaf + 0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


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


@pytest.fixture(scope="module", params=POLICIES.values(), ids=POLICIES)
def model(growth, request):
    return request.param(growth.num_actions)


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(model.apply)


@pytest.fixture(scope="module")
def observation(growth, state):
    return jax.jit(growth.observe)(state)


@pytest.fixture(scope="module")
def params(model, observation):
    return after_some_training(jax.jit(model.init)(jax.random.key(0), observation))


def assert_equal_outputs(given, other):
    for one, two in zip(given, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_a_new_policy_draws_as_the_sampler_does(model, apply, observation):
    logits, baseline = apply(jax.jit(model.init)(jax.random.key(2), observation), observation)
    np.testing.assert_array_equal(logits, observation.graph.globals[0])
    assert float(baseline) == 0.0


def test_padding_changes_nothing(apply, params, observation):
    for short, long in zip(apply(params, observation), apply(params, padded(observation, 3, 7)), strict=True):
        np.testing.assert_allclose(short, long, rtol=1e-5, atol=1e-6)


def test_padding_needs_a_node(observation):
    graph = observation.graph
    with pytest.raises(ValueError, match="node of its own"):
        convert.pad(graph, graph.nodes.shape[0], graph.edges.shape[0])


def test_names_of_nodes_and_order_of_edges_change_nothing(apply, params, observation):
    assert_equal_outputs(apply(params, observation), apply(params, renamed(observation)))


def test_every_feature_matters(model, params, observation):
    def output(nodes, kind_features):
        graph = observation.graph
        edges = kind_features[observation.kinds[graph.receivers, graph.senders]]
        changed = observation._replace(
            graph=graph._replace(nodes=nodes, edges=edges), kind_features=kind_features
        )
        logits, baseline = model.apply(params, changed)
        return jnp.sum(logits[1:] * jnp.arange(1, logits.shape[0])) + baseline

    by_nodes, by_kinds = jax.jit(jax.grad(output, argnums=(0, 1)))(
        observation.graph.nodes, jnp.asarray(observation.kind_features)
    )
    assert np.all(np.any(np.asarray(by_nodes) != 0, axis=0))
    assert np.all(np.any(np.asarray(by_kinds) != 0, axis=0))


def test_every_parameter_matters(model, params, observation):
    def output(params):
        logits, baseline = model.apply(params, observation)
        return jnp.sum(logits * jnp.arange(logits.shape[0])) + baseline

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(output))(params)):
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)


def test_batches_agree_with_single_observations(model, apply, params, growth, state):
    states = [growth.start(jax.random.key(0)), state]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    batched = jax.jit(jax.vmap(lambda state: model.apply(params, growth.observe(state))))(stacked)
    for row, each in enumerate(states):
        assert_equal_outputs([leaf[row] for leaf in batched], apply(params, growth.observe(each)))
