"""Trade-offs: which candidates no other one beats in both score and size."""

import numpy as np


def pareto_front(parameters: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns `[N]` booleans, True where no other candidate is as small and better, or smaller and as good.

    Args:
      parameters: `[N]`, less is better.
      scores: `[N]`, more is better; what is not finite is on no front.

    Of candidates equal in both the first is on the front.
    """
    front = np.zeros(len(scores), bool)
    best = -np.inf
    for place in np.lexsort((-scores, parameters)):
        if np.isfinite(scores[place]) and scores[place] > best:
            front[place] = True
            best = scores[place]
    return front


def thin(keep: np.ndarray, most: int) -> np.ndarray:
    """Returns the places of at most `most` of N candidates: those to keep, the others evenly spread.

    Args:
      keep: `[N]` booleans; if these alone are more than `most`, the first of them are returned.
      most: how many there may be.
    """
    if len(keep) <= most:
        return np.arange(len(keep))
    kept = np.flatnonzero(keep)[:most]
    others = np.flatnonzero(~keep)
    num = min(most - len(kept), len(others))
    spread = others[np.linspace(0, len(others) - 1, num).round().astype(int)] if num > 0 else others[:0]
    return np.sort(np.concatenate([kept, spread]))
