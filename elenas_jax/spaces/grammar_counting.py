"""How many derivations a grammar has, exactly; all of them in order, and uniform draws among them.

Productions of weight 0 count nowhere here: what is counted is what can be drawn. Counts are whole numbers
of any size. Equal productions count each, unless `merge_duplicates` was applied.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from elenas_jax.spaces.grammar import Grammar, Node, flatten, grow_tree

MOST_DERIVATIONS = 2**20

Heads = tuple[str, ...]


def merge_duplicates(grammar: Grammar) -> Grammar:
    """Returns the grammar with the weights of equal productions on the first of them, 0 on the others.

    Indices stay as they are; `canonical` turns a derivation into the one without the others.
    """
    weights = [row.weight for row in grammar.productions]
    for rule, first in enumerate(_firsts(grammar)):
        if first != rule:
            weights[first] += weights[rule]
            weights[rule] = 0.0
    rows = zip(grammar.productions, weights)
    return Grammar(grammar.start, tuple(row._replace(weight=weight) for row, weight in rows))


def canonical(grammar: Grammar, node: Node) -> Node:
    """Returns the derivation of the same term that uses the first of equal productions."""
    firsts = _firsts(grammar)
    return grow_tree(grammar, [firsts[rule] for rule in flatten(node)], grammar.heads[node.rule])


def _firsts(grammar: Grammar) -> list[int]:
    met: dict[tuple[str, tuple[str, ...]], int] = {}
    return [met.setdefault((row.head, row.symbols), rule) for rule, row in enumerate(grammar.productions)]


def ending_rules(grammar: Grammar) -> dict[str, list[int]]:
    """Returns the productions of each non-terminal that can be drawn and lead to a derivation that ends."""
    ends: set[str] = set()
    while True:  # from those whose children all end
        rules = {
            head: [
                rule
                for rule in grammar.productions_of(head)
                if grammar.productions[rule].weight > 0 and ends.issuperset(grammar.children[rule])
            ]
            for head in grammar.nonterminals
        }
        more = {head for head, found in rules.items() if found}
        if more == ends:
            return rules
        ends = more


def count_derivations(grammar: Grammar, head: str | None = None) -> int | float:
    """Returns how many derivations there are, `math.inf` for infinitely many.

    Args:
      grammar: of the derivations.
      head: what is derived; None is the start symbol.
    """
    return _totals(grammar, ending_rules(grammar)).get(_checked(grammar, head), math.inf)


def _totals(grammar: Grammar, rules: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns the number of derivations from each non-terminal that has finitely many."""
    totals: dict[str, int] = {}
    while True:  # from those whose children are counted; what never is leads in circles that can end
        ready = {
            head: found
            for head, found in rules.items()
            if head not in totals
            and all(child in totals for rule in found for child in grammar.children[rule])
        }
        if not ready:
            return totals
        for head, found in ready.items():
            totals[head] = sum(_product(totals, grammar.children[rule]) for rule in found)


def _product(totals: Mapping[str, int], heads: Heads) -> int:
    return math.prod(totals[head] for head in heads)


def count_by_depth(grammar: Grammar, max_depth: int, head: str | None = None) -> list[int]:
    """Returns how many derivations have a depth of 0, 1, ... up to `max_depth`; the root alone has 1."""
    wanted, rules = _checked(grammar, head), ending_rules(grammar)
    within = dict.fromkeys(grammar.nonterminals, 0)
    totals = [0]
    for _ in range(max_depth):
        within = {
            head: sum(_product(within, grammar.children[rule]) for rule in found)
            for head, found in rules.items()
        }
        totals.append(within[wanted])
    return [0, *(more - fewer for fewer, more in itertools.pairwise(totals))]


def count_by_nodes(grammar: Grammar, max_nodes: int, head: str | None = None) -> list[int]:
    """Returns how many derivations have 0, 1, ... up to `max_nodes` nodes, that is, productions used."""
    return _forests(grammar, ending_rules(grammar), max_nodes)[(_checked(grammar, head),)]


def _forests(grammar: Grammar, rules: Mapping[str, Sequence[int]], max_nodes: int) -> dict[Heads, list[int]]:
    """Returns by heads how many sequences of derivations from these have 0, 1, ... nodes in all."""
    children = [grammar.children[rule] for found in rules.values() for rule in found]
    ends = {heads[place:] for heads in children for place in range(len(heads))}
    ends |= {(head,) for head in grammar.nonterminals}
    forests: dict[Heads, list[int]] = {(): [1] + [0] * max_nodes}
    forests |= {heads: [0] * (max_nodes + 1) for heads in sorted(ends, key=len)}
    for nodes in range(1, max_nodes + 1):
        for heads, counts in forests.items():
            if len(heads) == 1:
                counts[nodes] = sum(forests[grammar.children[rule]][nodes - 1] for rule in rules[heads[0]])
            elif heads:
                first, rest = forests[heads[:1]], forests[heads[1:]]
                counts[nodes] = sum(first[taken] * rest[nodes - taken] for taken in range(1, nodes))
    return forests


