"""Expectations against published numbers, closed forms and draws."""

import math
from fractions import Fraction

import hypothesis
import numpy as np
import pytest

from elenas_jax.spaces.grammar import Production, flatten, make_grammar, parse_grammar
from elenas_jax.spaces.grammar_analysis import (
    critical_probability,
    expectation_matrix,
    expected_lengths,
    non_terminating,
    probabilities,
    spectral_radius,
    unreachable,
)
from elenas_jax.spaces.grammar_sampling import Size, make_sampler
from tests.spaces.grammars import SUPERCRITICAL, grammars


def modules(copies: bool):
    """The recursion of einspace: 4 of 12 branchings have 2 inner modules, the others 4 or 8 copies of one."""
    weights = {2: 4, 4: 4, 8: 4}
    rows = [
        Production("M", ("sequential", "M", "M"), 12 * 0.68),
        Production("M", ("routing", "P", "M", "R"), 12 * 0.68),
    ]
    for branches, number in weights.items():
        inner = branches if copies or branches == 2 else 1
        rows.append(Production("M", ("clone", *"M" * inner, "A"), number * 0.68))
    rows.append(Production("M", ("computation", "C"), 36 * 0.32))
    start = [Production("S", row.symbols, row.weight) for row in rows[:-1]]
    leaves = [Production(head, ("leaf",), 1.0) for head in "APRC"]
    return make_grammar([*start, *rows, *leaves]), len(start) + len(rows) - 1


def test_published_numbers_of_einspace():
    grammar, computation = modules(copies=False)
    assert spectral_radius(grammar) == Fraction(221, 225)
    assert critical_probability(grammar, computation) == Fraction(4, 13)
    lengths = expected_lengths(grammar, lambda terminal: terminal in ("leaf", "clone"))
    assert (lengths["M"], lengths["S"], lengths["C"]) == (69, 101, 1)


def test_published_numbers_of_einspace_with_copies():
    grammar, computation = modules(copies=True)
    assert float(spectral_radius(grammar)) == pytest.approx(1.737778, abs=1e-6)
    assert critical_probability(grammar, computation) == Fraction(14, 23)
    assert expected_lengths(grammar)["S"] == math.inf and expected_lengths(grammar)["C"] == 1


def test_expectations_of_a_small_grammar():
    grammar = parse_grammar("S -> S A [1] | x [3]\nA -> x [1] | A A B [1] | B [0]\nB -> y y")
    assert expectation_matrix(grammar) == [
        [Fraction(1, 4), Fraction(1, 4), 0],
        [0, 1, Fraction(1, 2)],
        [0, 0, 0],
    ]
    assert spectral_radius(grammar) == 1
    assert expected_lengths(grammar) == {"S": math.inf, "A": math.inf, "B": 2}
    assert probabilities(parse_grammar("S -> x [0.1] | y [0.2]")) == (Fraction(1, 3), Fraction(2, 3))


def test_radius_of_a_circle_of_symbols():
    # S -> A A and A -> S with probability 1/4: a square root, which is no fraction.
    grammar = parse_grammar("S -> A A [1] | x [1]\nA -> S [1] | y [3]")
    assert spectral_radius(grammar) == pytest.approx(0.5)
    grammar = parse_grammar("S -> A A\nA -> S [1] | y [3]")
    assert spectral_radius(grammar) == pytest.approx(math.sqrt(0.5))
    assert critical_probability(grammar, 1) == Fraction(1, 2)
    assert critical_probability(grammar, 2) == Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        ("S -> S S [1] | x [1]", 1, Fraction(1, 2)),
        ("S -> S S [1] | x [1] | S [1]", 1, Fraction(1, 3)),
        ("S -> S | x", 0, 1),
        ("S -> x | y", 0, None),  # never grows
        ("S -> S S S | S S", 0, None),  # always grows
    ],
)
def test_critical_probabilities(text, rule, found):
    assert critical_probability(parse_grammar(text), rule) == found


def test_a_probability_that_cannot_change_is_told():
    with pytest.raises(ValueError, match="'S' has no other production"):
        critical_probability(parse_grammar("S -> x"), 0)


@hypothesis.given(grammars())
def test_radius_is_that_of_the_whole_matrix(grammar):
    matrix = np.array([[float(entry) for entry in row] for row in expectation_matrix(grammar)])
    # An eigenvalue of n symbols that only lead on has an error of eps^(1/n).
    expected = np.max(np.abs(np.linalg.eigvals(matrix)))
    assert float(spectral_radius(grammar)) == pytest.approx(expected, abs=1e-3)


def test_lengths_are_those_of_draws():
    grammar = parse_grammar("S -> f S S [1] | A [2]\nA -> x y [3] | S [1]")
    sampler = make_sampler(grammar, Size(10**4))
    rng = np.random.default_rng(0)
    lengths = [
        sum(
            len(row.symbols) - len(grammar.children[rule])
            for rule in flatten(sampler.draw(rng))
            for row in [grammar.productions[rule]]
        )
        for _ in range(3000)
    ]
    expected = float(expected_lengths(grammar)["S"])
    assert abs(np.mean(lengths) - expected) < 4 * np.std(lengths) / math.sqrt(3000)


def test_symbols_without_use_are_named():
    grammar = parse_grammar("S -> A | x\nA -> A y\nB -> S | C\nC -> z [0]\nD -> E [0] | x [1]\nE -> x\n")
    assert unreachable(grammar) == ("B", "C", "D", "E")
    assert non_terminating(grammar) == ("A", "C")
    assert unreachable(SUPERCRITICAL) == non_terminating(SUPERCRITICAL) == ()
    # S may lead to what never ends; B and D lead elsewhere.
    lengths = expected_lengths(grammar)
    assert lengths["S"] == lengths["B"] == math.inf and lengths["D"] == 1
