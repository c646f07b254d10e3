"""What holds for every strategy; the table of strategies is the parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces import make_elenas
from elenas_jax.strategies import STRATEGIES
from elenas_jax.types import OK
from tests.strategies.toy import make_judge, search

SMALL = {
    "random_search": {"batch_size": 6},
    "evolution": {"batch_size": 6, "population_size": 12, "tournament_size": 4},
    "successive_halving": {"num_candidates": 6, "num_budgets": 2},
    "reinforce": {"batch_size": 8, "num_trained": 3, "num_minibatches": 2, "num_elites": 2, "width": 8},
    "ppo": {
        "num_episodes": 8,
        "num_trained": 3,
        "epochs": 1,
        "num_elites": 2,
        "width": 8,
        "num_layers": 1,
        "num_heads": 2,
    },
}


class Counted:
    """Counts how often a function of a space is traced."""

    def __init__(self, function):
        self.function = function
        self.count = 0

    def __call__(self, *arguments):
        self.count += 1
        return self.function(*arguments)


@pytest.fixture(scope="module")
def space():
    return make_elenas(num_nodes=8, max_draws=200)


@pytest.fixture(scope="module")
def evaluate(space):
    return make_judge(space)


@pytest.fixture(scope="module", params=list(STRATEGIES))
def made(request, space):
    """A strategy, the counter of its compilations, and its state after three generations."""
    status = Counted(space.status)
    sample, mutate = Counted(space.sample), Counted(space.mutate)
    extend = Counted(space.growth.extend)
    counted = space._replace(
        status=status, sample=sample, mutate=mutate, growth=space.growth._replace(extend=extend)
    )
    strategy = STRATEGIES[request.param](counted, **SMALL[request.param])
    counters = (status, sample, mutate, extend)
    return strategy, lambda: sum(counter.count for counter in counters)


def generation(strategy, evaluate, state, seed):
    key_ask, key_tell = jax.random.split(jax.random.key(seed))
    proposal, state = strategy.ask(key_ask, state)
    evaluation = evaluate(proposal.candidates, np.asarray(proposal.valid_candidates))
    return proposal, evaluation, strategy.tell(key_tell, state, proposal, evaluation)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_state_keeps_shapes_and_what_is_told_counts(made, evaluate):
    strategy, count_traces = made
    start = state = strategy.init(jax.random.key(0))
    for seed in range(3):
        _, _, state = generation(strategy, evaluate, state, seed)
        if seed == 0:
            traced = count_traces()
    assert count_traces() == traced, "a later generation compiled again"
    assert jax.tree.structure(state) == jax.tree.structure(start)
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert (jnp.shape(before), jnp.result_type(before)) == (jnp.shape(after), jnp.result_type(after))
        assert not jnp.issubdtype(jnp.result_type(after), jax.dtypes.prng_key)
    assert any(
        not np.array_equal(before, after)
        for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True)
    )
    diagnostics = strategy.diagnostics(state)
    assert all(np.isfinite(float(value)) for value in diagnostics.values())


def test_ask_is_pure_and_goes_on_from_a_stored_state(made, evaluate):
    strategy, _ = made
    state = strategy.init(jax.random.key(1))
    for seed in range(2):
        _, _, state = generation(strategy, evaluate, state, seed)
    leaves, structure = jax.tree.flatten(state)
    stored = structure.unflatten([jnp.asarray(np.asarray(leaf).copy()) for leaf in leaves])
    # Also tell: seconds differ between the two, and nothing else.
    assert_equal(
        generation(strategy, evaluate, state, 7)[::2], generation(strategy, evaluate, stored, 7)[::2]
    )
    assert_equal(stored, state)


def test_proposals_are_well_formed(made, evaluate):
    strategy, _ = made
    state = strategy.init(jax.random.key(2))
    proposal, state = strategy.ask(jax.random.key(3), state)
    num = len(proposal.valid_candidates)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(proposal.candidates)} == {num}
    np.testing.assert_array_equal(proposal.budget, np.zeros(num, np.int32))
    assert proposal.budget.dtype == jnp.int32 and proposal.valid_candidates.dtype == bool
    other, _ = strategy.ask(jax.random.key(4), state)
    assert not np.array_equal(other.candidates.edges, proposal.candidates.edges)


@pytest.mark.parametrize(
    ("name", "setting", "num_evaluations"),
    [
        ("evolution", {"batch_size": 8, "population_size": 24}, 160),
        ("reinforce", {"width": 16}, 160),
        (
            "ppo",  # it imitates nobody and takes a little longer
            {
                "num_episodes": 64,
                "num_trained": 8,
                "batch_size": 480,
                "learning_rate": 1e-2,
                "discount": 1.0,
                "max_gradient_norm": 1.0,
                "exploration": 0.05,
                "width": 16,
                "num_layers": 1,
                "num_heads": 2,
            },
            300,
        ),
    ],
)
def test_learning_strategies_beat_random_search_on_a_toy(name, setting, num_evaluations):
    """The mean of three seeds: a single one depends on how a machine rounds."""
    space = make_elenas(num_nodes=12)
    evaluate = make_judge(space)

    def late(strategy, num):
        found = [search(space, strategy, evaluate, seed=seed, num_evaluations=num) for seed in range(3)]
        assert all(len(one.scores) == num for one in found)
        return np.mean([one.scores[-60:].mean() for one in found])

    random = late(STRATEGIES["random_search"](space, batch_size=32), 160)
    assert late(STRATEGIES[name](space, **setting), num_evaluations) > 1.5 * random


def test_random_search_proposes_valid_candidates_only(space, evaluate):
    strategy = STRATEGIES["random_search"](space, batch_size=16)
    proposal, _ = strategy.ask(jax.random.key(0), strategy.init(jax.random.key(1)))
    assert np.all(evaluate(proposal.candidates, np.ones(16, bool)).status == OK)
