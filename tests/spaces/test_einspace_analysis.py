"""Verification case V1 of the published numbers."""

import math
from fractions import Fraction

import pytest

from elenas_jax.spaces.einspace_analysis import terminal_length, with_copies
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.grammar_analysis import critical_probability, expected_lengths, spectral_radius

GRAMMAR = make_einspace_grammar()
COMPUTATION = next(
    rule for rule, row in enumerate(GRAMMAR.productions) if row.symbols[:1] == ("computation",)
)


def test_branches_counted_once():
    assert spectral_radius(GRAMMAR) == Fraction(221, 225)
    assert critical_probability(GRAMMAR, COMPUTATION) == Fraction(4, 13)
    lengths = expected_lengths(GRAMMAR, terminal_length)
    assert (lengths["S"], lengths["M"]) == (101, 69)


def test_branches_counted_with_copies():
    copied = with_copies(GRAMMAR)
    assert float(spectral_radius(copied)) == pytest.approx(1.737778, abs=1e-6)
    assert critical_probability(copied, COMPUTATION) == Fraction(14, 23)
    assert expected_lengths(copied, terminal_length)["S"] == math.inf


def test_copies_are_written_out():
    rows = {row.symbols[0]: row.symbols for row in with_copies(GRAMMAR).productions if row.head == "S"}
    assert rows["clone(2)"] == ("clone(2)", "M", "M", "A")
    assert rows["group(3,4)"] == ("group(3,4)", "M", "M", "M", "M", "A")
    assert rows["clone(8)"] == ("clone(8)", *"MMMMMMMM", "A")
    assert rows["routing"] == ("routing", "P", "M", "R")
    assert [row.weight for row in with_copies(GRAMMAR).productions] == [
        row.weight for row in GRAMMAR.productions
    ]
