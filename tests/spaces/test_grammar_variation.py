"""Mutation and crossover: always derivations, within the budget, changed; all pairs are reached."""

import collections

import hypothesis
import numpy as np
from hypothesis import strategies as st

from elenas_jax.spaces.grammar import flatten, grow_tree, parse_grammar, positions, replace, subtree
from elenas_jax.spaces.grammar_sampling import Size, make_sampler, measure
from elenas_jax.spaces.grammar_variation import crossover, mutate
from tests.spaces.grammars import HIERARCHICAL, SUPERCRITICAL, grammars

EXPRESSIONS = parse_grammar("S -> add A A | mul A S | x\nA -> x | y | neg A")


def check(sampler, node):
    assert grow_tree(sampler.grammar, flatten(node)) == node
    assert all(a <= b for a, b in zip(measure(sampler.grammar, node, sampler.costs), sampler.limit))


@hypothesis.given(grammars(), st.integers(0, 2**32), st.integers(40, 60), st.integers(4, 8))
def test_variations_are_derivations_within_the_budget(grammar, seed, nodes, depth):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 3, len(grammar.productions)).tolist()
    sampler = make_sampler(grammar, Size(nodes, depth, 120), costs)
    node, other = sampler.draw(rng), sampler.draw(rng)
    for _ in range(3):
        changed = mutate(rng, sampler, node)
        check(sampler, changed)
        if changed == node:  # there is no other one
            assert {sampler.draw(rng) for _ in range(50)} == {node}
        crossed = crossover(rng, sampler, changed, other)
        check(sampler, crossed)
        node, other = crossed, changed


def test_mutations_are_uniform_over_nodes():
    grammar = parse_grammar("S -> f A A A\nA -> x | y | z | w")
    sampler = make_sampler(grammar, Size(9))
    node = grow_tree(grammar, [0, 1, 2, 3])
    rng = np.random.default_rng(0)
    changes = collections.Counter()
    for _ in range(2000):
        changed = flatten(mutate(rng, sampler, node))
        changes[tuple(a != b for a, b in zip(changed, [0, 1, 2, 3]))] += 1
    alone = [changes[False, *(place == other for other in range(3))] for place in range(3)]
    # The root changes with 63/64, a leaf with 3/4; the root's draws leave two leaves as they were in 9/64.
    share = (0.75 + 3 / 64) / (63 / 64 + 3 * 0.75)
    assert all(abs(number / 2000 - share) < 0.04 for number in alone)
    assert changes[False, True, True, True] > 200


def test_what_cannot_change_stays():
    sampler = make_sampler(parse_grammar("S -> f A\nA -> x"), Size(9))
    node = sampler.draw(np.random.default_rng(0))
    assert mutate(np.random.default_rng(0), sampler, node) is node
    assert crossover(np.random.default_rng(0), sampler, node, node) is node


def test_derivations_beyond_the_budget_get_within():
    sampler = make_sampler(SUPERCRITICAL, Size(5))
    rng = np.random.default_rng(0)
    large = grow_tree(SUPERCRITICAL, [0] * 20 + [2] * 21)
    for _ in range(20):
        check(sampler, mutate(rng, sampler, large))
        check(sampler, crossover(rng, sampler, large, grow_tree(SUPERCRITICAL, [0, 2, 2])))


def matching_pairs(receiver, donor):
    """Slow twin: all children that swapping a subtree can give."""
    children = set()
    for path, head in positions(EXPRESSIONS, receiver):
        for other, other_head in positions(EXPRESSIONS, donor):
            if head == other_head and (path or other):
                children.add(replace(receiver, path, subtree(donor, other)))
    return children - {receiver}


def test_crossover_reaches_every_matching_pair():
    receiver = grow_tree(EXPRESSIONS, [1, 5, 3, 0, 3, 5, 4])
    donor = grow_tree(EXPRESSIONS, [1, 4, 1, 5, 5, 3, 2])
    rng = np.random.default_rng(0)
    for limit in (Size(30), Size(9, 5)):
        sampler = make_sampler(EXPRESSIONS, limit)
        expected = {
            child
            for child in matching_pairs(receiver, donor)
            if all(a <= b for a, b in zip(measure(EXPRESSIONS, child), limit))
        }
        assert {crossover(rng, sampler, receiver, donor) for _ in range(800)} == expected
        assert len(expected) > 8


def test_crossover_with_itself_moves_subtrees():
    node = grow_tree(EXPRESSIONS, [0, 5, 3, 4])
    sampler = make_sampler(EXPRESSIONS, Size(30))
    rng = np.random.default_rng(0)
    assert {crossover(rng, sampler, node, node) for _ in range(300)} == matching_pairs(node, node)


def test_large_terms_change():
    sampler = make_sampler(parse_grammar(HIERARCHICAL), Size(2000))
    rng = np.random.default_rng(0)
    parents = [sampler.draw(rng) for _ in range(6)]
    for node, other in zip(parents, parents[::-1]):
        for changed in (mutate(rng, sampler, node), crossover(rng, sampler, node, other)):
            check(sampler, changed)
            assert changed != node
