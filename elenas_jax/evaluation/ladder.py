"""The ladder of tasks: from metrics to a score (Aichberger and Klambauer, 2023, section 4).

Tasks follow each other from easy to hard; a candidate that misses a threshold stops there.
"""

from collections.abc import Sequence

import numpy as np

from elenas_jax.types import AnyTask


def passes(task: AnyTask, metric: float) -> bool:
    """Whether a validation metric reaches the task's threshold."""
    return metric >= task.threshold


def ladder_score(metrics: Sequence[float], tasks: Sequence[AnyTask]) -> float:
    """Sums relu(exp(a) - exp(a_untrained)) s_d over the tasks reached.

    Args:
      metrics: one a task, NaN where it was not reached.
      tasks: in the order of the ladder.
    """
    score = 0.0
    for metric, task in zip(metrics, tasks, strict=True):
        if not np.isnan(metric):
            score += max(0.0, np.exp(metric) - np.exp(task.untrained)) * task.weight
    return float(score)
