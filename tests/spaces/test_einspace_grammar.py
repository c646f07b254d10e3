"""The grammar of einspace: its rates and lengths as published, and what it holds."""

import math
from fractions import Fraction

import pytest

from elenas_jax.ops.fundamental import FUNDAMENTAL_BY_NAME
from elenas_jax.spaces.einspace_grammar import grammar_text, make_einspace_grammar, module_kind
from elenas_jax.spaces.grammar import format_grammar, parse_grammar
from elenas_jax.spaces.grammar_analysis import (
    critical_probability,
    expected_lengths,
    probabilities,
    spectral_radius,
    unreachable,
)


def rule_of(grammar, head, name):
    return next(rule for rule in grammar.productions_of(head) if grammar.productions[rule].symbols[0] == name)


@pytest.mark.parametrize(
    ("unfolded", "radius", "critical"),
    [(False, Fraction(221, 225), Fraction(4, 13)), (True, Fraction(391, 225), Fraction(14, 23))],
)
def test_rates_are_those_of_the_paper(unfolded, radius, critical):
    grammar = make_einspace_grammar(0.32, unfolded=unfolded)
    assert spectral_radius(grammar) == radius
    assert critical_probability(grammar, rule_of(grammar, "M", "computation")) == critical


def test_expected_numbers_of_leaves():
    def is_leaf(name):
        return int(module_kind(name) in ("leaf", "branching"))

    lengths = expected_lengths(make_einspace_grammar(0.32), is_leaf)
    assert (lengths["M"], lengths["S"]) == (69, 101)
    assert math.isinf(expected_lengths(make_einspace_grammar(0.32, unfolded=True), is_leaf)["S"])


def test_probabilities_are_those_asked_for():
    grammar = make_einspace_grammar(0.5)
    share = dict(zip(((row.head, row.symbols[0]) for row in grammar.productions), probabilities(grammar)))
    assert share["M", "computation"] == Fraction(1, 2)
    assert share["M", "sequential"] == share["M", "routing"] == 12 * share["M", "clone(4)"] == Fraction(1, 6)
    assert share["S", "routing"] == Fraction(1, 3) and ("S", "computation") not in share
    assert share["C", "linear(2048)"] == Fraction(1, 13) and share["C", "linear(x4)"] == 0
    assert share["P", "im2col(7,2,3)"] == 0 and share["M", "norm"] == 0


def test_order_of_productions_does_not_depend_on_the_probability():
    bodies = [[row[:2] for row in make_einspace_grammar(p).productions] for p in (0.1, 0.9)]
    assert bodies[0] == bodies[1]


def test_inner_modules_of_a_branching():
    grammar = make_einspace_grammar()
    inner = {
        row.symbols[0]: row.symbols[1:]
        for row in grammar.productions
        if module_kind(row.symbols[0]) == "branching"
    }
    assert len(inner) == 12
    for name, symbols in inner.items():
        parts = FUNDAMENTAL_BY_NAME[name].num_branches
        assert symbols == (("M", "M", "A") if parts == 2 else ("M", "A"))


@pytest.mark.parametrize("num_axes", [2, 3])
def test_text_parses_back_and_all_is_reached(num_axes):
    grammar = parse_grammar(grammar_text(0.32, num_axes))
    assert parse_grammar(format_grammar(grammar)) == grammar
    assert unreachable(grammar) == ()
    assert {row.symbols[0] for row in grammar.productions if row.head in "ACPR"} <= set(FUNDAMENTAL_BY_NAME)


def test_sequences_have_convolutions_and_nothing_to_unfold():
    names = {row.symbols[0] for row in make_einspace_grammar(num_axes=2).productions if row.weight}
    images = {row.symbols[0] for row in make_einspace_grammar().productions if row.weight}
    assert sum(name.startswith("conv1d") for name in names) == 16
    assert not any("col" in name for name in names)
    assert not any(name.startswith("conv1d") for name in images)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5])
def test_probabilities_out_of_range(probability):
    with pytest.raises(ValueError, match=rf"computation_probability is {probability}; it must be between"):
        grammar_text(probability)


def test_inputs_have_two_or_three_axes():
    with pytest.raises(ValueError, match="Inputs have 4 axes; they must have 3"):
        grammar_text(0.32, 4)
