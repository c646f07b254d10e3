"""What a probabilistic grammar leads to on average, exactly: growth, lengths, symbols without use.

The expectation matrix holds how many non-terminals of each kind a production of each kind leads to on
average. Its spectral radius tells whether derivations stay finite: below 1 they end with probability 1
and have a finite expected length (Harris, 1963, The Theory of Branching Processes, chapter II).
Weights count as the decimal numbers that they are written as.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from elenas_jax.spaces.grammar import Grammar
from elenas_jax.spaces.grammar_counting import ending_rules

Matrix = list[list[Fraction]]  # a row for each non-terminal that is replaced


def unreachable(grammar: Grammar) -> tuple[str, ...]:
    """Returns the non-terminals that no derivation from the start symbol has, weights of 0 included."""
    met, waiting = {grammar.start}, [grammar.start]
    while waiting:
        for rule in grammar.productions_of(waiting.pop()):
            new = set(grammar.children[rule]) - met
            met |= new
            waiting.extend(new)
    return tuple(head for head in grammar.nonterminals if head not in met)


def non_terminating(grammar: Grammar) -> tuple[str, ...]:
    """Returns the non-terminals from which nothing that can be drawn ever ends."""
    rules = ending_rules(grammar)
    return tuple(head for head in grammar.nonterminals if not rules[head])


def probabilities(grammar: Grammar) -> tuple[Fraction, ...]:
    """Returns the exact probability of each production of its head."""
    weights = [Fraction(repr(float(row.weight))) for row in grammar.productions]
    totals = dict.fromkeys(grammar.nonterminals, Fraction(0))
    for head, weight in zip(grammar.heads, weights):
        totals[head] += weight
    return tuple(
        weight / totals[head] if weight else Fraction(0) for head, weight in zip(grammar.heads, weights)
    )


def expectation_matrix(grammar: Grammar) -> Matrix:
    """Returns the expected number of each non-terminal (column) when another one (row) is replaced once.

    Rows and columns are in the order of `grammar.nonterminals`.
    """
    return _expectations(grammar, probabilities(grammar))


def _expectations(grammar: Grammar, shares: Sequence[Fraction]) -> Matrix:
    index = {head: place for place, head in enumerate(grammar.nonterminals)}
    matrix = [[Fraction(0)] * len(index) for _ in index]
    for head, children, share in zip(grammar.heads, grammar.children, shares):
        for child in children:
            matrix[index[head]][index[child]] += share
    return matrix


def spectral_radius(grammar: Grammar) -> Fraction | float:
    """Returns the spectral radius of the expectation matrix.

    It is exact if the non-terminals that decide it lead back to themselves alone, else a float.
    """
    return _radius(expectation_matrix(grammar))


def _radius(matrix: Matrix) -> Fraction | float:
    return max(_block_radius(matrix, block) for block in _blocks(matrix))


def _block_radius(matrix: Matrix, block: Sequence[int]) -> Fraction | float:
    if len(block) == 1:
        return matrix[block[0]][block[0]]
    values = np.array([[float(matrix[row][column]) for column in block] for row in block])
    return float(np.max(np.abs(np.linalg.eigvals(values))))


def _blocks(matrix: Matrix) -> list[list[int]]:
    """Returns the sets of indices that lead to one another."""
    reached = _reached(matrix)
    return [
        [other for other in range(len(matrix)) if reached[place, other] and reached[other, place]]
        for place in range(len(matrix))
        if not any(reached[place, other] and reached[other, place] for other in range(place))
    ]


def _reached(matrix: Matrix) -> np.ndarray:
    """Returns `[H, H]` bool: whether an index is, or leads to, another one."""
    reached = np.array([[entry > 0 for entry in row] for row in matrix]) | np.eye(len(matrix), dtype=bool)
    for middle in range(len(matrix)):
        reached |= np.outer(reached[:, middle], reached[middle])
    return reached


def critical_probability(grammar: Grammar, rule: int) -> Fraction | None:
    """Returns the probability of a production at which the spectral radius is 1, None if there is none.

    The other productions of its head keep their proportions.

    Raises:
      ValueError: if the head has no other production to draw.
    """
    head = grammar.heads[rule]
    shares = probabilities(grammar)
    rest = sum((shares[other] for other in grammar.productions_of(head) if other != rule), Fraction(0))
    if rest == 0:
        raise ValueError(f"{head!r} has no other production whose probability could change.")

    def matrix_at(probability: Fraction) -> Matrix:
        changed = list(shares)
        for other in grammar.productions_of(head):
            changed[other] = probability if other == rule else shares[other] / rest * (1 - probability)
        return _expectations(grammar, changed)

    # Only one row changes, and linearly, so det(1 - matrix) of the non-terminals that lead to the
    # head and back is linear in the probability.
    middle = matrix_at(Fraction(1, 2))
    place = grammar.nonterminals.index(head)
    block = next(block for block in _blocks(middle) if place in block)
    at_0, at_1 = (_determinant(_one_minus(matrix_at(Fraction(end)), block)) for end in (0, 1))
    if at_0 == at_1:
        return None
    found = at_0 / (at_0 - at_1)
    is_critical = 0 <= found <= 1 and math.isclose(_radius(matrix_at(found)), 1.0, rel_tol=1e-9)
    return found if is_critical else None


def expected_lengths(
    grammar: Grammar, length: Callable[[str], int] = lambda terminal: 1
) -> dict[str, Fraction | float]:
    """Returns the expected length of what is derived from each non-terminal, `math.inf` where it is infinite.

    Args:
      grammar: whose weights count.
      length: of a terminal.
    """
    shares = probabilities(grammar)
    matrix = _expectations(grammar, shares)
    index = {head: place for place, head in enumerate(grammar.nonterminals)}
    terminals = set(grammar.terminals)
    own = [Fraction(0)] * len(index)
    for (head, symbols, _), share in zip(grammar.productions, shares):
        own[index[head]] += share * sum(length(symbol) for symbol in symbols if symbol in terminals)
    reached = _reached(matrix)
    grows = [place for block in _blocks(matrix) if _block_radius(matrix, block) >= 1 for place in block]
    hopeless = {index[head] for head in non_terminating(grammar)} | set(grows)
    finite = [place for place in index.values() if not any(reached[place, other] for other in hopeless)]
    lengths = dict.fromkeys(index, math.inf)
    solved = _solve(_one_minus(matrix, finite), [own[place] for place in finite])
    return lengths | {grammar.nonterminals[place]: value for place, value in zip(finite, solved)}


def _one_minus(matrix: Matrix, block: Sequence[int]) -> Matrix:
    return [[(row == column) - matrix[row][column] for column in block] for row in block]


def _solve(matrix: Matrix, right: list[Fraction]) -> list[Fraction]:
    """Returns x of matrix x = right, for a matrix that has an inverse."""
    rows = [[*row, value] for row, value in zip(matrix, right)]
    for place in range(len(rows)):
        pivot = next(row for row in range(place, len(rows)) if rows[row][place])
        rows[place], rows[pivot] = rows[pivot], rows[place]
        rows[place] = [entry / rows[place][place] for entry in rows[place]]
        for row in range(len(rows)):
            if row != place and rows[row][place]:
                factor = rows[row][place]
                rows[row] = [entry - factor * other for entry, other in zip(rows[row], rows[place])]
    return [row[-1] for row in rows]


def _determinant(matrix: Matrix) -> Fraction:
    rows, determinant = [list(row) for row in matrix], Fraction(1)
    for place in range(len(rows)):
        pivot = next((row for row in range(place, len(rows)) if rows[row][place]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != place:
            rows[place], rows[pivot], determinant = rows[pivot], rows[place], -determinant
        determinant *= rows[place][place]
        for row in range(place + 1, len(rows)):
            factor = rows[row][place] / rows[place][place]
            rows[row] = [entry - factor * other for entry, other in zip(rows[row], rows[place])]
    return determinant
