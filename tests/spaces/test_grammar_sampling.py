"""Draws: budgets, frequencies, probabilities."""

import collections
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenas_jax.spaces.grammar import flatten, grow_tree, parse_grammar
from elenas_jax.spaces.grammar_counting import enumerate_derivations
from elenas_jax.spaces.grammar_sampling import (
    NO_LIMIT,
    Size,
    depths,
    least_nodes,
    log_probability,
    log_weights,
    make_sampler,
    measure,
    uniform_weights,
)
from tests.spaces.grammars import HIERARCHICAL, SUPERCRITICAL, grammars


@hypothesis.given(
    grammars(),
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 8) | st.just(NO_LIMIT),
    st.integers(0, 40),
)
def test_draws_stay_within_every_budget(grammar, seed, nodes, depth, cost):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 4, len(grammar.productions)).tolist()
    limit = Size(nodes, depth, cost)
    try:
        sampler = make_sampler(grammar, limit, costs)
    except ValueError:
        small = (tree for tree in enumerate_derivations(grammar, min(nodes, 6)))
        assert not any(all(a <= b for a, b in zip(measure(grammar, tree, costs), limit)) for tree in small)
        return
    for _ in range(5):
        node = sampler.draw(rng)
        assert grow_tree(grammar, flatten(node)) == node
        assert all(a <= b for a, b in zip(measure(grammar, node, costs), limit))
        assert all(grammar.productions[rule].weight > 0 for rule in flatten(node))


@pytest.mark.parametrize("limit", [Size(200), Size(200, 12), Size(10**6, 6), Size(31, 5, 40)])
def test_draws_end_where_the_grammar_would_not(limit):
    sampler = make_sampler(SUPERCRITICAL, limit, [1, 2, 0, 3, 1])
    rng = np.random.default_rng(0)
    sizes = [measure(SUPERCRITICAL, sampler.draw(rng), sampler.costs) for _ in range(50)]
    assert all(all(a <= b for a, b in zip(size, limit)) for size in sizes)
    assert max(size.nodes for size in sizes) > 20


def test_every_derivation_within_the_budget_can_be_drawn():
    # What is short costs much and what is cheap is long, so that neither budget alone tells what can end.
    grammar = parse_grammar("S -> A A A\nA -> x | B\nB -> C\nC -> y | A A")
    costs = [0, 5, 0, 0, 1, 1]
    limit = Size(13, 7, 12)
    sampler = make_sampler(grammar, limit, costs)
    fitting = {
        tree
        for tree in enumerate_derivations(grammar, limit.nodes)
        if all(a <= b for a, b in zip(measure(grammar, tree, costs), limit))
    }
    rng = np.random.default_rng(0)
    assert {sampler.draw(rng) for _ in range(600)} == fitting
    assert len(fitting) > 6


def test_frequencies_are_those_of_the_weights():
    grammar = parse_grammar("S -> A A [2] | A [1]\nA -> x [5] | y [3] | S [1] | z [0]")
    sampler = make_sampler(grammar, Size(400))
    rng, number = np.random.default_rng(0), 4000
    drawn = collections.Counter(sampler.draw(rng) for _ in range(number))
    likely = {
        tree: number * math.exp(log_probability(grammar, tree)) for tree in enumerate_derivations(grammar, 3)
    }
    likely = {tree: expected for tree, expected in likely.items() if expected > 0}
    assert len(likely) == 2 + 4
    rest = number - sum(likely.values())
    assert rest > 100
    statistic = sum((drawn[tree] - expected) ** 2 / expected for tree, expected in likely.items())
    statistic += (number - sum(drawn[tree] for tree in likely) - rest) ** 2 / rest
    assert statistic < len(likely) + 4 * math.sqrt(2 * len(likely))


