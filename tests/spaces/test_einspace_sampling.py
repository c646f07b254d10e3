"""Draws of architectures: valid, within budgets, by the grammar's probabilities, and the same again."""

import itertools

import numpy as np
import pytest

from elenas_jax.ops.fundamental_shapes import TOO_MANY_ACTIVATIONS, TOO_MANY_PARAMETERS, VALID
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, OverBudget, draw, draw_module, over_budget
from elenas_jax.spaces.einspace_statistics import runs_as_inferred, size_of
from elenas_jax.spaces.einspace_typing import infer, state_of
from elenas_jax.spaces.grammar import flatten

GRAMMAR = make_einspace_grammar()
OPTIONS = make_options(GRAMMAR)
STATE = state_of((3, 64, 64))
BUDGET = Budget(512, 50_000_000, 32_000_000)


def draws(number, budget=BUDGET, seed=0, options=OPTIONS, state=STATE):
    rng = np.random.default_rng(seed)
    return [draw(rng, options, state, budget=budget) for _ in range(number)]


@pytest.fixture(scope="module")
def sampled():
    return draws(1000)


def test_draws_are_networks_of_the_types_they_come_with(sampled):
    for node, typed in sampled:
        assert infer(node, STATE, grammar=GRAMMAR) == typed
        assert runs_as_inferred(typed)


def test_draws_use_only_what_has_a_weight(sampled):
    rules = {rule for drawn in sampled for rule in flatten(drawn.node)}
    drawable = {rule for rule, row in enumerate(GRAMMAR.productions) if row.weight}
    assert rules <= drawable and len(rules) > 0.9 * len(drawable)


@pytest.mark.parametrize(
    "budget", [BUDGET, Budget(20, 1000, 50_000, 3), Budget(5, 0, 0, 0), Budget(40, 100_000)]
)
def test_no_draw_is_over_its_budget(budget):
    sizes = []
    for node, typed in draws(150, budget):
        sizes.append(len(flatten(node)))
        assert sizes[-1] <= budget.nodes
        assert over_budget(typed, budget) == VALID
        assert not budget.depth or size_of(typed).depth <= budget.depth + 1
    assert max(sizes) > 0.5 * min(budget.nodes, 60)


def test_a_budget_that_nothing_drawn_fits_leaves_identities():
    node, typed = draw(np.random.default_rng(0), OPTIONS, STATE, budget=Budget(5, 0, 1), max_draws=0)
    assert (len(flatten(node)), typed.activations, typed.after) == (5, 0, STATE)


def test_reasons_of_what_is_over_budget():
    typed = next(each.typed for each in draws(50) if each.typed.parameters > 10)
    assert over_budget(typed, Budget(0, 10)) == TOO_MANY_PARAMETERS
    assert over_budget(typed, Budget(0, typed.parameters)) == VALID
    assert over_budget(typed, Budget(0, typed.parameters), copies=2) == TOO_MANY_PARAMETERS
    assert over_budget(typed, Budget(0, 0, 1)) == TOO_MANY_ACTIVATIONS


def test_the_same_generator_draws_the_same():
    assert draws(20, seed=3) == draws(20, seed=3) != draws(20, seed=4)


def test_kinds_of_modules_are_drawn_by_their_probabilities():
    options = make_options(make_einspace_grammar(0.9))
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(4000):
        kinds.append(draw_module(rng, options, "M", STATE, budget=Budget()).typed.kind)
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    # Five standard deviations: what fits or not does not change how often a kind is drawn.
    assert shares["computation"] == pytest.approx(0.9, abs=0.024)
    for kind in ("sequential", "branching", "routing"):
        assert shares[kind] == pytest.approx(1 / 30, abs=0.015)


def test_operations_are_drawn_uniformly_among_those_that_fit():
    rng = np.random.default_rng(1)
    budget = Budget(depth=1)
    names = [
        draw_module(rng, OPTIONS, "M", STATE, budget=budget, depth=1).typed.children[0].name
        for _ in range(2600)
    ]
    counts = [names.count(name) for name in set(names)]
    assert len(counts) == 13 and min(counts) > 130 and max(counts) < 280


def test_a_module_that_is_too_large_is_refused():
    with pytest.raises(OverBudget):
        for _ in range(100):
            draw_module(np.random.default_rng(0), OPTIONS, "S", STATE, budget=Budget(3))


def test_sequences_are_drawn_with_their_convolutions():
    options = make_options(make_einspace_grammar(num_axes=2))
    for state in (state_of((1, 1000)), state_of((4, 1000)), state_of((1, 46))):
        found = draws(60, Budget(100, 10**6), options=options, state=state)
        names = set(itertools.chain.from_iterable(map(leaf_names, (each.typed for each in found))))
        assert any(name.startswith("conv1d") for name in names)
        assert not any("col" in name for name in names)


def leaf_names(typed):
    if typed.kind == "leaf":
        return [typed.name]
    return [name for child in typed.children for name in leaf_names(child)]
