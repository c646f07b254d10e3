"""Axes of charts: from values to places, and which values are marked."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Scale(NamedTuple):
    """Maps values to places of a picture, linearly or by their logarithm."""

    low: float  # the values at the ends
    high: float
    start: float  # the places of the ends
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear_range(values: np.ndarray, with_zero: bool = False, pad: float = 0.06) -> tuple[float, float]:
    """Returns ends a little outside the finite `values`; zero, if wanted or all there is, is an end."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        margin = 0.5 * abs(high) or 1.0
    else:
        margin = pad * (high - low)
    return (0.0 if with_zero and low == 0.0 else low - margin), (
        0.0 if with_zero and high == 0.0 < -low else high + margin
    )


def log_range(values: np.ndarray, pad: float = 0.06) -> tuple[float, float]:
    """Returns ends a little outside the positive `values`, as far by their logarithm on both sides."""
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 10.0)
    factor = max((high / low) ** pad, 1.15)
    return low / factor, high * factor


def linear_ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Returns at most `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`."""
    exponent = math.floor(math.log10((high - low) / most)) if high > low else 0
    steps = [base * 10.0**power for power in range(exponent, exponent + 3) for base in (1, 2, 5)]
    for step in steps:
        if whole and step < 1:
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [place * step for place in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns at most `most` round values from `low` to `high`, from as fine a row as fits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rows: Sequence[Sequence[float]] = (
        (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
        (1, 2, 3, 5, 7),
        (1, 2, 5),
        (1, 3),
        (1,),
    )
    for row in rows:
        ticks = [base * 10.0**power for power in powers for base in row]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) < 2:  # less than a step of the finest row
        return linear_ticks(low, high, most)
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the ticks as text: all with as many decimals as they need, large ones as 20k, 3M."""
    return [_label(tick, ticks) for tick in ticks]


def _label(tick: float, ticks: Sequence[float]) -> str:
    largest = max(abs(value) for value in ticks)
    if tick == 0:
        return "0"
    if largest < 1e-4 or largest >= 1e12:
        return f"{tick:.3g}"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(tick) >= unit and largest >= 10_000:
            return f"{tick / unit:.6g}".replace("-", "\u2212") + letter
    for decimals in range(8):
        if all(abs(value - round(value, decimals)) <= 1e-6 * largest for value in ticks):
            break
    return f"{tick:,.{decimals}f}".replace("-", "\u2212")
