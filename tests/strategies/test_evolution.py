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


NUM_SEEDS, PUBLISHED = 4, {"population_size": 100, "tournament_size": 10}


def seeded(num_starts=NUM_SEEDS):
    """Starts are 0, 1, ..., a mutation adds a thousand."""
    space = make_space()._replace(
        status=lambda candidate: jnp.where(candidate == 99, 2, OK), starts=jnp.arange(num_starts)
    )
    return space


def evaluated(proposal, scores) -> Evaluation:
    num = len(proposal.budget)
    return Evaluation(
        score=np.asarray(scores, np.float32),
        metrics=np.zeros((num, 1), np.float32),
        status=np.where(proposal.valid_candidates, OK, NOT_EVALUATED).astype(np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )


def search(strategy, num_samples, batch_size, score=lambda candidate: candidate % 7):
    """Runs until so many samples were asked for; returns them in order, and the state."""
    state, samples = strategy.init(jax.random.key(0)), []
    for generation in range(num_samples):
        if len(samples) >= num_samples:
            break
        proposal, state = strategy.ask(jax.random.key(generation), state)
        candidates = np.asarray(proposal.candidates)
        samples += candidates[np.asarray(proposal.valid_candidates)].tolist()
        state = strategy.tell(
            jax.random.key(0), state, proposal, evaluated(proposal, [score(each) for each in candidates])
        )
    return samples, state


def test_published_bookkeeping_from_starts():
    """1000 samples, 100 of them members at the start: 25 copies of each of 4 seeds, and 900 children."""
    strategy = make_evolution(seeded(), **PUBLISHED, batch_size=10, start="starts")
    samples, state = search(strategy, 1000, 10)
    assert len(samples) == 1000 and int(state.num_born) == 1000
    assert samples[:100] == [seed for seed in range(NUM_SEEDS) for _ in range(25)]  # four trainings
    children = [sample for sample in samples if sample >= 1000]
    assert len(children) == 900
    # First in, first out: the population is the last hundred.
    assert sorted(np.asarray(state.population).tolist()) == sorted(samples[-100:])


def test_published_bookkeeping_from_scratch():
    strategy = make_evolution(make_space(), **PUBLISHED, batch_size=10)
    samples, _ = search(strategy, 1000, 10)
    assert all(sample < 1000 for sample in samples[:100])
    assert sum(sample >= 1000 for sample in samples) == 900


def test_a_tournament_picks_the_best_as_often_as_published():
    """With replacement, 10 of 100: 1 - 0.99^10 = 9.56%."""
    strategy = make_evolution(seeded(), **PUBLISHED, batch_size=4000, start="starts")
    state = strategy.init(jax.random.key(0))
    members = jnp.arange(100) * 10_000
    state = state._replace(
        population=members, scores=jnp.arange(100, dtype=jnp.float32), num_born=jnp.int32(100)
    )
    proposal, _ = strategy.ask(jax.random.key(7), state)
    parents = (np.asarray(proposal.candidates) - 1000) // 10_000
    share = np.mean(parents == 99)
    assert abs(share - (1 - 0.99**10)) < 3 * np.sqrt(0.0956 * 0.9044 / 4000)


def test_exactly_the_oldest_is_dropped():
    strategy = make_evolution(seeded(), **PUBLISHED, batch_size=1, start="starts")
    state = strategy.init(jax.random.key(0))
    state = state._replace(
        population=jnp.arange(100), scores=jnp.zeros(100, jnp.float32), num_born=jnp.int32(100)
    )
    for number in range(3):
        proposal, state = strategy.ask(jax.random.key(number), state)
        state = strategy.tell(jax.random.key(0), state, proposal, evaluated(proposal, [1.0]))
        population = np.asarray(state.population)
        assert (population[: number + 1] >= 1000).all()
        np.testing.assert_array_equal(population[number + 1 :], np.arange(number + 1, 100))


def test_random_mutation_keeps_its_first_members():
    strategy = make_evolution(seeded(), population_size=8, batch_size=6, start="starts", frozen=True)
    samples, state = search(strategy, 60, 6, score=lambda candidate: candidate)
    assert samples[:8] == [0, 0, 1, 1, 2, 2, 3, 3]
    # Every child, however good, is one mutation away from a start.
    assert all(1000 <= child < 1000 + NUM_SEEDS for child in samples[8:])
    np.testing.assert_array_equal(state.population, [0, 0, 1, 1, 2, 2, 3, 3])
    assert int(state.num_born) == 8
    drawn = make_evolution(make_space(), population_size=8, batch_size=6, frozen=True)
    samples, state = search(drawn, 60, 6, score=lambda candidate: candidate)
    assert all(sample < 2000 for sample in samples)
    np.testing.assert_array_equal(state.population, samples[:8])


def test_starts_fill_the_population_to_the_last_place():
    strategy = make_evolution(seeded(), population_size=8, batch_size=6, start="starts")
    proposal, state = strategy.ask(jax.random.key(0), strategy.init(jax.random.key(0)))
    assert proposal.valid_candidates.all()
    state = strategy.tell(jax.random.key(0), state, proposal, evaluated(proposal, np.zeros(6)))
    proposal, _ = strategy.ask(jax.random.key(1), state)
    assert proposal.valid_candidates.tolist() == [True] * 2 + [False] * 4
    assert np.asarray(proposal.candidates)[:2].tolist() == [3, 3]


MISTAKES = {
    "no starts": (make_space, "the space elenas was made without any"),
    "an invalid start": (
        lambda: seeded()._replace(starts=jnp.array([1, 99])),
        "start 1 of the space is invalid: ",
    ),
    "no equal copies": (lambda: seeded(3), "population_size is 100; it must be a multiple of 3"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_starts_that_cannot_be(name):
    make, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        make_evolution(make(), **PUBLISHED, start="starts")
