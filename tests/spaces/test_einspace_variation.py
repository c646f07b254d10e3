"""Mutation and crossover: valid, within budgets, never the parent's network, of all copies."""

import itertools

import numpy as np
import pytest

from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, Drawn, draw, over_budget
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, make_seed, to_node
from elenas_jax.spaces.einspace_statistics import size_of
from elenas_jax.spaces.einspace_typing import infer, state_of
from elenas_jax.spaces.einspace_variation import compat_mutate, crossover, mutate, places
from elenas_jax.spaces.grammar import flatten

GRAMMAR = make_einspace_grammar()
OPTIONS = make_options(GRAMMAR)
COMPAT = make_options(GRAMMAR, "compat")
STATE = state_of((3, 32, 32))
BUDGET = Budget(300, 20_000_000, 20_000_000)


def drawn(term):
    node = term if hasattr(term, "rule") else to_node(GRAMMAR, term)
    return Drawn(node, infer(node, STATE))


def check(child, *parents):
    """Asserts that a child is another network within the budget; returns whether it is."""
    assert infer(child.node, STATE) == child.typed
    assert not over_budget(child.typed, BUDGET) and len(flatten(child.node)) <= BUDGET.nodes
    text = network_text(simplify(child.typed))
    return all(text != network_text(simplify(parent.typed)) for parent in parents)


def test_mutations_of_draws_are_other_networks():
    rng = np.random.default_rng(0)
    for _ in range(400):
        parent = draw(rng, OPTIONS, STATE, budget=BUDGET)
        assert check(mutate(rng, GRAMMAR, OPTIONS, parent, budget=BUDGET), parent)


def test_children_are_not_too_deep():
    rng = np.random.default_rng(0)
    budget = Budget(100, depth=2)
    parents = [draw(rng, OPTIONS, STATE, budget=budget) for _ in range(60)]
    for parent, giver in itertools.pairwise(parents):
        for child in (
            mutate(rng, GRAMMAR, OPTIONS, parent, budget=budget),
            crossover(rng, GRAMMAR, parent, giver, budget=budget),
        ):
            assert size_of(child.typed).depth <= 3


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_mutations_of_seeds_are_other_networks(name):
    rng = np.random.default_rng(0)
    parent = drawn(make_seed(name, GRAMMAR))
    children = [mutate(rng, GRAMMAR, OPTIONS, parent, budget=BUDGET) for _ in range(100)]
    assert all(check(child, parent) for child in children)
    assert len({network_text(simplify(child.typed)) for child in children}) > 80


def test_a_mutation_is_of_all_copies():
    rng = np.random.default_rng(0)
    parent = drawn(("clone(4)", ("sequential", "norm", "softmax"), "add"))
    inner = set()
    for _ in range(200):
        child = mutate(rng, GRAMMAR, OPTIONS, parent, budget=BUDGET)
        if child.node.rule == parent.node.rule and child.node.children[1] == parent.node.children[1]:
            inner.add(network_text(simplify(child.typed.children[1])))
            assert child.typed.copies == 4
    assert len(inner) > 20


def test_every_node_may_change():
    """Redraws of the last operation, the branching and what it merges with are all met."""
    rng = np.random.default_rng(0)
    parent = drawn(("sequential", ("clone(2)", "norm", "softmax", "add"), "norm"))
    changed = set()
    for _ in range(600):
        child = mutate(rng, GRAMMAR, OPTIONS, parent, budget=BUDGET)
        if flatten(child.node)[0] == flatten(parent.node)[0]:
            old, new = (each.typed.children for each in (parent, child))
            if child.node.children[1] == parent.node.children[1] and len(new[0].children) == 4:
                changed |= {
                    place for place in range(4) if new[0].children[place].name != old[0].children[place].name
                }
                changed |= {
                    f"leaf {place}"
                    for place in (1, 2)
                    if new[0].children[place].name == "computation"
                    and new[0].children[place].children[0].name != old[0].children[place].children[0].name
                }
            elif child.node.children[0] == parent.node.children[0]:
                changed.add(new[1].kind)
    assert changed >= {0, 1, 2, 3, "leaf 1", "leaf 2", "sequential", "branching", "routing", "computation"}


