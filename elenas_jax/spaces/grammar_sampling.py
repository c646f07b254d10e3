"""Drawing derivations of a grammar within a budget, and how probable they are without one.

A derivation is drawn from its root, each production in proportion to its weight among those with which
the derivation can still end within the budget. Which these are is known beforehand: for each non-terminal
and depth, the cheapest ways to end. So a draw never goes back, and it always ends, whatever the grammar.
Near the limit the draws are not those of the unlimited sampler given that it stays below.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.spaces.grammar import Grammar, Node, flatten, grow_tree

NO_LIMIT = 2**62


class Size(NamedTuple):
    """How large a derivation is, or may be."""

    nodes: int  # of the tree, one for each production used
    depth: int = NO_LIMIT  # nodes on the longest path from the root
    cost: int = NO_LIMIT  # sum of what the caller says that each production costs


class Sampler(NamedTuple):
    """Draws derivations within a budget."""

    grammar: Grammar
    limit: Size
    costs: tuple[int, ...]  # of each production
    can_draw: Callable[[str, Size], bool]  # whether something from a head fits a size
    draw: Callable[..., Node]  # np.random.Generator, head (the start symbol), Size (the limit) -> Node


# Ways to end: (nodes, cost) of which none is worse than another in both, fewest nodes first.
_Needs = tuple[tuple[int, int], ...]
_NOTHING: _Needs = ((0, 0),)


class _Choice(NamedTuple):
    """The productions that a non-terminal has within some depth."""

    rules: tuple[int, ...]
    weights: tuple[float, ...]
    cumulative: list[float]
    needs: tuple[_Needs, ...]  # of each production
    needs_after: dict[int, tuple[_Needs, ...]]  # for each child of a production, of those right of it
    enough: tuple[int, int]  # nodes and cost with which every production can end
    cheapest: _Needs


def make_sampler(grammar: Grammar, limit: Size, costs: Sequence[int] | None = None) -> Sampler:
    """Makes a sampler of derivations within a budget.

    Args:
      grammar: whose weights count; for uniform choices see `uniform_weights`.
      limit: of nodes, depth and cost, each inclusive.
      costs: of each production, whole numbers from 0 on; None costs nothing.

    Returns:
      A sampler. Its `draw` raises ValueError if nothing from a head fits the size that is given.

    Raises:
      ValueError: for costs that are none, or if no derivation from the start symbol fits.
    """
    costs = (0,) * len(grammar.productions) if costs is None else tuple(costs)
    if len(costs) != len(grammar.productions) or not all(cost >= 0 and cost == int(cost) for cost in costs):
        raise ValueError(
            f"costs is {costs!r:.80}; it must hold a whole number from 0 on for each of "
            f"{len(grammar.productions)} productions."
        )
    levels = _levels(grammar, limit, costs)

    def can_draw(head: str, size: Size) -> bool:
        nodes, depth, cost = map(min, size, limit)
        if depth < 1:
            return False
        return _fits(levels[min(depth, len(levels)) - 1][head].cheapest, _NOTHING, nodes, cost)

    def draw(rng: np.random.Generator, head: str | None = None, size: Size = limit) -> Node:
        head = grammar.start if head is None else head
        if not can_draw(head, size):
            raise ValueError(f"No derivation of {head!r} that can be drawn has {_words(size)}.")
        nodes, depth, cost = map(min, size, limit)
        rules = []
        # Non-terminals that are still open, the leftmost last: depth that is left, needs of those below.
        stack = [(head, depth, _NOTHING)]
        while stack:
            head, depth, below = stack.pop()
            choice = levels[min(depth, len(levels)) - 1][head]
            allowed, cumulative = choice.rules, choice.cumulative
            if choice.enough[0] + below[0][0] > nodes or choice.enough[1] + below[0][1] > cost:
                fitting = [
                    place for place, needs in enumerate(choice.needs) if _fits(needs, below, nodes, cost)
                ]
                allowed = tuple(choice.rules[place] for place in fitting)
                cumulative = list(itertools.accumulate(choice.weights[place] for place in fitting))
            place = 0
            if len(allowed) > 1:
                place = bisect.bisect_right(cumulative, rng.random() * cumulative[-1], 0, len(allowed) - 1)
            rule = allowed[place]
            rules.append(rule)
            nodes, cost = nodes - 1, cost - costs[rule]
            children = grammar.children[rule]
            for child, after in zip(children[::-1], choice.needs_after[rule][::-1]):
                stack.append((child, depth - 1, _add(after, below, limit)))
        return grow_tree(grammar, rules, grammar.heads[rules[0]])

    if not can_draw(grammar.start, limit):
        raise ValueError(f"No derivation of {grammar.start!r} that can be drawn has {_words(limit)}.")
    return Sampler(grammar, limit, costs, can_draw, draw)


def _levels(grammar: Grammar, limit: Size, costs: Sequence[int]) -> list[dict[str, _Choice]]:
    """Returns the choices within depth 1, 2 and so on, up to where more depth changes nothing."""
    levels: list[dict[str, _Choice]] = []
    cheapest: dict[str, _Needs] = dict.fromkeys(grammar.nonterminals, ())
    while len(levels) < limit.depth:
        level = {head: _choice(grammar, head, cheapest, limit, costs) for head in grammar.nonterminals}
        levels.append(level)
        before, cheapest = cheapest, {head: choice.cheapest for head, choice in level.items()}
        if cheapest == before:
            break
    return levels


def _choice(
    grammar: Grammar, head: str, below: dict[str, _Needs], limit: Size, costs: Sequence[int]
) -> _Choice:
    """Returns the productions of `head` that can end, given the needs `below` with one level less."""
    rules, all_needs, needs_after = [], [], {}
    for rule in grammar.productions_of(head):
        if grammar.productions[rule].weight == 0:
            continue
        after, rest = [], _NOTHING
        for child in grammar.children[rule][::-1]:
            after.append(rest)
            rest = _add(below[child], rest, limit)
        needs = _add(((1, costs[rule]),), rest, limit)
        if needs:
            rules.append(rule)
            all_needs.append(needs)
            needs_after[rule] = tuple(after[::-1])
    weights = tuple(grammar.productions[rule].weight for rule in rules)
    first = [needs[0] for needs in all_needs]
    return _Choice(
        rules=tuple(rules),
        weights=weights,
        cumulative=list(itertools.accumulate(weights)),
        needs=tuple(all_needs),
        needs_after=needs_after,
        enough=(max((nodes for nodes, _ in first), default=0), max((cost for _, cost in first), default=0)),
        cheapest=_best(point for needs in all_needs for point in needs),
    )


def _add(one: _Needs, other: _Needs, limit: Size) -> _Needs:
    """Returns the ways to end both, empty if there is none within the limit."""
    if len(one) == len(other) == 1:  # nearly always
        nodes, cost = one[0][0] + other[0][0], one[0][1] + other[0][1]
        return ((nodes, cost),) if nodes <= limit.nodes and cost <= limit.cost else ()
    sums = ((a[0] + b[0], a[1] + b[1]) for a in one for b in other)
    return _best((nodes, cost) for nodes, cost in sums if nodes <= limit.nodes and cost <= limit.cost)


def _best(points) -> _Needs:
    best: list[tuple[int, int]] = []
    for nodes, cost in sorted(points):
        if not best or cost < best[-1][1]:
            best.append((nodes, cost))
    return tuple(best)


def _fits(needs: _Needs, below: _Needs, nodes: int, cost: int) -> bool:
    return any(a[0] + b[0] <= nodes and a[1] + b[1] <= cost for a in needs for b in below)


def _words(size: Size) -> str:
    named = (("nodes", size.nodes), ("depth", size.depth), ("cost", size.cost))
    parts = [f"at most {number} {name}" for name, number in named if number < NO_LIMIT]
    return ", ".join(parts) or "an end"


def measure(grammar: Grammar, node: Node, costs: Sequence[int] | None = None) -> Size:
    """Returns how large a derivation is; `costs` as in `make_sampler`."""
    rules = flatten(node)
    cost = 0 if costs is None else sum(costs[rule] for rule in rules)
    return Size(len(rules), max(depths(grammar, rules)), cost)


def depths(grammar: Grammar, rules: Sequence[int]) -> list[int]:
    """Returns for each rule of a derivation how deep it is, 1 for the root."""
    found, stack = [], [1]
    for rule in rules:
        depth = stack.pop()
        found.append(depth)
        stack.extend([depth + 1] * len(grammar.children[rule]))
    return found


def least_nodes(grammar: Grammar) -> dict[str, int]:
    """Returns the fewest nodes of a derivation from each non-terminal that has one, weights of 0 included."""
    least: dict[str, int] = {}
    while True:
        before = dict(least)
        for head, children in zip(grammar.heads, grammar.children):
            if all(child in least for child in children):
                nodes = 1 + sum(least[child] for child in children)
                least[head] = min(nodes, least.get(head, nodes))
        if least == before:
            return least


def uniform_weights(grammar: Grammar) -> Grammar:
    """Returns the grammar with equal weights, those of 0 apart, which stay."""
    return Grammar(
        grammar.start, tuple(row._replace(weight=float(row.weight > 0)) for row in grammar.productions)
    )


def log_weights(grammar: Grammar) -> np.ndarray:
    """Returns `[K]` float64, the log-probability of each production of its head; -inf for weights of 0."""
    weights = np.array([row.weight for row in grammar.productions])
    totals = {head: weights[list(grammar.productions_of(head))].sum() or 1.0 for head in grammar.nonterminals}
    with np.errstate(divide="ignore"):
        return np.log(weights) - np.log([totals[head] for head in grammar.heads])


def log_probability(grammar: Grammar, node: Node) -> float:
    """Returns the log-probability of a derivation by the weights, -inf if it uses one of 0.

    It is that of draws without a budget. Derivations that differ in equal productions alone are
    apart; `merge_duplicates` puts their weights on one of them.
    """
    return math.fsum(log_weights(grammar)[flatten(node)])
