"""The best episodes so far: which ones stay."""

import jax.numpy as jnp
import numpy as np

from elenas_jax.strategies.elites import Elites, no_elites, update_elites
from elenas_jax.strategies.rollouts import Rollout


def episodes(marks):
    marks = jnp.array(marks, jnp.int32)[:, None]
    return Rollout(marks, marks, jnp.zeros(marks.shape), jnp.ones(marks.shape, bool))


def test_elites_are_the_best_distinct_ones():
    elites = Elites(episodes([1, 2, 0]), jnp.array([0.5, 0.3, -jnp.inf]))
    counts = jnp.array([True, True, True, False])
    found = update_elites(elites, episodes([11, 12, 13, 14]), jnp.array([0.5, 0.4, 0.1, 0.9]), counts)
    np.testing.assert_allclose(found.returns, [0.5, 0.4, 0.3])
    np.testing.assert_array_equal(found.episodes.actions[:, 0], [1, 12, 2])


def test_empty_places_are_filled_first_and_no_places_stay_none():
    empty = no_elites(jnp.zeros(1, jnp.int32), 3, 1)
    found = update_elites(empty, episodes([5, 6]), jnp.array([-1.0, 2.0]), jnp.array([True, True]))
    np.testing.assert_array_equal(found.returns, [2.0, -1.0, -jnp.inf])
    none = no_elites(jnp.zeros(1, jnp.int32), 0, 1)
    assert update_elites(none, episodes([5]), jnp.array([1.0]), jnp.array([True])) is none
