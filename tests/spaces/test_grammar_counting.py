"""Counts against published numbers and against enumeration; numbering; uniform draws."""

import collections
import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenas_jax.spaces.grammar import Node, flatten, grow_tree, parse_grammar
from elenas_jax.spaces.grammar_counting import (
    canonical,
    count_by_depth,
    count_by_nodes,
    count_derivations,
    enumerate_derivations,
    make_uniform_sampler,
    merge_duplicates,
    number_derivations,
)
from elenas_jax.spaces.grammar_sampling import measure
from tests.spaces.grammars import (
    ACTIVATION,
    CELL,
    DARTS,
    HIERARCHICAL,
    MACRO,
    NEPS,
    SKELETONS,
    TOY,
    grammars,
)

CATALAN = parse_grammar("S -> pair S S | x")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (CELL, 15_625),
        (SKELETONS, 75_549_915),
        (ACTIVATION, 393_762_525),
        (DARTS, 83_013_134_400),
        # An A is two or three of four O, so 4**2 + 4**3 = 80; an S is two or three A.
        (TOY, 80**2 + 80**3),
    ],
    ids=["cell", "skeletons", "activation", "darts", "toy"],
)
def test_published_counts(text, count):
    assert count_derivations(parse_grammar(text)) == count


def test_published_counts_of_many_digits():
    hierarchical = parse_grammar(HIERARCHICAL)
    raw, distinct = count_derivations(hierarchical), count_derivations(merge_duplicates(hierarchical))
    modulus = 10**9 + 7
    assert (len(str(raw)), str(raw)[:18], raw % modulus) == (447, "123829345530884292", 488850950)
    assert (len(str(distinct)), str(distinct)[:18], distinct % modulus) == (
        376,
        "702936579664483755",
        961861245,
    )
    neps = str(count_derivations(parse_grammar(NEPS)))
    assert (len(neps), neps[:18], neps[-15:]) == (182, "849087163630264478", "039538176000000")
    plain = count_derivations(parse_grammar(MACRO + CELL))
    assert round(plain / 10**177) == 566
    skeletons = parse_grammar(SKELETONS)
    assert [count_derivations(skeletons, head) for head in ("C", "DOWN", "D0", "D1")] == [3, 3, 45, 189]


def trees_of_depth(grammar, depth):
    """Slow twin: all trees up to a depth, by head."""
    trees = {head: [] for head in grammar.nonterminals}
    for _ in range(depth):
        trees = {
            head: [
                Node(rule, children)
                for rule in grammar.productions_of(head)
                if grammar.productions[rule].weight > 0
                for children in itertools.product(*(trees[child] for child in grammar.children[rule]))
            ]
            for head in grammar.nonterminals
        }
    return trees[grammar.start]


@hypothesis.given(grammars())
def test_counts_are_those_of_all_trees(grammar):
    by_depth = count_by_depth(grammar, 3)
    hypothesis.assume(sum(by_depth) < 1000)
    trees = trees_of_depth(grammar, 3)
    sizes = [measure(grammar, tree) for tree in trees]
    assert by_depth == [sum(size.depth == depth for size in sizes) for depth in range(4)]
    # All trees of up to 3 nodes have a depth of 3 at most.
    by_nodes = count_by_nodes(grammar, 3)
    assert by_nodes == [sum(size.nodes == nodes for size in sizes) for nodes in range(4)]
    assert sorted(enumerate_derivations(grammar, 3)) == sorted(
        tree for tree, size in zip(trees, sizes) if size.nodes <= 3
    )
    total = count_derivations(grammar)
    if total == sum(by_depth):
        assert sorted(enumerate_derivations(grammar)) == sorted(trees)
    else:
        assert total > sum(by_depth)


