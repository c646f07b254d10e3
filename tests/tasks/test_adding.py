"""The adding problem: targets from inputs, positions, and what a constant reaches."""

import jax
import numpy as np
import pytest

from elenas_jax.tasks import LOSSES, make_task

NUM_EXAMPLES = 20_000


@pytest.fixture(scope="module")
def batch():
    return make_task("adding").sample(jax.random.key(0), NUM_EXAMPLES)


def test_targets_are_half_the_sum_of_two_marked_values(batch):
    inputs = np.asarray(batch.inputs)
    assert inputs.shape == (NUM_EXAMPLES, 32, 2)
    values, markers = inputs[..., 0], inputs[..., 1]
    assert np.isin(markers, (0, 1)).all() and (markers.sum(1) == 2).all()
    assert values.min() >= 0 and values.max() <= 1 and abs(values.mean() - 0.5) < 0.01
    np.testing.assert_allclose(batch.targets[:, 0], (values * markers).sum(1) / 2, atol=1e-6)


def test_every_pair_of_positions_is_equally_likely(batch):
    pairs = np.array([np.flatnonzero(row) for row in np.asarray(batch.inputs)[..., 1]])
    counts = np.zeros((32, 32))
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    counts = counts[np.triu_indices(32, 1)]
    expected = NUM_EXAMPLES / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < 605  # 0.999 of chi-square with 495 degrees of freedom is 598


def test_a_constant_half_is_right_in_15_percent(batch):
    right = LOSSES["squared"].right_fn(np.full((NUM_EXAMPLES, 1), 0.5), batch.targets)
    assert abs(np.mean(right) - (1 - 0.92**2)) < 0.01


def test_two_steps_are_the_least():
    inputs = make_task("adding", length=2).sample(jax.random.key(0), 8).inputs
    np.testing.assert_array_equal(inputs[..., 1], 1)
    with pytest.raises(ValueError, match="adding: length is 1"):
        make_task("adding", length=1)
