"""Successive halving: who goes on, to which budget, and when a bracket ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces import SPACES
from elenas_jax.strategies import make_successive_halving
from elenas_jax.types import DIVERGED, NOT_EVALUATED, OK, Evaluation


def make_space():
    return SPACES["elenas"](num_nodes=3)._replace(sample=lambda key: jax.random.randint(key, (), 1, 1000))


def make(num_candidates=9, eta=3, num_budgets=3):
    return make_successive_halving(
        make_space(), num_candidates=num_candidates, eta=eta, num_budgets=num_budgets
    )


def generation(strategy, state, seed, score=lambda candidate: candidate / 1000, status=lambda candidate: OK):
    """Returns the candidates asked for, their budget, and the state after."""
    proposal, state = strategy.ask(jax.random.key(seed), state)
    candidates, asked = np.asarray(proposal.candidates), np.asarray(proposal.valid_candidates)
    num = len(candidates)
    statuses = [status(each) if yes else NOT_EVALUATED for each, yes in zip(candidates, asked)]
    evaluation = Evaluation(
        score=np.array(
            [score(each) if s == OK else 0.0 for each, s in zip(candidates, statuses)], np.float32
        ),
        metrics=np.zeros((num, 1), np.float32),
        status=np.array(statuses, np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )
    (budget,) = set(np.asarray(proposal.budget).tolist())
    return candidates[asked].tolist(), budget, strategy.tell(jax.random.key(0), state, proposal, evaluation)


def test_the_better_ones_go_on_to_larger_budgets():
    strategy = make()
    state = strategy.init(jax.random.key(0))
    first, budget, state = generation(strategy, state, 0)
    assert len(first) == 9 and budget == 0
    second, budget, state = generation(strategy, state, 1)
    assert second == sorted(first, reverse=True)[:3] and budget == 1
    # A larger budget may turn the order round.
    third, budget, state = generation(strategy, state, 2, score=lambda candidate: -candidate / 1000)
    assert third == [max(first)] and budget == 2
    assert strategy.diagnostics(state) == {"rung": 0.0, "brackets": 1.0}
    fourth, budget, state = generation(strategy, state, 3)
    assert len(fourth) == 9 and budget == 0 and fourth != first


def test_the_order_of_the_second_rung_decides():
    strategy = make()
    state = strategy.init(jax.random.key(0))
    _, _, state = generation(strategy, state, 0)
    second, _, state = generation(strategy, state, 1, score=lambda candidate: -candidate / 1000)
    third, _, _ = generation(strategy, state, 2)
    assert third == [min(second)]


def test_what_failed_does_not_go_on():
    strategy = make()
    best = []

    def status(candidate):
        return DIVERGED if candidate in best else OK

    state = strategy.init(jax.random.key(0))
    proposal, _ = strategy.ask(jax.random.key(0), state)
    ranked = sorted(np.asarray(proposal.candidates).tolist(), reverse=True)
    best += ranked[:7]
    _, _, state = generation(strategy, state, 0, status=status)
    second, _, state = generation(strategy, state, 1, status=status)
    assert second == ranked[7:]  # two are left where three might go on
    best += ranked[7:]
    _, _, state = generation(strategy, state, 2, status=status)
    assert strategy.diagnostics(state) == {"rung": 0.0, "brackets": 1.0}  # nobody is left


def test_small_brackets_keep_one():
    strategy = make(num_candidates=2, eta=4, num_budgets=2)
    state = strategy.init(jax.random.key(0))
    first, _, state = generation(strategy, state, 0)
    second, budget, state = generation(strategy, state, 1)
    assert second == [max(first)] and budget == 1
    assert jnp.result_type(state.rung) == jnp.int32


@pytest.mark.parametrize(
    "settings, words",
    (
        ({"num_budgets": 1}, "evaluator.budgets has length 1"),
        ({"num_candidates": 1}, r"num_candidates \(1\)"),
        ({"eta": 1}, r"eta \(1\)"),
    ),
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        make(**settings)
