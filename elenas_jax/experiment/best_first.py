"""Which candidate of an archive is the best, the second best, ...: one rule for searches, lists and reports.

A candidate counts with its largest budget, and there with the mean over its replicates, each as it was first
met. Equal scores stand in the order in which they were met.
"""

import heapq
import sqlite3
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_VALID_BY_SCORE = """
SELECT score, hash FROM candidates WHERE status = 0 AND score IS NOT NULL
ORDER BY score DESC, generation, place"""

_VALID_OF_HASH = """
SELECT budget, replicate, score, generation, place, parameters FROM candidates
WHERE hash = ? AND status = 0 AND score IS NOT NULL ORDER BY budget DESC, generation, place"""


class Ranked(NamedTuple):
    """A candidate; generation and place are of the first that counts."""

    score: float
    generation: int
    place: int
    hash: str
    parameters: int


def best_first(connection: sqlite3.Connection) -> Iterator[Ranked]:
    """Yields the different valid candidates, best first.

    The first ones come at once, however large the archive.

    Args:
      connection: to an archive, open for reading, see `experiment.archive`.
    """
    waiting: list[tuple[float, int, int, str, int]] = []
    seen: set[str] = set()
    for highest, digest in connection.execute(_VALID_BY_SCORE):
        # No mean is above the highest score of its candidate: what is above all rows to come is next.
        while waiting and -waiting[0][0] > highest:
            yield _ranked(heapq.heappop(waiting))
        if digest not in seen:
            seen.add(digest)
            rows = connection.execute(_VALID_OF_HASH, (digest,)).fetchall()
            largest, _, _, generation, place, parameters = rows[0]
            first: dict[int, float] = {}
            for budget, replicate, score, *_ in rows:
                if budget == largest:
                    first.setdefault(replicate, score)
            mean = mean_score(list(first.values()))
            heapq.heappush(waiting, (-mean, generation, place, digest, parameters))
    yield from map(_ranked, sorted(waiting))


def _ranked(entry: tuple[float, int, int, str, int]) -> Ranked:
    return Ranked(-entry[0], *entry[1:])


def mean_score(scores: Sequence[float]) -> float:
    """Returns the mean, in whatever order scores come, and not above them where it is rounded."""
    return min(statistics.fmean(scores), max(scores))
