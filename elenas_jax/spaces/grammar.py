"""Context-free grammars as data, and their derivations as trees, as lists of rules and as padded arrays.

A grammar is a start symbol and productions; a symbol is a non-terminal if it heads one. A derivation is a
tree of production indices or, the same thing, these in the order of a leftmost derivation, which visits
the tree from the root, children from left to right. Knows nothing of networks.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.types import AnyArray

Path = tuple[int, ...]  # from the root: which child of each node


class Production(NamedTuple):
    """A rule of a grammar: `head` may be replaced by `symbols`."""

    head: str
    symbols: tuple[str, ...]
    weight: float  # relative to the head's other productions; 0 is legal in a derivation, but never drawn


class Node(NamedTuple):
    """A derivation as a tree."""

    rule: int
    children: tuple["Node", ...]  # one for each non-terminal of the rule's symbols, left to right


class Derivation(NamedTuple):
    """A derivation as an array: the candidate of a space of derivations."""

    rules: AnyArray  # [N] int16, production indices from the root, children left to right; then -1


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A context-free grammar; made by `make_grammar` or `parse_grammar`, which check it."""

    start: str
    productions: tuple[Production, ...]  # grouped by head, in the order written

    @functools.cached_property
    def nonterminals(self) -> tuple[str, ...]:
        """The symbols that head a production, in the order written."""
        return tuple(dict.fromkeys(self.heads))

    @functools.cached_property
    def terminals(self) -> tuple[str, ...]:
        """All other symbols, in the order of their first use."""
        used = dict.fromkeys(symbol for row in self.productions for symbol in row.symbols)
        return tuple(symbol for symbol in used if symbol not in self._by_head)

    @functools.cached_property
    def heads(self) -> tuple[str, ...]:
        """The head of each production."""
        return tuple(row.head for row in self.productions)

    @functools.cached_property
    def children(self) -> tuple[tuple[str, ...], ...]:
        """The non-terminals among the symbols of each production, left to right."""
        return tuple(tuple(filter(self._by_head.__contains__, row.symbols)) for row in self.productions)

    @functools.cached_property
    def _by_head(self) -> dict[str, tuple[int, ...]]:
        by_head: dict[str, list[int]] = {}
        for rule, production in enumerate(self.productions):
            by_head.setdefault(production.head, []).append(rule)
        return {head: tuple(rules) for head, rules in by_head.items()}

    def productions_of(self, head: str) -> tuple[int, ...]:
        """Returns the indices of a non-terminal's productions; raises ValueError for other symbols."""
        if head not in self._by_head:
            raise ValueError(f"{head!r} is no non-terminal; these are {', '.join(self.nonterminals)}.")
        return self._by_head[head]

    def right_hand_nonterminals(self, rule: int) -> tuple[str, ...]:
        """Returns the non-terminals among a production's symbols, left to right."""
        return self.children[rule]


def make_grammar(productions: Iterable[Production], start: str | None = None) -> Grammar:
    """Makes a grammar of productions, which are grouped by their heads.

    Args:
      productions: in any order.
      start: the start symbol; None is the head of the first production.

    Raises:
      ValueError: if there are none or too many, if one has no symbols or a weight that is no finite
        number from 0 on, if a symbol cannot be written, or if the start symbol heads none of them.
    """
    given = list(productions)
    for head, symbols, weight in given:
        for symbol in (head, *symbols):
            if not _SYMBOL.fullmatch(symbol):
                raise ValueError(
                    f"{symbol!r} is no symbol: blanks, '|', '[', ']', '#', '->' are not allowed."
                )
        if not symbols:
            raise ValueError(f"A production of {head!r} has no symbols.")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"A production of {head!r} has the weight {weight}; it must be 0 or more.")
    if not given:
        raise ValueError("The grammar has no productions.")
    if len(given) > np.iinfo(np.int16).max:
        raise ValueError(f"The grammar has {len(given):,} productions; at most 32,767 are allowed.")
    order = list(dict.fromkeys(head for head, _, _ in given))
    start = given[0].head if start is None else start
    if start not in order:
        raise ValueError(f"The start symbol {start!r} heads no production; heads are {', '.join(order)}.")
    return Grammar(start, tuple(sorted(given, key=lambda row: order.index(row.head))))


