"""Scores against the formula by hand."""

import math

import numpy as np
import pytest

from elenas_jax.evaluation import ladder_score, passes
from elenas_jax.tasks import make_task

TASKS = [make_task(name) for name in ("reber", "embedded_reber", "adding")]


def test_score_of_a_full_ladder():
    expected = 0.1 * (math.exp(0.9) - math.exp(0.5)) + 0.1 * (math.exp(0.8) - math.exp(0.5))
    expected += math.exp(0.6) - math.exp(0.15)
    assert ladder_score([0.9, 0.8, 0.6], TASKS) == pytest.approx(expected)


def test_tasks_not_reached_and_tasks_below_the_untrained_count_nothing():
    assert ladder_score([0.4, np.nan, np.nan], TASKS) == 0.0


def test_threshold_itself_passes():
    assert passes(TASKS[0], 0.8) and not passes(TASKS[0], 0.79999)