def number_derivations(
    grammar: Grammar, max_nodes: int | None = None, head: str | None = None
) -> tuple[int, Callable[[int], Node]]:
    """Numbers all derivations.

    Args:
      grammar: of the derivations.
      max_nodes: that they have at most; None is no limit. With a limit, smaller ones come first.
      head: what is derived; None is the start symbol.

    Returns:
      How many there are, and a function from a number, from 0 on, to its derivation.

    Raises:
      ValueError: if there are infinitely many.
    """
    wanted, rules = _checked(grammar, head), ending_rules(grammar)
    if max_nodes is not None:
        return _number_by_nodes(grammar, rules, _forests(grammar, rules, max_nodes), wanted)
    totals = _totals(grammar, rules)
    if wanted not in totals:
        raise ValueError(
            f"There are infinitely many derivations of {wanted!r}; give the most nodes they may have."
        )

    def derivation(number: int) -> Node:
        found, open_heads = [], [(wanted, number)]
        while open_heads:
            head, number = open_heads.pop()
            for rule in rules[head]:
                children = grammar.children[rule]
                count = _product(totals, children)
                if number < count:
                    break
                number -= count
            found.append(rule)
            for child in children[::-1]:
                number, number_child = divmod(number, totals[child])
                open_heads.append((child, number_child))
        return grow_tree(grammar, found, wanted)

    return totals[wanted], derivation


def _number_by_nodes(
    grammar: Grammar, rules: Mapping[str, Sequence[int]], forests: Mapping[Heads, Sequence[int]], wanted: str
) -> tuple[int, Callable[[int], Node]]:
    def derivation(number: int) -> Node:
        nodes, number = _locate(forests[(wanted,)], number)
        found: list[int] = []
        open_heads: list[tuple[Heads, int, int]] = [((wanted,), nodes, number)]
        while open_heads:
            heads, nodes, number = open_heads.pop()
            if len(heads) == 1:
                counts = [forests[grammar.children[rule]][nodes - 1] for rule in rules[heads[0]]]
                place, number = _locate(counts, number)
                found.append(rules[heads[0]][place])
                open_heads.append((grammar.children[found[-1]], nodes - 1, number))
            elif heads:
                first, rest = forests[heads[:1]], forests[heads[1:]]
                taken, number = _locate(
                    [first[taken] * rest[nodes - taken] for taken in range(nodes)], number
                )
                number_first, number_rest = divmod(number, rest[nodes - taken])
                open_heads.append((heads[1:], nodes - taken, number_rest))
                open_heads.append((heads[:1], taken, number_first))
        return grow_tree(grammar, found, wanted)

    return sum(forests[(wanted,)]), derivation


def _locate(counts: Sequence[int], number: int) -> tuple[int, int]:
    """Returns the place that a number falls into, and the number from that place's first on."""
    for place, count in enumerate(counts):
        if number < count:
            return place, number
        number -= count
    raise ValueError("There are fewer derivations than the number says.")


def enumerate_derivations(
    grammar: Grammar, max_nodes: int | None = None, head: str | None = None
) -> Iterator[Node]:
    """Yields all derivations once each; arguments and errors as in `number_derivations`.

    Raises:
      ValueError: also if there are more than `MOST_DERIVATIONS`.
    """
    count, derivation = number_derivations(grammar, max_nodes, head)
    if count > MOST_DERIVATIONS:
        raise ValueError(f"There are {count:,} derivations; at most {MOST_DERIVATIONS:,} are enumerated.")
    return map(derivation, range(count))


def make_uniform_sampler(
    grammar: Grammar, max_nodes: int | None = None, head: str | None = None
) -> Callable[[np.random.Generator], Node]:
    """Makes a sampler that draws all derivations with the same probability.

    Arguments and errors as in `number_derivations`; a ValueError also if there are none.
    """
    count, derivation = number_derivations(grammar, max_nodes, head)
    if count == 0:
        raise ValueError(f"There is no derivation of {_checked(grammar, head)!r}.")
    return lambda rng: derivation(_below(rng, count))


def _below(rng: np.random.Generator, limit: int) -> int:
    """Draws a whole number from 0 to below `limit`, whatever its size."""
    num_bits = limit.bit_length()
    while True:
        number = int.from_bytes(rng.bytes(-(-num_bits // 8)), "little") & ((1 << num_bits) - 1)
        if number < limit:
            return number


def _checked(grammar: Grammar, head: str | None) -> str:
    """Returns the head, the start symbol if there is none; raises ValueError unless it is a non-terminal."""
    head = grammar.start if head is None else head
    grammar.productions_of(head)
    return head