_SYMBOL = re.compile(r"(?:(?!->)[^\s|\[\]#])+")
_TOKEN = re.compile(r"->|\||\[[^\[\]]*\]|(?:(?!->)[^\s|\[\]])+|\S")
_START = "%start"


def parse_grammar(text: str, start: str | None = None) -> Grammar:
    """Reads a grammar that a person wrote.

    A line is a rule, `HEAD -> symbols [weight] | symbols [weight]`, or goes on with more alternatives
    (`| symbols`); what follows a `#` is a comment. Weights are relative; a head without any has uniform
    ones. Symbols are separated by blanks and contain none of `|`, `[`, `]`, `#` and `->`. The start symbol
    is the first head, unless a line `%start SYMBOL` names another one.

    Args:
      text: the rules.
      start: the start symbol, whatever the text says.

    Raises:
      ValueError: if the text is no such grammar; names the line.
    """
    productions: list[Production] = []
    weighted: dict[str, bool] = {}
    head = named = None
    for number, line in enumerate(text.splitlines(), start=1):
        tokens = _TOKEN.findall(line.split("#", 1)[0])
        if not tokens:
            continue
        if tokens[0] == _START and "->" not in tokens:
            if len(tokens) != 2 or not _SYMBOL.fullmatch(tokens[1]):
                raise ValueError(f"line {number}: {_START} must be followed by one symbol.")
            named = tokens[1]
            continue
        if len(tokens) > 1 and tokens[1] == "->" and _SYMBOL.fullmatch(tokens[0]):
            head, tokens = tokens[0], tokens[2:]
        elif tokens[0] == "|" and head is not None:
            tokens = tokens[1:]
        else:
            raise ValueError(
                f"line {number}: {line.strip()!r:.60} is no rule like 'HEAD -> symbols | symbols'."
            )
        for symbols, weight in _alternatives(tokens, head, number):
            if weighted.setdefault(head, weight is not None) != (weight is not None):
                raise ValueError(f"line {number}: all alternatives of {head!r} must have a weight, or none.")
            productions.append(Production(head, symbols, 1.0 if weight is None else weight))
    return make_grammar(productions, named if start is None else start)


_Alternative = tuple[tuple[str, ...], float | None]  # symbols, and the weight if there is one


def _alternatives(tokens: Sequence[str], head: str, number: int) -> Iterator[_Alternative]:
    symbols: list[str] = []
    weight: float | None = None
    for token in (*tokens, "|"):
        if token == "|":
            if not symbols:
                raise ValueError(f"line {number}: an alternative of {head!r} has no symbols.")
            yield tuple(symbols), weight
            symbols, weight = [], None
        elif token == "->":
            raise ValueError(f"line {number}: a second '->'; each rule needs a line of its own.")
        elif weight is not None:
            raise ValueError(f"line {number}: {token!r} follows a weight; '|' must.")
        elif len(token) > 1 and token[0] == "[":
            weight = _weight(token[1:-1], number)
        elif token in ("[", "]"):
            raise ValueError(f"line {number}: a {token!r} without its counterpart; a weight is like '[0.3]'.")
        else:
            symbols.append(token)


def _weight(text: str, number: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"line {number}: the weight {text.strip()!r} is no number from 0 on.")
    return weight


def format_grammar(grammar: Grammar) -> str:
    """Returns the text of a grammar, a rule a line; `parse_grammar` reads it back."""
    lines = [] if grammar.start == grammar.nonterminals[0] else [f"{_START} {grammar.start}"]
    for head in grammar.nonterminals:
        rows = [grammar.productions[rule] for rule in grammar.productions_of(head)]
        uniform = all(row.weight == 1 for row in rows)
        options = [" ".join(row.symbols) + ("" if uniform else f" [{row.weight!r}]") for row in rows]
        lines.append(f"{head} -> {' | '.join(options)}")
    return "\n".join(lines) + "\n"


