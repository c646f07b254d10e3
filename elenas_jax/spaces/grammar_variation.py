"""Changing derivations of a grammar: a subtree is drawn anew, or taken from another derivation.

A derivation within the sampler's budget always leads to another one within it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.spaces.grammar import Grammar, Node, flatten, grow_tree
from elenas_jax.spaces.grammar_sampling import Sampler, Size, depths

MOST_DRAWS = 100  # of a mutation, to find a change


class _Outline(NamedTuple):
    """The nodes of a derivation from the root, children left to right: N places."""

    rules: list[int]
    ends: list[int]  # the place behind each one's subtree
    depths: list[int]  # of each node, 1 for the root
    sizes: list[Size]  # of each one's subtree


def mutate(rng: np.random.Generator, sampler: Sampler, node: Node) -> Node:
    """Draws a subtree anew, at a node that is drawn uniformly, until it is another one.

    Returns:
      A derivation that differs from `node`; or `node` itself if none of `MOST_DRAWS` draws gave one.
    """
    grammar = sampler.grammar
    outline = _outline(grammar, node, sampler.costs)
    for _ in range(MOST_DRAWS):
        place = int(rng.integers(len(outline.rules)))
        head, room = grammar.heads[outline.rules[place]], _room(sampler, outline, place)
        if sampler.can_draw(head, room):
            new = flatten(sampler.draw(rng, head, room))
            if new != outline.rules[place : outline.ends[place]]:
                return _exchanged(grammar, outline, place, new)
    return node


def crossover(rng: np.random.Generator, sampler: Sampler, receiver: Node, donor: Node) -> Node:
    """Puts a subtree of one derivation in the place of a subtree of another one with the same head.

    The place is drawn uniformly among those for which there is another subtree that fits, and then the
    subtree among these. The root is not replaced by the root. Both may be the same derivation.

    Returns:
      A derivation that differs from `receiver`; or `receiver` itself if there is none.
    """
    grammar = sampler.grammar
    ours, theirs = (_outline(grammar, node, sampler.costs) for node in (receiver, donor))
    by_head: dict[str, list[int]] = {}
    for place, rule in enumerate(theirs.rules):
        by_head.setdefault(grammar.heads[rule], []).append(place)
    for place in rng.permutation(len(ours.rules)).tolist():
        room, old = _room(sampler, ours, place), ours.rules[place : ours.ends[place]]
        fitting = [
            other
            for other in by_head.get(grammar.heads[ours.rules[place]], ())
            if (place or other)
            and all(size <= most for size, most in zip(theirs.sizes[other], room))
            and theirs.rules[other : theirs.ends[other]] != old
        ]
        if fitting:
            other = fitting[int(rng.integers(len(fitting)))]
            return _exchanged(grammar, ours, place, theirs.rules[other : theirs.ends[other]])
    return receiver


def _outline(grammar: Grammar, node: Node, costs: Sequence[int]) -> _Outline:
    rules = flatten(node)
    ends, sizes = [0] * len(rules), [Size(0, 0, 0)] * len(rules)
    later: list[int] = []  # subtrees that start behind the current place, the next one last
    for place in range(len(rules) - 1, -1, -1):
        end, nodes, depth, cost = place + 1, 1, 0, costs[rules[place]]
        for _ in grammar.children[rules[place]]:
            child = later.pop()
            end, size = ends[child], sizes[child]
            nodes, depth, cost = nodes + size.nodes, max(depth, size.depth), cost + size.cost
        ends[place], sizes[place] = end, Size(nodes, depth + 1, cost)
        later.append(place)
    return _Outline(rules, ends, depths(grammar, rules), sizes)


def _room(sampler: Sampler, outline: _Outline, place: int) -> Size:
    """Returns how large a subtree may be in this place."""
    whole, part, limit = outline.sizes[0], outline.sizes[place], sampler.limit
    return Size(
        nodes=limit.nodes - (whole.nodes - part.nodes),
        depth=limit.depth - (outline.depths[place] - 1),
        cost=limit.cost - (whole.cost - part.cost),
    )


def _exchanged(grammar: Grammar, outline: _Outline, place: int, new: list[int]) -> Node:
    rules = [*outline.rules[:place], *new, *outline.rules[outline.ends[place] :]]
    return grow_tree(grammar, rules, grammar.heads[rules[0]])
