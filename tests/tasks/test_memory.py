"""The memory task: what has to be remembered, and what summing steps can reach."""

import jax
import numpy as np
import pytest

from elenas_jax.tasks import make_task

NUM_EXAMPLES = 20_000


@pytest.mark.parametrize("length", [20, 80])
def test_the_target_is_the_first_symbol_and_one_distractor_follows(length):
    task = make_task("memory", length=length)
    batch = task.sample(jax.random.key(0), 2_000)
    inputs = np.asarray(batch.inputs)
    assert inputs.shape == (2_000, length, task.in_features) and task.time_steps == length
    np.testing.assert_array_equal(inputs[:, 0], batch.targets)
    assert (inputs[:, 0].sum(-1) == 1).all()
    assert (inputs[:, 1:].sum((1, 2)) == 1).all()
    position = inputs[:, 1:].sum(-1).argmax(-1)
    assert set(position) == set(range(length - 1))


def test_symbols_are_uniform_and_independent():
    inputs = np.asarray(make_task("memory").sample(jax.random.key(1), NUM_EXAMPLES).inputs)
    first, distractor = inputs[:, 0].argmax(-1), inputs[:, 1:].sum(1).argmax(-1)
    counts = np.zeros((7, 7))
    np.add.at(counts, (first, distractor), 1)
    statistic = ((counts - NUM_EXAMPLES / 49) ** 2 / (NUM_EXAMPLES / 49)).sum()
    assert statistic < 84.1  # 0.999 of chi-square with 48 degrees of freedom


def test_whoever_only_sums_the_steps_is_right_in_57_percent():
    batch = make_task("memory").sample(jax.random.key(2), NUM_EXAMPLES)
    best_guess = np.asarray(batch.inputs).sum(1).argmax(-1)  # either of the two symbols
    right = best_guess == np.asarray(batch.targets).argmax(-1)
    assert abs(right.mean() - 4 / 7) < 0.015


def test_two_steps_are_the_least():
    make_task("memory", length=2).sample(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="memory: length is 1"):
        make_task("memory", length=1)