def describe_rule(grammar: Grammar, rule: int) -> str:
    """Returns a production for messages, quoted: "'A -> b C'"."""
    return f"'{grammar.productions[rule].head} -> {' '.join(grammar.productions[rule].symbols)}'"


def flatten(node: Node) -> list[int]:
    """Returns the rules of a tree from its root, children left to right."""
    rules, stack = [], [node]
    while stack:
        rule, children = stack.pop()
        rules.append(rule)
        stack.extend(children[::-1])
    return rules


def grow_tree(grammar: Grammar, rules: Sequence[int], head: str | None = None) -> Node:
    """Returns the tree that `flatten` gives these rules of.

    Args:
      grammar: of the derivation.
      rules: production indices.
      head: what is derived; None is the start symbol.

    Raises:
      ValueError: if these are the rules of no whole derivation.
    """
    num_rules, heads, needed = len(grammar.productions), grammar.heads, grammar.children
    trees: list[Node] = []  # those that start behind the current rule, the next one last
    for place in range(len(rules) - 1, -1, -1):
        rule = rules[place]
        if not 0 <= rule < num_rules:
            raise ValueError(f"rule {place} is {rule}; the grammar has the productions 0 to {num_rules - 1}.")
        children: tuple[Node, ...] = ()
        if needed[rule]:
            children = tuple([trees.pop() for _ in needed[rule][: len(trees)]])
            found = tuple([heads[child.rule] for child in children])
            if found != needed[rule]:
                raise ValueError(
                    f"rule {place}, {describe_rule(grammar, rule)}, needs {' '.join(needed[rule])} below it; "
                    f"got {' '.join(found) or 'nothing'}."
                )
        trees.append(Node(rule, children))
    if len(trees) != 1:
        raise ValueError(f"{len(rules)} rules derive {len(trees)} trees; they must derive one.")
    head = grammar.start if head is None else head
    if heads[trees[0].rule] != head:
        raise ValueError(f"The derivation is one of {heads[trees[0].rule]!r}; it must be one of {head!r}.")
    return trees[0]


def to_tree(grammar: Grammar, derivation: Derivation) -> Node:
    """Returns the tree of an array of rules; raises ValueError if it holds no whole derivation."""
    rules = np.asarray(derivation.rules).tolist()
    end = rules.index(-1) if -1 in rules else len(rules)
    if any(rule != -1 for rule in rules[end:]):
        raise ValueError(f"Rules follow the end at place {end}; only -1 may.")
    return grow_tree(grammar, rules[:end])


def to_derivation(node: Node, max_rules: int) -> Derivation:
    """Returns the `[max_rules]` array of a tree's rules; raises ValueError if it has more of them."""
    rules = flatten(node)
    if len(rules) > max_rules:
        raise ValueError(f"The derivation has {len(rules)} rules; at most {max_rules} are allowed.")
    padded = np.full(max_rules, -1, np.int16)
    padded[: len(rules)] = rules
    return Derivation(padded)


def positions(grammar: Grammar, node: Node) -> list[tuple[Path, str]]:
    """Returns the path to each node of a tree and its head, from the root, children left to right."""
    found: list[tuple[Path, str]] = []
    stack: list[tuple[Path, Node]] = [((), node)]
    while stack:
        path, (rule, children) = stack.pop()
        found.append((path, grammar.heads[rule]))
        stack.extend([((*path, place), child) for place, child in enumerate(children)][::-1])
    return found


def subtree(node: Node, path: Path) -> Node:
    """Returns the tree at the end of a path."""
    for place in path:
        node = node.children[place]
    return node


def replace(node: Node, path: Path, new: Node) -> Node:
    """Returns a tree with another one at the end of a path."""
    above = [node]
    for place in path[:-1]:
        above.append(above[-1].children[place])
    for parent, place in zip(above[::-1], path[::-1]):
        children = parent.children
        new = Node(parent.rule, (*children[:place], new, *children[place + 1 :]))
    return new