def test_uniform_weights_make_uniform_choices():
    grammar = uniform_weights(parse_grammar("S -> x [9] | y [1] | z [0]"))
    assert [row.weight for row in grammar.productions] == [1, 1, 0]
    sampler = make_sampler(grammar, Size(1))
    rng = np.random.default_rng(0)
    shares = collections.Counter(sampler.draw(rng).rule for _ in range(1000))
    assert set(shares) == {0, 1} and abs(shares[0] - 500) < 64


def test_the_same_generator_draws_the_same():
    sampler = make_sampler(parse_grammar(HIERARCHICAL), Size(1000))
    one, other = (sampler.draw(np.random.default_rng(3)) for _ in range(2))
    assert one == other


def test_parts_are_drawn_within_what_is_left():
    sampler = make_sampler(SUPERCRITICAL, Size(100))
    rng = np.random.default_rng(0)
    assert {measure(SUPERCRITICAL, sampler.draw(rng, "A", Size(4, 2))).nodes for _ in range(60)} == {1, 4}
    assert sampler.can_draw("A", Size(1)) and not sampler.can_draw("A", Size(0))
    assert not sampler.can_draw("A", Size(5, 0))
    with pytest.raises(ValueError, match="No derivation of 'A' that can be drawn has at most 0 nodes"):
        sampler.draw(rng, "A", Size(0))
    # More than the sampler's own limit is not given.
    assert all(len(flatten(sampler.draw(rng, "S", Size(10**6)))) <= 100 for _ in range(20))


@pytest.mark.parametrize(
    ("text", "limit", "costs", "message"),
    [
        ("S -> S x", Size(9), None, "No derivation of 'S' that can be drawn has at most 9 nodes"),
        ("S -> x [0]", Size(9), None, "No derivation of 'S'"),
        ("S -> A\nA -> x", Size(1), None, "at most 1 nodes"),
        ("S -> A\nA -> x", Size(9, 1), None, "at most 9 nodes, at most 1 depth"),
        ("S -> A\nA -> x", Size(9, 9, 2), [1, 2], "at most 2 cost"),
        ("S -> A\nA -> x", Size(9, 0), None, "at most 0 depth"),
        ("S -> x", Size(1), [1, 2], "costs is .* each of 1 productions"),
        ("S -> x", Size(1), [-1], "a whole number from 0 on"),
        ("S -> x", Size(1), [0.5], "a whole number from 0 on"),
    ],
)
def test_samplers_that_cannot_draw_are_named(text, limit, costs, message):
    with pytest.raises(ValueError, match=message):
        make_sampler(parse_grammar(text), limit, costs)


@hypothesis.given(grammars())
def test_probabilities_of_a_finite_language_add_up(grammar):
    finite = parse_grammar("S -> A A [2] | B [1]\nA -> x [3] | y [1]\nB -> A | z")
    total = math.fsum(math.exp(log_probability(finite, tree)) for tree in enumerate_derivations(finite))
    assert total == pytest.approx(1.0)
    # Of any grammar those of all small derivations are at most 1.
    small = list(enumerate_derivations(grammar, 4))
    assert math.fsum(math.exp(log_probability(grammar, tree)) for tree in small) <= 1 + 1e-9


def test_probability_of_what_is_never_drawn_is_zero():
    grammar = parse_grammar("S -> x [1] | y [0] | A [3]\nA -> z [0]")
    assert log_probability(grammar, grow_tree(grammar, [1])) == -math.inf
    assert log_probability(grammar, grow_tree(grammar, [0])) == pytest.approx(math.log(0.25))
    np.testing.assert_array_equal(log_weights(grammar)[[1, 3]], -math.inf)


def test_sizes_are_those_of_the_tree():
    grammar = parse_grammar("S -> f S S | x")
    node = grow_tree(grammar, [0, 0, 1, 1, 1])
    assert measure(grammar, node, [10, 1]) == Size(5, 3, 23)
    assert depths(grammar, flatten(node)) == [1, 2, 3, 3, 2]
    grammar = parse_grammar("S -> A A\nA -> S | B B\nB -> x | B\nC -> C x")
    assert least_nodes(grammar) == {"S": 7, "A": 3, "B": 1}
