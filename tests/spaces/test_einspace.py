"""The einspace space: what its records say, its settings, and what happens on the host."""

import json

import jax
import numpy as np
import pytest

from elenas_jax.ops.fundamental_shapes import (
    NO_DERIVATION,
    NOT_AS_INFERRED,
    REASONS,
    SHAPES_DISAGREE,
    TOO_DEEP,
    TOO_MANY_ACTIVATIONS,
    TOO_MANY_PARAMETERS,
)
from elenas_jax.spaces.einspace import make_einspace
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, to_node
from elenas_jax.spaces.grammar import Derivation, to_derivation
from elenas_jax.types import OK, DataTask

GRAMMAR = make_einspace_grammar()


def candidate(term, max_nodes=512):
    return to_derivation(to_node(GRAMMAR, term), max_nodes)


@pytest.fixture(scope="module")
def space():
    return make_einspace(seeds=MIXED_SEEDS, in_shape=(3, 28, 28))


def test_seeds_are_what_a_search_starts_from(space):
    assert space.starts.rules.shape == (4, 512)
    np.testing.assert_array_equal(jax.vmap(space.status)(space.starts), OK)
    described = [space.describe(Derivation(rules)) for rules in space.starts.rules]
    assert "11,210,560 parameters; 121 operations in 144 modules, depth 11" in described[0]
    assert "4,261,888 parameters; 220 operations in 192 modules, depth 13" in described[2]
    assert make_einspace().starts is None


@pytest.mark.parametrize(
    ("term", "settings", "reason"),
    [
        (("clone(2)", "norm", "linear(16)", "add"), {}, SHAPES_DISAGREE),
        (("sequential", "linear(2048)", "norm"), {"max_parameters": 1000}, TOO_MANY_PARAMETERS),
        (("sequential", "linear(2048)", "norm"), {"max_activations": 1000}, TOO_MANY_ACTIVATIONS),
        (("sequential", ("sequential", "norm", "norm"), "norm"), {"max_depth": 1}, TOO_DEEP),
        (("sequential", ("sequential", "norm", "norm"), "norm"), {"max_depth": 2}, OK),
        (("clone(2)", "norm", "norm", "concat(1,8)"), {"rules": "compat"}, NOT_AS_INFERRED),
        (("sequential", "norm", "norm"), {"rules": "compat"}, OK),
    ],
)
def test_statuses(term, settings, reason):
    space = make_einspace(**settings)
    assert int(space.status(candidate(term))) == reason
    assert space.reasons == REASONS


def test_what_is_no_derivation_has_its_reason_as_its_form(space):
    unfinished = Derivation(np.array([0, *[-1] * 511], np.int16))
    assert int(space.status(unfinished)) == NO_DERIVATION
    assert space.canonical(unfinished) == b"no derivation of the grammar"
    assert space.describe(unfinished) == "y = no derivation of the grammar"
    drawn = space.mutate(jax.random.key(0), unfinished)
    assert int(space.status(drawn)) == OK
    crossed = space.crossover(jax.random.key(0), unfinished, drawn)
    np.testing.assert_array_equal(crossed.rules, unfinished.rules)


def test_jitted_and_batched_draws_are_those_on_the_host(space):
    keys = jax.random.split(jax.random.key(1), 6)
    batched = jax.jit(jax.vmap(space.sample))(keys)
    for place, key in enumerate(keys):
        np.testing.assert_array_equal(space.sample(key).rules, batched.rules[place])


def test_json_is_a_term_and_errors_name_what_is_wrong(space):
    data = json.loads(json.dumps(space.to_json(candidate(("sequential", "norm", "softmax")))))
    assert data == {"derivation": "[S sequential [M computation [C norm]] [M computation [C softmax]]]"}
    with pytest.raises(ValueError, match="'C -> linear'"):
        space.from_json({"derivation": "[S sequential [M computation [C linear]] [M norm]]"})


