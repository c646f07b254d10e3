"""The LSTM learns each task; a constant does not."""

import jax
import numpy as np
import pytest

import elenas_jax
from elenas_jax.tasks import LOSSES, make_task

# Reduced sequences and widths, so that a test takes seconds: (task, steps, the LSTM at least).
CASES = [
    (make_task("reber", negatives="near_miss", length=12, valid_samples=512), 600, 0.80),
    (make_task("reber", negatives="random", length=12, valid_samples=512), 150, 0.95),
    (make_task("embedded_reber", negatives="random", length=12, valid_samples=512), 200, 0.90),
    (make_task("adding", length=8, valid_samples=512), 1500, 0.50),
    (make_task("memory", length=8, valid_samples=512), 600, 0.60),
]


@pytest.mark.parametrize(
    ("task", "steps", "least"), CASES, ids=[f"{task.name}-{task.variant}" for task, _, _ in CASES]
)
def test_lstm_learns(task, steps, least):
    (record,) = elenas_jax.evaluate(
        ["lstm"], task, steps, 1, hidden_features=24, learning_rate=5e-3, num_devices=1
    )
    assert record["status"] == "ok" and record["metric"] >= least


@pytest.mark.parametrize(
    "task", [task for task, _, _ in CASES], ids=[f"{t.name}-{t.variant}" for t, _, _ in CASES]
)
def test_a_constant_does_not(task):
    """The best of many constant answers, and of every class, stays far below what the LSTM reaches."""
    targets = task.sample(jax.random.key(0), 4096).targets
    if task.out_features == 1:
        constants = [np.array([value]) for value in np.linspace(-1, 1, 201)]
    else:
        constants = list(np.eye(task.out_features))
    right = [np.mean(LOSSES[task.loss].right_fn(np.tile(c, (4096, 1)), targets)) for c in constants]
    assert max(right) < task.untrained + 0.06
