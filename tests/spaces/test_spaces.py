"""What holds for every space; the table of spaces is the parameter."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.analysis import draw_block
from elenas_jax.spaces import SPACES
from elenas_jax.types import OK, SearchSpace

SMALL = {
    "einspace": {"max_nodes": 24, "in_shape": (1, 8, 8)},
    "elenas": {"num_nodes": 8, "max_draws": 300},
}
NUM = 24


@pytest.fixture(scope="module", params=list(SPACES))
def space(request) -> SearchSpace:
    return SPACES[request.param](**SMALL[request.param])


@pytest.fixture(scope="module")
def sampled(space):
    return jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), NUM))


@pytest.fixture(scope="module")
def status(space):
    return jax.jit(jax.vmap(space.status))


def unstack(batch):
    return [jax.tree.map(lambda leaf, row=row: leaf[row], batch) for row in range(NUM)]


def test_samples_are_valid_and_differ(space, sampled, status):
    np.testing.assert_array_equal(status(sampled), OK)
    assert len({space.canonical(candidate) for candidate in unstack(sampled)}) > NUM / 2


def test_mutations_are_valid_and_differ_from_their_parents(space, sampled, status):
    mutated = jax.jit(jax.vmap(space.mutate))(jax.random.split(jax.random.key(1), NUM), sampled)
    np.testing.assert_array_equal(status(mutated), OK)
    same = [
        space.canonical(child) == space.canonical(parent)
        for child, parent in zip(unstack(mutated), unstack(sampled), strict=True)
    ]
    assert sum(same) <= 2


def test_crossovers_are_valid(space, sampled, status):
    others = jax.tree.map(lambda leaf: leaf[::-1], sampled)
    crossed = jax.jit(jax.vmap(space.crossover))(jax.random.split(jax.random.key(2), NUM), sampled, others)
    np.testing.assert_array_equal(status(crossed), OK)
    forms = {space.canonical(candidate) for candidate in unstack(sampled)}
    assert any(space.canonical(candidate) not in forms for candidate in unstack(crossed))


def test_same_key_same_candidate(space):
    sample = jax.jit(space.sample)
    jax.tree.map(np.testing.assert_array_equal, sample(jax.random.key(3)), sample(jax.random.key(3)))


def test_json_keeps_candidates(space, sampled):
    for candidate in unstack(sampled)[:6]:
        data = json.loads(json.dumps(space.to_json(candidate)))
        jax.tree.map(np.testing.assert_array_equal, space.from_json(data), candidate)


def test_descriptions_and_drawings_name_the_output(space, sampled):
    for candidate in unstack(sampled)[:6]:
        assert "y" in space.describe(candidate)
        drawing = space.drawing(candidate)
        json.dumps(drawing)
        if "tree" in drawing:  # drawn by the same code
            assert draw_block(drawing["tree"]).startswith("<svg")
        assert sum(node["is_output"] for node in drawing["nodes"]) == 1
        ids = {node["id"] for node in drawing["nodes"]}
        assert {edge[end] for edge in drawing["edges"] for end in ("source", "target")} <= ids


def test_graphs_have_one_shape(space, sampled):
    graphs = jax.jit(jax.vmap(space.to_graph))(sampled)
    num_nodes, num_edges = graphs.nodes.shape[1], graphs.edges.shape[1]
    np.testing.assert_array_equal(graphs.n_node.sum(axis=1), num_nodes)
    np.testing.assert_array_equal(graphs.n_edge.sum(axis=1), num_edges)
    assert bool(jnp.all(graphs.senders < num_nodes))


def test_growth_ends_with_a_candidate_of_the_space(space, status):
    growth = space.growth

    def episode(key):
        state = growth.start(key)

        def step(state, key_step):
            logits = jnp.where(growth.valid_actions(state), 0.0, -jnp.inf)
            done = growth.is_done(state)
            observation = growth.observe(state)
            return growth.extend(state, jax.random.categorical(key_step, logits)), (done, observation)

        state, (done, observations) = jax.lax.scan(step, state, jax.random.split(key, growth.num_steps))
        return growth.candidate(state), growth.is_done(state), done, observations

    candidates, ended, done, observations = jax.jit(jax.vmap(episode))(
        jax.random.split(jax.random.key(4), NUM)
    )
    assert bool(jnp.all(ended)) and not bool(jnp.any(done[:, 0]))
    assert bool(jnp.all((status(candidates) >= OK) & (status(candidates) < len(space.reasons))))
    for leaf in jax.tree.leaves(observations):
        assert bool(jnp.all(jnp.isfinite(leaf)))
