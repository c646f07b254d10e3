"""What is said of a grammar: how many derivations it has, and what it leads to on average."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from elenas_jax.spaces.grammar import Grammar
from elenas_jax.spaces.grammar_analysis import (
    critical_probability,
    expectation_matrix,
    expected_lengths,
    non_terminating,
    probabilities,
    spectral_radius,
    unreachable,
)
from elenas_jax.spaces.grammar_counting import count_by_depth, count_by_nodes, count_derivations

LONGEST_FRACTION = 20  # letters of one that is written as such


def count_lines(grammar: Grammar, max_depth: int, max_nodes: int) -> Iterator[str]:
    """Yields the exact number of derivations that can be drawn; if infinite, by depth and by nodes."""
    sys.set_int_max_str_digits(0)  # from one depth to the next, digits double
    total = count_derivations(grammar)
    if total != math.inf:
        yield f"derivations: {total}"
        return
    yield "derivations: infinitely many"
    yield "of each depth (the root alone has 1), and up to it:"
    yield from _counted(count_by_depth(grammar, max_depth))
    yield "of each number of nodes (productions used), and up to it:"
    yield from _counted(count_by_nodes(grammar, max_nodes))


def _counted(counts: Sequence[int]) -> Iterator[str]:
    for number, found in enumerate(counts[1:], start=1):
        yield f"{number:4}  {found}  {sum(counts[: number + 1])}"


def symbol_lines(name: str, grammar: Grammar) -> Iterator[str]:
    """Yields how many symbols and productions there are, and which non-terminals are of no use."""
    yield (
        f"{name}: start {grammar.start}, {len(grammar.nonterminals)} non-terminals, "
        f"{len(grammar.terminals)} terminals, {len(grammar.productions)} productions"
    )
    yield f"unreachable non-terminals: {', '.join(unreachable(grammar)) or 'none'}"
    yield f"non-terminals that never end: {', '.join(non_terminating(grammar)) or 'none'}"


def expectation_rows(grammar: Grammar) -> list[tuple[str, ...]]:
    """Returns the expectation matrix as text, a row for each non-terminal, which stands first."""
    matrix = expectation_matrix(grammar)
    return [
        (head, *(decimal(entry) if entry else "." for entry in row))
        for head, row in zip(grammar.nonterminals, matrix, strict=True)
    ]


def growth_lines(grammar: Grammar, length: Callable[[str], int]) -> Iterator[str]:
    """Yields spectral radius, expected numbers of terminals, and critical probabilities.

    Args:
      grammar: whose weights count.
      length: of a terminal.
    """
    radius = spectral_radius(grammar)
    if radius < 1:
        ends = "derivations end with probability 1, after a finite number of steps on average"
    else:
        ends = "below 1, derivations would be finite on average"
    yield f"spectral radius: {exact(radius)}; {ends}"
    for head, found in expected_lengths(grammar, length).items():
        yield f"expected terminals of {head}: {'infinite' if found == math.inf else exact(found)}"
    for rule, (production, share) in enumerate(zip(grammar.productions, probabilities(grammar))):
        critical = critical_probability(grammar, rule) if 0 < share < 1 else None
        if critical is not None and 0 < critical < 1:
            written = f"{production.head} -> {' '.join(production.symbols)}"
            yield f"critical probability of {written}: {exact(critical)}, of now {decimal(share)}"


def decimal(value: Fraction | float) -> str:
    return f"{float(value):.6g}"


def exact(value: Fraction | float) -> str:
    """Returns a number with six decimals, and as a fraction where it is a short one."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return str(value)
    if isinstance(value, Fraction) and len(str(value)) <= LONGEST_FRACTION:
        return f"{float(value):.6f} = {value}"
    return f"{float(value):.6f}"