def test_known_architectures_can_be_drawn_by_a_search(space):
    found = jax.vmap(space.known)(jax.random.split(jax.random.key(0), 12))
    np.testing.assert_array_equal(jax.vmap(space.status)(found), OK)
    weights = np.array([row.weight for row in GRAMMAR.productions])
    assert all(weights[rules[rules >= 0]].all() for rules in np.asarray(found.rules))
    assert len({space.canonical(Derivation(rules)) for rules in np.asarray(found.rules)}) > 4


def test_known_needs_room():
    with pytest.raises(Exception, match="None of the published architectures fits an input of"):
        jax.block_until_ready(make_einspace(max_nodes=8).known(jax.random.key(0)))


def test_sequences():
    space = make_einspace(in_shape=(1, 96), max_nodes=40)
    keys = jax.random.split(jax.random.key(0), 16)
    drawn = jax.vmap(space.sample)(keys)
    changed = jax.vmap(space.mutate)(keys, drawn)
    for batch in (drawn, changed):
        np.testing.assert_array_equal(jax.vmap(space.status)(batch), OK)
    assert any("conv1d" in space.describe(Derivation(rules)) for rules in np.asarray(drawn.rules))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_shape": (3, 8)}, None),
        ({"in_shape": (3, 8, 8, 8)}, r"in_shape is \(3, 8, 8, 8\); it must be \(C, H, W\) or"),
        ({"in_shape": (3, 0, 8)}, "all of them positive"),
        ({"max_nodes": 4}, "max_nodes is 4; it must be at least 5"),
        ({"max_parameters": -1}, "max_parameters is -1"),
        ({"max_activations": -1}, "max_activations is -1"),
        ({"max_depth": -1}, "max_depth is -1"),
        ({"max_depth": 0, "max_nodes": 513}, "at most 512 nodes"),
        ({"max_draws": 0}, "max_draws is 0; it must be at least 1"),
        ({"computation_probability": 1.0}, "computation_probability is 1.0"),
        ({"seeds": ("resnet",)}, "There is no seed 'resnet'"),
        ({"seeds": ("transformer",), "max_nodes": 100}, "has 176 nodes; max_nodes is 100"),
        (
            {"seeds": ("attention_head",)},
            "does not fit these inputs and budgets: an operation of the other mode",
        ),
        ({"seeds": ("transformer",), "in_shape": (1, 96)}, "which the grammar for these inputs lacks"),
    ],
)
def test_settings(settings, message):
    if message is None:
        assert make_einspace(**settings).name == "einspace"
        return
    with pytest.raises(ValueError, match=message):
        make_einspace(**settings)


@pytest.mark.parametrize("prediction", ["auto", "dense", "classes"])
def test_dense_predictions_have_a_number_for_each_pixel(prediction):
    space = make_einspace(in_shape=(3, 8, 8), out_features=64, prediction=prediction)
    task = DataTask("pixels", (3, 8, 8), 64, "squared", "r2", 0.5, 0.0, 1.0, "", lambda: None)
    network = space.build(candidate(("sequential", "norm", "leaky_relu")), task)
    params, state = network.init(jax.random.key(0))
    outputs, _ = network.apply(params, state, np.ones((2, 3, 8, 8), np.float32))
    assert outputs.size == 2 * 64
    # A dense head has a weight for each channel, the other one for each class: 64 * (channels + 1).
    head = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert (head >= 64 * 4) == (prediction == "classes")
    with pytest.raises(ValueError, match="one number for each pixel"):
        make_einspace(in_shape=(3, 8, 8), out_features=10, prediction="dense")


def test_graphs_of_published_architectures_are_finished_trees():
    space = make_einspace(seeds=("resnet18_no_maxpool", "transformer"), in_shape=(3, 28, 28), max_nodes=280)
    for place in range(2):
        start = jax.tree.map(lambda leaf, place=place: leaf[place], space.starts)
        graph = space.to_graph(start)
        num_rules = int(np.sum(np.asarray(start.rules) >= 0))
        # A node for each rule, none of which is open; an edge to each child, and one back.
        assert int(graph.n_node[0]) == num_rules
        assert int(graph.n_edge[0]) == 2 * (num_rules - 1)
