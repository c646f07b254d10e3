"""Masks of actions, and growth in stages: what they forbid, and that nothing is lost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, canonical_bytes, from_edges, pad_graph
from elenas_jax.spaces import make_elenas
from elenas_jax.spaces.elenas_growth import make_growth
from elenas_jax.spaces.elenas_sampling import draw, make_choices
from elenas_jax.types import OK

SMALL = (("none", "matmul", "recursion"), ("identity",))  # five nodes, ten edges, eight that differ


def play(growth, actions, stage=None):
    """Returns the state after actions, and whether each was allowed."""
    state = growth.start(jax.random.key(0)) if stage is None else growth.start(jax.random.key(0), stage)
    step = jax.jit(lambda state, action: (growth.extend(state, action), growth.valid_actions(state)[action]))
    allowed = []
    for action in actions:
        state, ok = step(state, action)
        allowed.append(bool(ok))
    return state, allowed


def action_of(choices, source, target, name):
    codes = {"none": 0, "matmul": 1, "hadamard": 2, "add": 3, "recursion": 4}
    edge = int(np.flatnonzero((choices.order == (source, target)).all(1))[0])
    return edge, int(np.flatnonzero(choices.codes[edge] == codes[name])[0])


def forbidden(growth, choices, edges, source, target, name):
    """Whether an action is forbidden when every edge before it is as in a graph."""
    edge, action = action_of(choices, source, target, name)
    graph = from_edges(choices.num_nodes, edges)
    state = growth.start(jax.random.key(0))
    actions = growth.actions(state, graph)
    state, _ = play(growth, actions[:edge])
    return not bool(growth.valid_actions(state)[action])


@pytest.fixture(scope="module")
def choices():
    return make_choices(8)


@pytest.fixture(scope="module")
def growth(choices):
    return make_growth(choices, masks=True)


def test_cycles_need_a_recursion(growth, choices):
    chain = [(0, 2, "matmul"), (1, 2, "matmul"), (2, 4, "add"), (3, 4, "matmul")]
    assert not forbidden(growth, choices, chain, 2, 4, "add")
    closed = [*chain[:2], (4, 2, "add"), *chain[3:]]
    assert forbidden(growth, choices, closed, 2, 4, "add")
    assert not forbidden(growth, choices, closed, 2, 4, "recursion")
    delayed = [*chain[:2], (4, 2, "recursion"), *chain[3:]]
    assert not forbidden(growth, choices, delayed, 2, 4, "add")
    # Over a third node.
    longer = [(0, 2, "matmul"), (1, 2, "matmul"), (6, 2, "add"), (2, 4, "add")]
    assert forbidden(growth, choices, longer, 4, 6, "hadamard")


def test_recursions_from_initial_nodes_say_nothing_new(growth, choices):
    assert forbidden(growth, choices, [], 1, 2, "recursion")
    assert not forbidden(growth, choices, [], 1, 2, "matmul")
    assert not forbidden(growth, choices, [], 0, 2, "recursion")


def test_the_last_chance_of_the_input_is_taken(growth, choices):
    assert forbidden(growth, choices, [], 0, 6, "none")
    assert not forbidden(growth, choices, [], 0, 4, "none")
    assert not forbidden(growth, choices, [(0, 2, "matmul")], 0, 6, "none")


def test_every_network_can_still_be_built():
    """All graphs of five nodes: networks of valid ones against those along allowed actions."""
    space = make_elenas(num_nodes=5, operations=SMALL)
    masked = make_growth(make_choices(5, SMALL), masks=True)
    start = masked.start(jax.random.key(0))
    free = [step for step, (source, target) in enumerate(make_choices(5, SMALL).order) if source != target]
    actions = np.zeros((3 ** len(free), masked.num_steps), np.int32)
    actions[:, free] = list(itertools.product(range(3), repeat=len(free)))

    def episode(row):
        def step(state, action):
            return masked.extend(state, action), masked.valid_actions(state)[action]

        final, allowed = jax.lax.scan(step, start, row)
        return final.edges, jnp.all(allowed), space.status(masked.candidate(final))

    edges, allowed, status = (np.asarray(leaf) for leaf in jax.jit(jax.vmap(episode))(actions))
    valid = status == OK

    def networks(chosen):
        return {canonical_bytes(ComputationGraph(each)) for each in edges[chosen]}

    assert (valid & ~allowed).sum() > 0
    assert networks(valid) == networks(valid & allowed)
    assert (valid & allowed).sum() / allowed.sum() > 1.3 * valid.mean()


def test_actions_build_their_candidate_in_any_order():
    choices = make_choices(8)
    for order in ("subgraphs", "random"):
        growth = make_growth(choices, order=order)
        state = growth.start(jax.random.key(3))
        graph = draw(choices, jax.random.key(1))
        for action in growth.actions(state, graph):
            state = growth.extend(state, action)
        np.testing.assert_array_equal(growth.candidate(state).edges, graph.edges)


def test_stages_leave_nodes_beyond_them_empty():
    choices = make_choices(8)
    growth = make_growth(choices, stages=(4, 6, 8))
    assert growth.num_stages == 3 and growth.num_steps == choices.num_steps
    extend = jax.jit(growth.extend)
    for stage, (nodes, steps) in enumerate([(4, 4), (6, 12), (8, choices.num_steps)]):
        state = growth.start(jax.random.key(0), stage)
        taken = 0
        while not bool(growth.is_done(state)):
            state = extend(state, 1)
            taken += 1
        assert taken == steps
        used = np.argwhere(np.asarray(state.edges))
        assert used.max() < nodes and len(used) == steps
        after = extend(state, 2)
        np.testing.assert_array_equal(after.edges, state.edges)


def test_a_block_of_a_stage_is_built_by_its_actions():
    growth = make_growth(make_choices(12), stages=(8, 12))
    block = pad_graph(KNOWN_BLOCKS["elman"], 12)
    state = growth.start(jax.random.key(0), 0)
    for action in growth.actions(state, block):
        state = growth.extend(state, action)
    np.testing.assert_array_equal(state.edges, block.edges)


@pytest.mark.parametrize("stages", [(2, 8), (8, 4), (4, 6), (4, 4, 8)])
def test_wrong_stages_are_named(stages):
    with pytest.raises(ValueError, match="stages"):
        make_elenas(num_nodes=8, stages=stages)
