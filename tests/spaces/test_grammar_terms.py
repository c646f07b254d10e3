"""Derivations as text and as JSON."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenas_jax.spaces.grammar import grow_tree, parse_grammar, to_derivation
from elenas_jax.spaces.grammar_sampling import Size, make_sampler
from elenas_jax.spaces.grammar_terms import from_json, parse_term, to_json, to_text
from tests.spaces.grammars import grammars

SMALL = parse_grammar("S -> add A A | neg S\nA -> linear(64) | y | linear(64)")


def test_a_term_is_brackets_around_its_parts():
    node = grow_tree(SMALL, [1, 0, 2, 4])
    text = "[S neg [S add [A linear(64)] [A#2 linear(64)]]]"
    assert to_text(SMALL, node) == text
    assert parse_term(SMALL, text.replace("[", " [ \n")) == node
    assert to_json(SMALL, to_derivation(node, 9)) == {"derivation": text}


@hypothesis.given(grammars(), st.integers(0, 2**32))
def test_derivations_survive_text_and_json(grammar, seed):
    node = make_sampler(grammar, Size(40)).draw(np.random.default_rng(seed))
    assert parse_term(grammar, to_text(grammar, node)) == node
    derivation = to_derivation(node, 50)
    data = json.loads(json.dumps(to_json(grammar, derivation)))
    np.testing.assert_array_equal(from_json(grammar, data, 50).rules, derivation.rules)


def test_parts_are_read_when_their_head_is_given():
    assert parse_term(SMALL, "[A y]", "A") == grow_tree(SMALL, [3], "A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The term is empty"),
        ("x", "starts with 'x'; it must start with"),
        ("[S neg", "ends with 1 open brackets"),
        ("[A y]", "derives 'A'; it must derive 'S'"),
        ("[S add [A y]]", "'S -> add A', which ends at character 13 of the term, is no production"),
        ("[S add [A y] A]", "non-terminal 'A' at character 14 of the term has no brackets"),
        ("[B y]", "'B' at character 2 of the term is no non-terminal; these are S, A"),
        ("[A#0 y]", "'A#0' at character 2 of the term: a number from 1 on"),
        ("[S add [A y] [A#2 y]]", "'A -> y' number 2, which ends"),
        ("[S neg [S add [A y] [A y]]] y", "goes on with 'y' at character 29, after its end"),
    ],
)
def test_what_is_no_term_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_term(SMALL, text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], 'an object with "derivation"'),
        ({"derivation": "[S neg", "more": 1}, 'an object with "derivation"'),
        ({"derivation": [1]}, "must be a term as text"),
        ({"derivation": "[A y]"}, "must derive 'S'"),
        ({"derivation": "[S add [A y] [A y]]"}, "3 rules; at most 2"),
    ],
)
def test_what_is_no_derivation_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        from_json(SMALL, data, 2)
