"""Regularised evolution: who joins, who dies, who is a parent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces import SPACES
from elenas_jax.strategies import make_evolution
from elenas_jax.types import DIVERGED, NOT_EVALUATED, OK, Evaluation, Proposal

BATCH, MEMBERS = 4, 6


@pytest.fixture(scope="module")
def strategy():
    """Candidates are numbers; a child is its parent plus a thousand."""
    return make_evolution(make_space(), population_size=MEMBERS, batch_size=BATCH, tournament_size=40)


def make_space():
    return SPACES["elenas"](num_nodes=3)._replace(
        sample=lambda key: jax.random.randint(key, (), 0, 1000),
        mutate=lambda key, candidate: candidate + 1000,
    )


def tell(strategy, state, candidates, scores, status=OK, asked=True):
    proposal = Proposal(
        jnp.array(candidates), np.zeros(BATCH, np.int32), np.broadcast_to(np.array(asked), BATCH)
    )
    nothing = np.zeros(BATCH, np.float32)
    evaluation = Evaluation(
        score=np.array(scores, np.float32),
        metrics=np.zeros((BATCH, 1), np.float32),
        status=np.broadcast_to(np.array(status, np.int32), BATCH),
        parameters=np.zeros(BATCH, np.int32),
        flops=nothing,
        train_steps=np.zeros(BATCH, np.int32),
        seconds=nothing,
    )
    return strategy.tell(jax.random.key(0), state, proposal, evaluation)


def test_the_oldest_dies(strategy):
    state = strategy.init(jax.random.key(0))
    state = tell(strategy, state, [1, 2, 3, 4], [0.9, 0.1, 0.2, 0.3])
    state = tell(strategy, state, [5, 6, 7, 8], [0.4, 0.5, 0.6, 0.7])
    assert sorted(np.asarray(state.population)) == [3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(sorted(state.scores), [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert int(state.num_born) == 8


def test_the_invalid_do_not_join_and_the_failed_do(strategy):
    state = strategy.init(jax.random.key(0))
    state = tell(
        strategy,
        state,
        [1, 2, 3, 4],
        [0.5, 0.5, np.nan, 0.5],
        status=[OK, 4, DIVERGED, NOT_EVALUATED],
        asked=[True, True, True, False],
    )
    assert int(state.num_born) == 2
    np.testing.assert_array_equal(state.population[:2], [1, 3])
    np.testing.assert_array_equal(state.scores[:2], np.array([0.5, 0.0], np.float32))


def test_children_come_from_winners_once_there_is_a_population(strategy):
    state = strategy.init(jax.random.key(0))
    state = tell(strategy, state, [1, 2, 3, 4], [0.1, 0.9, 0.2, 0.3])
    proposal, _ = strategy.ask(jax.random.key(1), state)
    assert np.all(np.asarray(proposal.candidates) < 1000)  # still drawn
    state = tell(strategy, state, [5, 6, 7, 8], [0.4, 0.8, 0.6, 0.7])
    proposal, _ = strategy.ask(jax.random.key(1), state)
    np.testing.assert_array_equal(proposal.candidates, 1006)  # 2 is dead, 6 is the best


def test_of_more_newcomers_than_places_the_last_stay(strategy):
    space = SPACES["elenas"](num_nodes=3)._replace(sample=lambda key: jax.random.randint(key, (), 0, 9))
    small = make_evolution(space, population_size=3, batch_size=BATCH)
    state = tell(small, small.init(jax.random.key(0)), [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])
    assert sorted(np.asarray(state.population)) == [2, 3, 4]


def test_some_of_a_generation_are_drawn_anew():
    strategy = make_evolution(make_space(), population_size=MEMBERS, batch_size=BATCH, num_random=1)
    state = strategy.init(jax.random.key(0))
    for _ in range(2):  # the population is drawn
        proposal, state = strategy.ask(jax.random.key(1), state)
        assert (proposal.candidates < 1000).all()
        state = tell(strategy, state, proposal.candidates, [0.1, 0.2, 0.3, 0.4])
    for number in range(4):
        proposal, state = strategy.ask(jax.random.key(number), state)
        assert ((proposal.candidates < 1000) == np.array([True, False, False, False])).all()
    with pytest.raises(ValueError, match="num_random is 4; allowed are 0 to below batch_size"):
        make_evolution(make_space(), batch_size=4, num_random=4)
