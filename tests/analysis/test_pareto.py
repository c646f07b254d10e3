import numpy as np
import pytest

from elenas_jax.analysis.pareto import pareto_front, thin


def test_the_front_is_what_no_other_beats():
    numbers = np.random.default_rng(0)
    parameters, scores = numbers.integers(1, 30, 200), numbers.integers(0, 30, 200) / 30
    scores[:5] = np.nan
    front = pareto_front(parameters, scores)
    for i in range(200):
        better = (parameters <= parameters[i]) & (scores >= scores[i])
        better &= (parameters < parameters[i]) | (scores > scores[i])
        twins = (parameters == parameters[i]) & (scores == scores[i])
        assert front[i] == (not better.any() and np.argmax(twins) == i and np.isfinite(scores[i]))
    assert front.any()


def test_no_candidates_have_no_front():
    assert pareto_front(np.zeros(0), np.zeros(0)).shape == (0,)
    assert not pareto_front(np.ones(2), np.full(2, np.nan)).any()


@pytest.mark.parametrize("most", (8, 9, 50, 99))
def test_thinning_keeps_what_is_to_be_kept(most):
    keep = np.zeros(100, bool)
    keep[[0, 1, 2, 40, 41, 97, 98, 99]] = True
    places = thin(keep, most)
    assert len(set(places.tolist())) == most and np.all(np.diff(places) > 0)
    assert set(np.flatnonzero(keep)) <= set(places.tolist())


def test_few_are_all_shown_and_too_many_are_cut():
    assert thin(np.zeros(5, bool), 5).tolist() == [0, 1, 2, 3, 4]
    assert thin(np.ones(5, bool), 3).tolist() == [0, 1, 2]
    assert thin(np.zeros(0, bool), 3).tolist() == []