def test_infinite_languages_are_told():
    assert count_derivations(CATALAN) == math.inf
    # B never ends, so its circle counts for nothing; and what cannot be drawn does not count.
    assert count_derivations(parse_grammar("S -> x | B\nB -> B y")) == 1
    assert count_derivations(parse_grammar("S -> x | B\nB -> B y"), "B") == 0
    assert count_derivations(parse_grammar("S -> x [1] | S y [0]")) == 1
    assert count_derivations(parse_grammar("S -> A A\nA -> x | S")) == math.inf
    assert count_by_nodes(CATALAN, 9) == [0, 1, 0, 1, 0, 2, 0, 5, 0, 14]
    assert count_by_depth(CATALAN, 4) == [0, 1, 1, 3, 21]
    with pytest.raises(ValueError, match="infinitely many derivations of 'S'"):
        number_derivations(CATALAN)
    with pytest.raises(ValueError, match="'x' is no non-terminal"):
        count_derivations(CATALAN, "x")
    with pytest.raises(ValueError, match="no derivation of 'B'"):
        make_uniform_sampler(parse_grammar("B -> B y"))


@pytest.mark.parametrize("max_nodes", [None, 11])
def test_numbers_and_derivations_go_in_pairs(max_nodes):
    toy = parse_grammar("S -> two A A | one A\nA -> x | O O\nO -> a | b | c")
    count, derivation = number_derivations(toy, max_nodes)
    trees = list(enumerate_derivations(toy, max_nodes))
    assert count == len(trees) == len(set(trees)) == 10 * 10 + 10
    assert [derivation(number) for number in range(count)] == trees
    if max_nodes:
        sizes = [len(flatten(tree)) for tree in trees]
        assert sizes == sorted(sizes)


def test_too_many_derivations_are_not_listed():
    with pytest.raises(ValueError, match=r"75,549,915 derivations; at most 1,048,576"):
        enumerate_derivations(parse_grammar(SKELETONS))


@pytest.mark.parametrize(
    ("grammar", "max_nodes", "count"),
    [(CATALAN, 9, 1 + 1 + 2 + 5 + 14), (parse_grammar("S -> x|y|z S S|S S\nS->w"), 3, 21)],
)
def test_uniform_draws_are_uniform(grammar, max_nodes, count):
    draw = make_uniform_sampler(grammar, max_nodes)
    rng = np.random.default_rng(0)
    drawn = collections.Counter(draw(rng) for _ in range(40 * count))
    assert len(drawn) == count
    # Pearson's statistic has the mean count - 1 and the variance 2 (count - 1).
    statistic = sum((number - 40) ** 2 / 40 for number in drawn.values())
    assert statistic < count - 1 + 4 * math.sqrt(2 * (count - 1))


def test_uniform_draws_reach_huge_numbers():
    hierarchical = parse_grammar(HIERARCHICAL)
    draw = make_uniform_sampler(hierarchical)
    rng = np.random.default_rng(1)
    nodes = [len(flatten(draw(rng))) for _ in range(20)]
    assert len(set(nodes)) > 5
    count, derivation = number_derivations(hierarchical)
    last = derivation(count - 1)
    assert flatten(last)[0] == 2  # the last production of the start symbol
    with pytest.raises(ValueError, match="fewer derivations"):
        number_derivations(CATALAN, 5)[1](4)


def test_equal_productions_are_one_term():
    grammar = parse_grammar("S -> A A\nA -> x | y | x | x")
    merged = merge_duplicates(grammar)
    assert [row.weight for row in merged.productions] == [1, 3, 1, 0, 0]
    assert count_derivations(grammar) == 16 and count_derivations(merged) == 4
    node = grow_tree(grammar, [0, 3, 4])
    assert flatten(canonical(grammar, node)) == [0, 1, 1]
    assert {canonical(grammar, tree) for tree in enumerate_derivations(grammar)} == set(
        enumerate_derivations(merged)
    )


@hypothesis.given(grammars(), st.integers(0, 2**32))
def test_uniform_draws_are_derivations(grammar, seed):
    node = make_uniform_sampler(grammar, 41)(np.random.default_rng(seed))
    assert grow_tree(grammar, flatten(node)) == node and len(flatten(node)) <= 41