def test_places_count_copies_and_depths():
    parent = drawn(("clone(4)", ("sequential", ("clone(8)", "norm", "add"), "softmax"), "add"))
    found = {(place.path, place.head): place for place in places(GRAMMAR, parent.node, parent.typed)}
    assert len(found) == len(flatten(parent.node)) + 2
    assert found[(), "S"].copies == found[(), "B"].copies == found[(1,), "A"].copies == 1
    assert (found[(0,), "M"].copies, found[(0,), "M"].reached) == (4, 1.0)
    assert (found[(0, 1), "M"].copies, found[(0, 1), "M"].reached) == (4, 0.25)
    norm = found[(0, 0, 0, 0), "C"]
    assert (norm.copies, norm.reached, norm.depth) == (32, 1 / 32, 4)
    assert sum(place.copies for place in found.values()) == size_of(parent.typed).nodes


def test_what_cannot_change_is_returned():
    parent = drawn(("sequential", "identity", "identity"))
    rng = np.random.default_rng(0)
    assert mutate(rng, GRAMMAR, OPTIONS, parent, budget=BUDGET, max_draws=0) is parent
    assert crossover(rng, GRAMMAR, parent, parent, budget=BUDGET) is parent


def test_crossovers_take_a_node_of_the_other_parent():
    rng = np.random.default_rng(0)
    num_changed = 0
    for _ in range(100):
        parent, other = (draw(rng, OPTIONS, STATE, budget=BUDGET) for _ in range(2))
        child = crossover(rng, GRAMMAR, parent, other, budget=BUDGET)
        if child is not parent:
            num_changed += 1
            assert check(child, parent)
            assert set(flatten(child.node)) <= {*flatten(parent.node), *flatten(other.node)}
    assert num_changed > 90


def test_every_matching_pair_of_a_crossover_is_reached():
    rng = np.random.default_rng(0)
    parent = drawn(("sequential", "norm", "softmax"))
    other = drawn(("sequential", "leaky_relu", ("routing", "permute(2,1,3)", "linear(16)", "identity")))
    texts = {
        network_text(simplify(crossover(rng, GRAMMAR, parent, other, budget=BUDGET).typed))
        for _ in range(400)
    }
    parts = ("leaky_relu", "linear(16)", "permute(2,1,3) > linear(16)")
    assert texts == {text for part in parts for text in (f"norm > {part}", f"{part} > softmax")}


def test_compat_mutations_return_the_parent_as_often_as_the_public_ones():
    rng = np.random.default_rng(0)
    shares = {}
    for name, number in (("transformer", 60), ("resnet18_no_maxpool", 10)):
        parent = drawn(make_seed(name, GRAMMAR))
        children = [compat_mutate(rng, GRAMMAR, COMPAT, parent, budget=Budget(500)) for _ in range(number)]
        shares[name] = np.mean([child is parent for child in children])
    assert 0.5 < shares["transformer"] < 0.85  # 71% in the public code
    assert shares["resnet18_no_maxpool"] == 0


def test_compat_mutations_never_draw_the_same_kind_again():
    rng = np.random.default_rng(0)
    parent = drawn(("clone(2)", "norm", "norm", "add"))
    for _ in range(100):
        child = compat_mutate(rng, GRAMMAR, COMPAT, parent, budget=Budget(200))
        if child.typed.kind == "branching" and child.typed.name == "clone(2)":
            # What changed under the root is no computation, unless its operation alone was drawn anew.
            kinds = [module.kind for module in child.typed.children[1:-1]]
            leaves = [
                module.children[0].name
                for module in child.typed.children[1:-1]
                if module.kind == "computation"
            ]
            assert kinds.count("computation") >= 1 and leaves.count("norm") >= 1
        else:
            assert child.typed.kind != "branching" or child.typed.name != parent.typed.name
