"""Derivations as terms: one line of text that a person reads and a program reads back.

A node is written as `[HEAD symbols]`, with each non-terminal among the symbols as such a bracket in its
place: `[S add [A x] [A y]]`. Symbols hold no brackets, so no symbol needs quoting. If a grammar has a
production several times, `[HEAD#2 ...]` is its second one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from elenas_jax.spaces.grammar import Derivation, Grammar, Node, to_derivation, to_tree

_TOKEN = re.compile(r"[\[\]]|[^\s\[\]]+")


def to_text(grammar: Grammar, node: Node) -> str:
    """Returns a derivation as one line; `parse_term` reads it back exactly."""
    numbers = _numbers(grammar)
    parts: list[str] = []
    stack: list[Node | str] = [node]  # what is still to be written, the next part last
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            parts.append(part)
            continue
        production, number = grammar.productions[part.rule], numbers[part.rule]
        parts.append(f"[{production.head}" if number == 1 else f"[{production.head}#{number}")
        children = iter(part.children)
        nonterminals = set(grammar.children[part.rule])
        written = [next(children) if symbol in nonterminals else symbol for symbol in production.symbols]
        stack.extend(["]", *written[::-1]])
    return " ".join(parts).replace(" ]", "]")


def parse_term(grammar: Grammar, text: str, head: str | None = None) -> Node:
    """Reads a derivation that `to_text` wrote; blanks do not matter.

    Args:
      grammar: of the derivation.
      text: one term.
      head: what is derived; None is the start symbol.

    Raises:
      ValueError: if the text is no derivation of the grammar from that symbol; names the place.
    """
    rules = {
        (row.head, number, row.symbols): rule
        for rule, (row, number) in enumerate(zip(grammar.productions, _numbers(grammar)))
    }
    head = grammar.start if head is None else head
    # Brackets that are open: head, its number, symbols and children so far.
    stack: list[tuple[str, int, list[str], list[Node]]] = []
    done: Node | None = None
    tokens = _tokens(text)
    for place, token in tokens:
        if done is not None:
            raise ValueError(f"The term goes on with {token!r} at character {place}, after its end.")
        if token == "[":
            place, name = next(tokens, (len(text), ""))
            name, number = _split_number(name, place)
            if name not in grammar.nonterminals:
                raise ValueError(
                    f"{name!r} at character {place} of the term is no non-terminal; "
                    f"these are {', '.join(grammar.nonterminals)}."
                )
            stack.append((name, number, [], []))
        elif not stack:
            raise ValueError(f"The term starts with {token!r}; it must start with '['.")
        elif token == "]":
            name, number, symbols, children = stack.pop()
            rule = rules.get((name, number, tuple(symbols)))
            if rule is None:
                count = "" if number == 1 else f" number {number}"
                raise ValueError(
                    f"'{name} -> {' '.join(symbols)}'{count}, which ends at character {place} of the term, "
                    "is no production of the grammar."
                )
            node = Node(rule, tuple(children))
            if stack:
                stack[-1][2].append(name)
                stack[-1][3].append(node)
            else:
                done = node
        elif token in grammar.nonterminals:
            raise ValueError(f"The non-terminal {token!r} at character {place} of the term has no brackets.")
        else:
            stack[-1][2].append(token)
    if done is None:
        raise ValueError(
            "The term is empty." if not stack else f"The term ends with {len(stack)} open brackets."
        )
    found = grammar.heads[done.rule]
    if found != head:
        raise ValueError(f"The term derives {found!r}; it must derive {head!r}.")
    return done


def to_json(grammar: Grammar, derivation: Derivation) -> dict[str, Any]:
    """Returns {"derivation": the term}."""
    return {"derivation": to_text(grammar, to_tree(grammar, derivation))}


def from_json(grammar: Grammar, data: Any, max_rules: int) -> Derivation:
    """Returns the derivation that `to_json` wrote, with room for `max_rules` rules.

    Raises:
      ValueError: if `data` is no such object, or no derivation, or has more rules.
    """
    if not isinstance(data, Mapping) or set(data) != {"derivation"}:
        raise ValueError(f'A derivation is an object with "derivation"; got {data!r:.80}.')
    if not isinstance(data["derivation"], str):
        raise ValueError(f'"derivation" is {data["derivation"]!r:.80}; it must be a term as text.')
    return to_derivation(parse_term(grammar, data["derivation"]), max_rules)


def _numbers(grammar: Grammar) -> list[int]:
    """Returns for each production which of those with its head and symbols it is, from 1 on."""
    met: dict[tuple[str, tuple[str, ...]], int] = {}
    numbers = []
    for head, symbols, _ in grammar.productions:
        met[head, symbols] = met.get((head, symbols), 0) + 1
        numbers.append(met[head, symbols])
    return numbers


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Yields brackets and symbols, each with its place from 1 on."""
    for match in _TOKEN.finditer(text):
        yield match.start() + 1, match.group()


def _split_number(name: str, place: int) -> tuple[str, int]:
    """Splits "A#2" into "A" and 2."""
    head, mark, number = name.partition("#")
    if not mark:
        return head, 1
    if not re.fullmatch(r"[1-9][0-9]{0,4}", number):
        raise ValueError(
            f"{name!r} at character {place} of the term: a number from 1 on must follow the '#'."
        )
    return head, int(number)
