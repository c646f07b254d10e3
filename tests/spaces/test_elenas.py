"""The ELENAS space: its sampler, its growth, its shaping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import (
    KNOWN_BLOCKS,
    ComputationGraph,
    canonical_hash,
    edge_order,
    from_edges,
    liveness,
    num_parameters,
    pad_graph,
)
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS
from elenas_jax.ops import COMBINING_BY_NAME
from elenas_jax.spaces import make_elenas
from elenas_jax.spaces.elenas import from_json, to_json
from elenas_jax.spaces.elenas_growth import make_growth
from elenas_jax.spaces.elenas_sampling import (
    actions_from_graph,
    change,
    draw,
    graph_from_actions,
    make_choices,
)
from elenas_jax.spaces.elenas_shaping import ShapingWeights, shaping_weights
from elenas_jax.tasks import make_task
from elenas_jax.types import NOT_EVALUATED, OK, Evaluation


@pytest.fixture(scope="module")
def space():
    return make_elenas(num_nodes=12)


def evaluation(status: int = NOT_EVALUATED, metrics=(np.nan, np.nan)) -> Evaluation:
    return Evaluation(
        score=jnp.float32(0.0),
        metrics=jnp.array(metrics),
        status=jnp.int32(status),
        parameters=jnp.int32(0),
        flops=jnp.float32(0.0),
        train_steps=jnp.int32(0),
        seconds=jnp.float32(0.0),
    )


def grown(growth, choices, graph, num_steps=None):
    """Returns the states before and after the last of the steps that build a graph."""
    state = growth.start(jax.random.key(0))
    before = state
    for action in actions_from_graph(choices, graph)[:num_steps]:
        before, state = state, growth.extend(state, action)
    return before, state


def test_none_is_drawn_nine_times_in_ten_at_full_size():
    choices = make_choices(32)
    combining = choices.order[:, 0] != choices.order[:, 1]
    assert 0.88 < choices.probabilities[combining, 0].mean() < 0.95


def test_drawing_follows_the_probabilities():
    choices = make_choices(8)
    graphs = jax.jit(jax.vmap(lambda key: draw(choices, key)))(jax.random.split(jax.random.key(0), 4000))
    actions = jax.vmap(lambda graph: actions_from_graph(choices, graph))(graphs)
    shares = np.asarray(jax.nn.one_hot(actions, choices.num_actions).mean(axis=0))
    np.testing.assert_allclose(shares, choices.probabilities, atol=0.04)
    assert not np.any(shares[choices.probabilities == 0.0])


def test_share_of_valid_draws_and_of_recurrent_ones(space):
    choices = make_choices(12)
    graphs = jax.jit(jax.vmap(lambda key: draw(choices, key)))(jax.random.split(jax.random.key(1), 500))
    valid = np.asarray(jax.jit(jax.vmap(space.status))(graphs)) == OK
    recurrent = np.asarray(jax.jit(jax.vmap(lambda graph: liveness(graph).recurrent))(graphs))
    assert 0.1 < valid.mean() < 0.4
    assert recurrent[valid].mean() > 0.4


def test_actions_build_any_graph():
    choices = make_choices(32, "extended")
    graph = pad_graph(KNOWN_BLOCKS["gru"], 32)
    np.testing.assert_array_equal(
        graph_from_actions(choices, actions_from_graph(choices, graph)).edges, graph.edges
    )


@pytest.mark.parametrize("order", ["subgraphs", "random"])
def test_growth_replays_any_graph(order):
    choices = make_choices(9)
    growth = make_growth(choices, order=order)
    extend = jax.jit(growth.extend)
    graph = draw(choices, jax.random.key(3))
    actions = actions_from_graph(choices, graph)
    state = growth.start(jax.random.key(4))
    for step in range(growth.num_steps):
        assert not bool(growth.is_done(state))
        place = int(np.argmax(np.asarray(state.rank) == step))
        np.testing.assert_array_equal(growth.observe(state).focus, edge_order(9)[place])
        state = extend(state, actions[place])
    assert bool(growth.is_done(state))
    np.testing.assert_array_equal(growth.candidate(state).edges, graph.edges)
    np.testing.assert_array_equal(extend(state, 1).edges, graph.edges)  # after the end nothing changes


def test_random_orders_differ_between_episodes():
    growth = make_growth(make_choices(6), order="random")
    ranks = [np.asarray(growth.start(jax.random.key(seed)).rank) for seed in range(2)]
    assert not np.array_equal(*ranks)
    assert all(sorted(rank) == list(range(growth.num_steps)) for rank in ranks)


def test_surplus_and_codes_that_are_not_drawn_are_masked():
    operations = (("none", "add", "recursion"), ("identity", "sigmoid", "tanh", "relu"))
    choices = make_choices(5, operations)
    assert choices.num_actions == 4
    is_self = choices.order[:, 0] == choices.order[:, 1]
    np.testing.assert_array_equal(choices.valid_actions.sum(axis=1), np.where(is_self, 4, 3))
    assert set(choices.codes[~is_self][choices.valid_actions[~is_self]]) == {0, 3, 4}


def test_mutation_draws_only_what_the_config_names():
    operations = (("none", "matmul", "add"), ("identity", "tanh"))
    space = make_elenas(num_nodes=8, operations=operations, max_draws=100)
    child = jax.jit(lambda key: space.mutate(key, space.sample(key)))(jax.random.key(0))
    names = {name for _, _, name in to_json(child)["edges"]}
    assert names <= {"matmul", "add", "tanh"}


def test_draws_and_mutations_keep_to_a_limit_of_parameters():
    limit, sizes = 300, {"hidden_features": 16, "head": "linear"}
    free, limited = (make_elenas(num_nodes=10, max_parameters=most, **sizes) for most in (0, limit))
    drawn = jax.jit(jax.vmap(limited.sample))(jax.random.split(jax.random.key(0), 48))
    children = jax.jit(jax.vmap(limited.mutate))(jax.random.split(jax.random.key(1), 48), drawn)
    others = jax.jit(jax.vmap(free.sample))(jax.random.split(jax.random.key(0), 48))
    status = jax.jit(jax.vmap(limited.status))

    def most_parameters(graphs):
        counts = [
            num_parameters(
                construct_batch(graphs, in_features=inputs, out_features=1, time_steps=32, **sizes)
            )
            for inputs in (7, 2)
        ]
        return np.max(counts, axis=0)

    for graphs in (drawn, children):
        assert (status(graphs) == OK).all() and most_parameters(graphs).max() <= limit
    too_many = most_parameters(others) > limit
    assert 0 < too_many.sum() < 48
    np.testing.assert_array_equal(status(others), np.where(too_many, TOO_MANY_PARAMETERS, OK))
    assert limited.reasons[TOO_MANY_PARAMETERS] == "too many parameters"


def test_a_change_is_one_to_most_edges():
    choices = make_choices(8)
    graph = draw(choices, jax.random.key(0))
    changed = jax.jit(jax.vmap(lambda key: change(choices, key, graph, 3)))(
        jax.random.split(jax.random.key(1), 200)
    )
    counts = np.asarray((changed.edges != graph.edges).sum(axis=(1, 2)))
    assert set(counts) <= {0, 1, 2, 3}  # an edge may be changed back
    assert {1, 2, 3} <= set(counts) and (counts == 0).mean() < 0.05


def test_status_is_of_all_tasks():
    # A recursion into the input's own width fits each task; a sum with another width does not.
    fits_seven = from_edges(5, [(0, 2, "matmul"), (1, 2, "matmul"), (3, 2, "matmul")])
    statuses = {
        signatures: int(make_elenas(num_nodes=5, signatures=signatures).status(fits_seven))
        for signatures in (((7, 1, 32),), ((2, 1, 32),), ((7, 1, 32), (2, 1, 32)))
    }
    assert set(statuses.values()) == {OK}
    # x^T W W': (in, T) matrices; the head needs T or 1 rows.
    rows_of_input = from_edges(5, [(0, 2, "add"), (2, 2, "transpose"), (2, 4, "matmul"), (1, 4, "matmul")])
    square = make_elenas(num_nodes=5, signatures=((32, 1, 32),))
    ladder = make_elenas(num_nodes=5, signatures=((32, 1, 32), (7, 1, 32)))
    assert int(square.status(rows_of_input)) == OK
    assert int(ladder.status(rows_of_input)) != OK


def test_build_predicts_with_the_last_row(space):
    task = make_task("reber", train_samples=64, valid_samples=32)
    graph = pad_graph(KNOWN_BLOCKS["elman"], 12)
    network = space.build(graph, task)
    params, state = network.init(jax.random.key(0))
    batch = task.sample(jax.random.key(1), 4)
    outputs, state = network.apply(params, state, batch.inputs, train=True)
    assert outputs.shape == (4, task.out_features) and state == {}
    # Equal canonical form, equal bits, whatever the candidate looked like.
    padded = space.build(pad_graph(graph, 20), task)
    params_padded, _ = padded.init(jax.random.key(0))
    np.testing.assert_array_equal(padded.apply(params_padded, {}, batch.inputs)[0], outputs)


def test_build_says_why_it_cannot(space):
    with pytest.raises(ValueError, match="no path from input"):
        space.build(from_edges(5, []), make_task("reber"))


def test_json_errors():
    graph = from_edges(5, [(0, 2, "matmul"), (2, 2, "tanh")])
    assert to_json(graph) == {"num_nodes": 5, "edges": [[0, 2, "matmul"], [2, 2, "tanh"]]}
    for data, message in (
        ([], "num_nodes"),
        ({"num_nodes": 5}, "edges"),
        ({"num_nodes": "5", "edges": []}, "whole number"),
        ({"num_nodes": 100_000_000, "edges": []}, "is 100000000; it must be 1024 at most"),
        ({"num_nodes": 5, "edges": 3}, "list"),
        ({"num_nodes": 5, "edges": [[0, 2]]}, "source, target"),
        ({"num_nodes": 5, "edges": [[0, 2, "plus"]]}, "allowed are"),
        ({"num_nodes": 5, "edges": [[0, 1, "add"]]}, "initial node"),
    ):
        with pytest.raises(ValueError, match=message):
            from_json(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": "all"}, "'paper'"),
        ({"operations": (("none", "plus"), ("identity",))}, "plus"),
        ({"operations": (("matmul",), ("identity",))}, "none"),
        ({"incoming": {"sideways": {}}}, "sideways"),
        ({"incoming": {"input": {"none": 1.0}}}, "none"),
        ({"incoming": {"input": {"add": -1.0}}}, "negative"),
        ({"transforms": {"tan": 1.0}}, "tan"),
        ({"order": "backwards"}, "backwards"),
        ({"shaping": {"excesss": 1.0}}, "excesss"),
        ({"signatures": ()}, "signatures"),
        ({"num_nodes": 2}, "num_nodes"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_elenas(**settings)


def test_drawing_shows_the_network_alone():
    # Node 6 is dead, node 3 unused.
    graph = from_edges(8, [(0, 2, "matmul"), (1, 2, "matmul"), (5, 2, "add"), (2, 2, "tanh"), (6, 2, "none")])
    drawing = make_elenas(num_nodes=8).drawing(graph)
    assert [(node["id"], node["kind"], node["label"]) for node in drawing["nodes"]] == [
        (0, "input", "x"),
        (1, "initial", "W1"),
        (2, "intermediate", "tanh"),
        (5, "initial", "b1"),
    ]
    assert {(edge["source"], edge["operation"]) for edge in drawing["edges"]} == {
        (0, "matmul"),
        (1, "matmul"),
        (5, "add"),
    }
    assert [row["label"] for row in drawing["legend"]] == ["matmul", "add", "tanh"]


def test_observation_of_a_small_graph():
    choices = make_choices(7)
    growth = make_growth(choices)
    # 1 feeds 2, which has a path from the input; 4 has none, and holds a previous value of itself's twin 6.
    graph = from_edges(
        7, [(0, 2, "matmul"), (1, 2, "matmul"), (3, 4, "add"), (6, 4, "recursion"), (5, 6, "recursion")]
    )
    _, state = grown(growth, choices, graph)
    observed = growth.observe(state).graph
    unused, dead, holds_previous = np.asarray(observed.nodes[:, -3:]).T.astype(bool)
    np.testing.assert_array_equal(np.flatnonzero(unused), [5])  # a recursion from a parameter is none
    np.testing.assert_array_equal(np.flatnonzero(dead), [3, 4, 5, 6])
    np.testing.assert_array_equal(np.flatnonzero(holds_previous), [4])
    num_edges, num_turned = 3 * 7, 3 * 4
    assert observed.edges.shape[0] == num_edges + num_turned
    backward = np.asarray(observed.edges[:, -1]).astype(bool)
    np.testing.assert_array_equal(np.flatnonzero(backward), np.arange(num_edges, num_edges + num_turned))
    assert set(np.asarray(observed.receivers)[backward]) == {0, 1, 3, 5}
    assert np.asarray(observed.edges[:, -2]).all()  # all predicted
    np.testing.assert_array_equal(np.asarray(observed.edges[:, :10]).sum(axis=1), 1.0)
    _, state = grown(growth, choices, graph, num_steps=3)
    assert np.asarray(growth.observe(state).graph.edges[:num_edges, -2]).sum() == 3


def test_observations_are_one_graph_told_twice():
    growth = make_elenas(num_nodes=8).growth
    state = growth.start(jax.random.key(0))
    observe, extend = jax.jit(growth.observe), jax.jit(growth.extend)
    for action in (1, 1, 0, 3, 0, 0, 2, 1):
        state = extend(state, action)
        observation = observe(state)
        graph, num_kinds = observation.graph, len(observation.kind_features)
        kinds = np.full((8, 8), num_kinds)
        kinds[graph.receivers, graph.senders] = observation.edge_kinds
        np.testing.assert_array_equal(observation.kinds, kinds)
        np.testing.assert_array_equal(graph.edges, observation.kind_features[observation.edge_kinds])


@pytest.mark.parametrize("positions", [True, False])
def test_positions_alone_tell_nodes_of_one_kind_apart(positions):
    growth = make_growth(make_choices(9), positions=positions)
    nodes = np.asarray(growth.observe(growth.start(jax.random.key(0))).graph.nodes)
    parameters, computed = nodes[1::2], nodes[2::2]
    for same in (parameters, computed):
        assert len(np.unique(same, axis=0)) == (len(same) if positions else 1)
    assert (parameters[0] != computed[0]).any()


def test_shaping_weights_default_to_the_paper():
    nonzero = {name: weight for name, weight in ShapingWeights()._asdict().items() if weight}
    assert nonzero == {"excess": 0.001, "first_task_missed": 0.01}


@pytest.mark.parametrize("code", ["matmul", "hadamard", "add", "recursion"])
def test_excess_counts_from_the_third_edge_of_a_type(code):
    choices = make_choices(9)
    growth = make_growth(choices)
    action = COMBINING_BY_NAME[code].code
    free = 1 if code == "recursion" else 2
    state = growth.start(jax.random.key(0))
    rewards = []
    for step in range(9):  # all edges into node 2, the self-edge last
        after = growth.extend(state, action if step < 8 else 1)
        rewards.append(float(growth.shaping(state, after, evaluation())))
        state = after
    expected = [0.0] * free + [-0.001] * (8 - free) + [0.0]
    np.testing.assert_allclose(rewards, expected, atol=1e-7)


def test_first_task_missed_earns_a_little():
    growth = make_growth(make_choices(5), threshold=0.8)
    state = growth.start(jax.random.key(0))
    for metrics, status, expected in (
        ((0.6, np.nan), OK, 0.01),
        ((0.9, 0.5), OK, 0.0),
        ((np.nan, np.nan), 4, 0.0),
        ((0.6,), OK, 0.01),
    ):
        earned = growth.shaping(state, state, evaluation(status, metrics))
        np.testing.assert_allclose(float(earned), expected)


@pytest.mark.parametrize(
    ("term", "edges", "status", "expected"),
    [
        ("input_unused", [(1, 2, "add")], OK, 1),
        ("input_unused", [(0, 2, "add")], OK, 0),
        ("initial_nodes", [(1, 2, "add"), (3, 2, "add")], OK, 2),
        ("intermediate_nodes", [(0, 2, "add"), (2, 4, "add")], OK, 2),
        ("dead_nodes", [(0, 2, "add"), (1, 4, "add")], OK, 2),
        ("unused_nodes", [(0, 2, "add")], OK, 5),
        ("no_initial", [(0, 2, "add")], OK, 1),
        ("no_initial", [(0, 2, "matmul"), (1, 2, "matmul")], OK, 0),
        ("no_recursion", [(0, 2, "add")], OK, 1),
        ("no_recursion", [(0, 4, "add"), (4, 2, "recursion"), (2, 4, "add")], OK, 0),
        ("no_final", [(0, 2, "add"), (2, 4, "add"), (4, 2, "add")], OK, 1),
        ("illegitimate_recursion", [(0, 2, "add"), (2, 4, "add"), (4, 2, "add"), (2, 6, "add")], OK, 1),
        ("shapes_do_not_fit", [], 4, 1),
        ("shapes_do_not_fit", [], OK, 0),
        ("no_block", [], 4, 1),
        ("no_block", [], OK, 0),
    ],
)
def test_terms_that_are_off_by_default(term, edges, status, expected):
    choices = make_choices(7)
    growth = make_growth(
        choices, weights=shaping_weights({"excess": 0.0, "first_task_missed": 0.0, term: 0.5})
    )
    before, after = grown(growth, choices, from_edges(7, edges))
    np.testing.assert_allclose(float(growth.shaping(before, after, evaluation(status))), -0.5 * expected)


def test_the_lstm_can_be_grown():
    choices = make_choices(32)
    lstm = pad_graph(KNOWN_BLOCKS["lstm"], 32)
    edges = graph_from_actions(choices, actions_from_graph(choices, lstm)).edges
    assert canonical_hash(ComputationGraph(np.asarray(edges))) == canonical_hash(lstm)
