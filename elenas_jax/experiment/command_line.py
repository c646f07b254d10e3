"""Arguments of scripts that have sub-commands: complaints of one line, and kinds of values."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {' '.join(message.split())}; see --help.", file=sys.stderr)
        sys.exit(2)


def shape(text: str) -> tuple[int, ...]:
    """Reads "3x64x64" or "32x7"."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} must look like 3x64x64 or 32x7")
    return tuple(map(int, parts))


def whole(low: int, high: int = 2**32 - 1) -> Callable[[str], int]:
    """Returns a reader of whole numbers between two bounds."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {low} to {high}")
        return int(text)

    return read


def probabilities(text: str) -> list[float]:
    """Reads "0.9,0.7": numbers between 0 and 1, exclusively."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < p < 1 for p in found):
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers between 0 and 1, like 0.9,0.7")
    return found
