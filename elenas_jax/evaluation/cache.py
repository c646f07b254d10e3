"""What was trained before: the cache that evaluators ask first, and what it holds.

A key is everything a score depends on (see `population.cache_key`), so a hit is the score that
training would give, to the bit. Only what was trained is put in; invalid candidates never are.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Record(NamedTuple):
    """One trained candidate; plain Python values."""

    score: float
    metrics: tuple[float, ...]  # per task of the ladder, NaN where not reached
    status: int  # `types.OK` or a failure from 100 on
    parameters: int
    flops: float
    train_steps: int
    seconds: float  # wall clock, no part of the result


class Cache(Protocol):
    """Where records are kept between calls."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Returns the records of those keys that are known."""

    def put(self, items: Sequence[tuple[bytes, str, Record]]) -> None:
        """Keeps `(key, canonical hash, record)` rows; they are safe when this returns."""


class MemoryCache:
    """A cache that lives as long as the process: for notebooks and tests."""

    def __init__(self) -> None:
        self._records: dict[bytes, Record] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        return {key: self._records[key] for key in keys if key in self._records}

    def put(self, items: Sequence[tuple[bytes, str, Record]]) -> None:
        for key, _, record in items:
            self._records.setdefault(key, record)

    def __len__(self) -> int:
        return len(self._records)
