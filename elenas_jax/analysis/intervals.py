"""How sure a mean over seeds is."""

import numpy as np
from scipy import stats


def half_width(values: np.ndarray) -> np.ndarray:
    """Returns half of the 95% confidence interval of the mean over the first axis, by Student's t.

    Args:
      values: `[S, ...]` of S seeds, 2 or more, taken as normal.
    """
    num = len(values)
    return stats.t.ppf(0.975, num - 1) * values.std(axis=0, ddof=1) / np.sqrt(num)
