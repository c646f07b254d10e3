"""What may stand in a slot of an einspace derivation, given the shapes that reach it.

Options come with their types, and are found once for each shape: shapes repeat, so drawing is a look-up.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from elenas_jax.ops.fundamental import FUNDAMENTAL_BY_NAME, FundamentalOperation
from elenas_jax.ops.fundamental_shapes import Shape
from elenas_jax.spaces.einspace_compat import compat_options
from elenas_jax.spaces.einspace_grammar import MODULE_KINDS, module_kind
from elenas_jax.spaces.einspace_typing import Rules, State, Typed, TypingError, leaf, state_of
from elenas_jax.spaces.grammar import Grammar

Option = tuple[int, Typed]  # production; the operation with its shapes
REMEMBERED = 1 << 16  # slots


class Options(NamedTuple):
    """The options of one grammar and one set of rules; only what the grammar ever draws."""

    kinds: dict[str, tuple[tuple[str, float], ...]]  # of "S" and "M": kinds of modules with their weights
    modules: dict[tuple[str, str], int]  # head and kind -> production, but for branching
    # head ("S" or "M"), state -> branching operations.
    branchings: Callable[[str, State], tuple[Option, ...]]
    # head ("P", "R" or "C"), state -> operations.
    leaves: Callable[[str, State], tuple[Option, ...]]
    # shapes of all branches, number of branches as reported to the public code -> aggregations.
    aggregations: Callable[[tuple[Shape, ...], int], tuple[Option, ...]]


def make_options(grammar: Grammar, rules: Rules = "strict") -> Options:
    """Returns the options that a grammar has under "strict" or "compat" rules."""
    compat = rules == "compat"
    drawn: dict[str, list[tuple[int, str, float]]] = {head: [] for head in grammar.nonterminals}
    for rule, production in enumerate(grammar.productions):
        if production.weight:
            drawn[production.head].append((rule, production.symbols[0], float(production.weight)))
    operations = {
        head: [
            (rule, FUNDAMENTAL_BY_NAME[name]) for rule, name, _ in drawn[head] if name in FUNDAMENTAL_BY_NAME
        ]
        for head in drawn
    }

    def fitting(
        head: str, state: State, inputs: tuple[Shape, ...] | None = None, reported: int = 0
    ) -> tuple[Option, ...]:
        rows = operations[head]
        if compat and head != "C":
            kept = compat_options([row for _, row in rows], (inputs or (state.shape,))[:2], reported)
            rows = [(rule, row) for rule, row in rows if row in kept]
        found = []
        for rule, row in rows:
            typed = _typed(row, state, inputs, reported, compat)
            if typed is not None:
                found.append((rule, typed))
        return tuple(found)

    @functools.lru_cache(REMEMBERED)
    def branchings(head: str, state: State) -> tuple[Option, ...]:
        return fitting(head, state)

    @functools.lru_cache(REMEMBERED)
    def leaves(head: str, state: State) -> tuple[Option, ...]:
        return fitting(head, state)

    @functools.lru_cache(REMEMBERED)
    def aggregations(inputs: tuple[Shape, ...], reported: int) -> tuple[Option, ...]:
        return fitting("A", state_of(inputs[0]), inputs, reported)

    return Options(
        kinds={head: _kinds(drawn[head]) for head in ("S", "M")},
        modules={
            (head, kind): rule for head in ("S", "M") for rule, kind, _ in drawn[head] if kind in MODULE_KINDS
        },
        branchings=branchings,
        leaves=leaves,
        aggregations=aggregations,
    )


def _typed(
    row: FundamentalOperation, state: State, inputs: tuple[Shape, ...] | None, reported: int, compat: bool
) -> Typed | None:
    try:
        return leaf(row, state, inputs, reported_branches=reported, compat=compat)
    except TypingError:
        return None


def _kinds(drawn: list[tuple[int, str, float]]) -> tuple[tuple[str, float], ...]:
    """Sums the weights of each kind of module."""
    weights: dict[str, float] = {}
    for _, name, weight in drawn:
        kind = module_kind(name)
        weights[kind] = weights.get(kind, 0.0) + weight
    return tuple(weights.items())
