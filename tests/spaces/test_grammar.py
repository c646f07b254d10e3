"""Grammars as text, and derivations as trees and arrays."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenas_jax.spaces.grammar import (
    Derivation,
    Node,
    Production,
    flatten,
    format_grammar,
    grow_tree,
    make_grammar,
    parse_grammar,
    positions,
    replace,
    subtree,
    to_derivation,
    to_tree,
)
from elenas_jax.spaces.grammar_sampling import Size, make_sampler
from tests.spaces.grammars import HIERARCHICAL, grammars

SEEDS = st.integers(0, 2**32)


def drawn(grammar, seed, nodes=40):
    return make_sampler(grammar, Size(nodes)).draw(np.random.default_rng(seed))


def test_grammars_are_read_as_written():
    grammar = parse_grammar("S -> add A B(1,2) [0.5] | S [2]  # a comment\n\nA->x|y\n  | A x\n")
    assert grammar.start == "S"
    assert grammar.productions == (
        Production("S", ("add", "A", "B(1,2)"), 0.5),
        Production("S", ("S",), 2.0),
        Production("A", ("x",), 1.0),
        Production("A", ("y",), 1.0),
        Production("A", ("A", "x"), 1.0),
    )
    assert grammar.nonterminals == ("S", "A")
    assert grammar.terminals == ("add", "B(1,2)", "x", "y")
    assert grammar.productions_of("A") == (2, 3, 4)
    assert [grammar.right_hand_nonterminals(rule) for rule in range(5)] == [("A",), ("S",), (), (), ("A",)]


def test_productions_are_grouped_by_head():
    grammar = parse_grammar("S -> A\nA -> x\nS -> B\nB -> y\n")
    assert grammar.heads == ("S", "S", "A", "B")
    assert parse_grammar("S -> A\nA -> x\n", start="A").start == "A"
    assert parse_grammar("%start A\nS -> A\nA -> x\n").start == "A"
    assert parse_grammar("%start A\nS -> A\nA -> x\n", start="S").start == "S"


@hypothesis.given(grammars())
def test_grammars_survive_text(grammar):
    assert parse_grammar(format_grammar(grammar)) == grammar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no productions"),
        ("# nothing\n", "no productions"),
        ("S -> x\nS\n", "line 2: 'S' is no rule like"),
        ("S | A -> x", "line 1: 'S | A -> x' is no rule"),
        ("| x\nS -> x", "line 1: '| x' is no rule"),
        ("S -> x\n\nS ->", "line 3: an alternative of 'S' has no symbols"),
        ("S -> x || y", "line 1: an alternative of 'S' has no symbols"),
        ("S -> x\nS -> A -> x", "line 2: a second '->'"),
        ("S -> x [much]", "line 1: the weight 'much' is no number from 0 on"),
        ("S -> x [-1]", "line 1: the weight '-1'"),
        ("S -> x [inf] | y [1]", "line 1: the weight 'inf'"),
        ("S -> x [1] y", "line 1: 'y' follows a weight"),
        ("S -> x [1 | y", r"line 1: a '\[' without its counterpart"),
        ("S -> x 1] | y", r"line 1: a '\]' without its counterpart"),
        ("S -> x [1]\nS -> y", "line 2: all alternatives of 'S' must have a weight, or none"),
        ("%start\nS -> x", "line 1: %start must be followed by one symbol"),
        ("%start A\nS -> x", "start symbol 'A' heads no production; heads are S"),
    ],
)
def test_what_is_no_grammar_is_named_by_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_grammar(text)


@pytest.mark.parametrize(
    ("productions", "message"),
    [
        ([Production("S", (), 1.0)], "'S' has no symbols"),
        ([Production("S", ("a b",), 1.0)], "'a b' is no symbol"),
        ([Production("S", ("a->b",), 1.0)], "'a->b' is no symbol"),
        ([Production("S", ("a",), -1.0)], "weight -1.0"),
        ([Production("S", ("a",), 1.0)] * 2**15, "at most 32,767"),
    ],
)
def test_wrong_productions_are_named(productions, message):
    with pytest.raises(ValueError, match=message):
        make_grammar(productions)


def test_other_symbols_have_no_productions():
    with pytest.raises(ValueError, match="'x' is no non-terminal; these are S"):
        parse_grammar("S -> x").productions_of("x")


@hypothesis.given(grammars(), SEEDS)
def test_trees_and_arrays_say_the_same(grammar, seed):
    node = drawn(grammar, seed)
    rules = flatten(node)
    assert grow_tree(grammar, rules) == node
    for room in (0, 3):
        derivation = to_derivation(node, len(rules) + room)
        assert derivation.rules.dtype == np.int16 and derivation.rules[: -room or None].tolist() == rules
        assert to_tree(grammar, derivation) == node
    with pytest.raises(ValueError, match=f"{len(rules)} rules; at most {len(rules) - 1}"):
        to_derivation(node, len(rules) - 1)


def test_deep_trees_need_no_deep_stack():
    grammar = parse_grammar("S -> f S | x")
    rules = [0] * 5000 + [1]
    node = grow_tree(grammar, rules)
    assert flatten(node) == rules
    assert len(positions(grammar, node)) == 5001


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], "0 rules derive 0 trees"),
        ([0, 2], "rule 0, 'S -> add A A', needs A A below it; got A."),
        ([0], "needs A A below it; got nothing"),
        ([0, 2, 2, 2], "4 rules derive 2 trees"),
        ([0, 1, 2], "rule 0, 'S -> add A A', needs A A below it; got S A."),
        ([2], "is one of 'A'; it must be one of 'S'"),
        ([7], "rule 0 is 7; the grammar has the productions 0 to 2"),
        ([1, -1, 1], "Rules follow the end at place 1"),
    ],
)
def test_what_is_no_derivation_is_named(rules, message):
    grammar = parse_grammar("S -> add A A | x\nA -> y")
    with pytest.raises(ValueError, match=message):
        to_tree(grammar, Derivation(np.array(rules, np.int16)))


@hypothesis.given(grammars(), SEEDS, SEEDS)
def test_subtrees_are_found_and_replaced_by_their_path(grammar, seed, other_seed):
    node, other = drawn(grammar, seed), drawn(grammar, other_seed)
    found = positions(grammar, node)
    assert [head for _, head in found] == [grammar.heads[rule] for rule in flatten(node)]
    for path, head in found:
        part = subtree(node, path)
        assert grammar.heads[part.rule] == head
        assert replace(node, path, part) == node
        changed = replace(node, path, other)
        assert subtree(changed, path) == other
        assert len(flatten(changed)) == len(flatten(node)) - len(flatten(part)) + len(flatten(other))


def test_a_published_grammar_is_read():
    grammar = parse_grammar(HIERARCHICAL)
    assert grammar.start == "D2" and len(grammar.productions) == 3 * 5 + 1 + 5 + 1 + 9
    node = Node(grammar.productions_of("OPS")[0], ())
    assert positions(grammar, node) == [((), "OPS")]
