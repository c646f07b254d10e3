"""Changing einspace architectures: mutation and crossover of derivations that stay networks.

Source: Ericsson et al. (2024), section 4: a node is drawn uniformly, and what stands there is drawn anew from
the grammar. Strict mutations are of the one inner module that copies share, never give the same network
again, and keep to the budgets. Compat ones are those of the public code, see `compat_mutate`. Crossover is
not in the paper: a module or an operation is replaced by one of the same non-terminal of another parent.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from elenas_jax.ops.fundamental_shapes import ShapeError
from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_compat import executed_shape
from elenas_jax.spaces.einspace_options import Option, Options
from elenas_jax.spaces.einspace_sampling import Budget, Drawn, OverBudget, draw_module, over_budget
from elenas_jax.spaces.einspace_statistics import too_deep
from elenas_jax.spaces.einspace_typing import (
    Typed,
    TypingError,
    aggregation_inputs,
    infer,
    reported_branches,
)
from elenas_jax.spaces.grammar import Grammar, Node, Path, flatten, replace


class Place(NamedTuple):
    """A node of a derivation, or the branching operation of one (head "B")."""

    path: Path
    head: str
    node: Node  # of a branching operation, its module
    typed: Typed
    parent: Typed | None
    depth: int
    copies: int  # that the network has of it
    reached: float  # share of its copies at which the public code changes anything, see `compat_mutate`


def places(grammar: Grammar, node: Node, typed: Typed) -> list[Place]:
    """Returns all nodes of a derivation from the root, and the operation of each branching behind it."""

    def visit(
        path: Path,
        node: Node,
        typed: Typed,
        parent: Typed | None,
        depth: int,
        copies: int,
        reached: float,
        below: float,
    ) -> Iterator[Place]:
        yield Place(path, grammar.heads[node.rule], node, typed, parent, depth, copies, reached)
        children = typed.children
        if typed.kind == "branching":
            yield Place(path, "B", node, children[0], typed, depth + 1, copies, below)
            children = children[1:]
        for place, (child, child_typed) in enumerate(zip(node.children, children, strict=True)):
            times = typed.copies if place == 0 else 1
            yield from visit(
                (*path, place), child, child_typed, typed, depth + 1, copies * times, below, below / times
            )

    return list(visit((), node, typed, None, 0, 1, 1.0, 1.0))


def mutate(
    rng: np.random.Generator,
    grammar: Grammar,
    options: Options,
    parent: Drawn,
    *,
    budget: Budget,
    max_draws: int = 1000,
) -> Drawn:
    """Draws a node of a derivation anew.

    Args:
      rng: where randomness comes from.
      grammar, options: of the space, with strict rules.
      parent: what is changed.
      budget: that the child keeps to.
      max_draws: most tries to find a child that is a network and not its parent's; after that the parent is
        returned.
    """
    found = places(grammar, parent.node, parent.typed)
    network = network_text(simplify(parent.typed))
    for _ in range(max_draws):
        place = found[int(rng.random() * len(found))]
        new = _redraw(rng, grammar, options, place, _left(parent, place, budget))
        child = None if new is None else _accept(grammar, parent, place, new, budget)
        if child is not None and network_text(simplify(child.typed)) != network:
            return child
    return parent


def compat_mutate(
    rng: np.random.Generator,
    grammar: Grammar,
    options: Options,
    parent: Drawn,
    *,
    budget: Budget,
    max_draws: int = 1000,
) -> Drawn:
    """Draws a node of a derivation anew as the public code does.

    Each copy of a node in a shared branch is one to be drawn, but what is drawn anew strictly inside of a
    copy changes something in the last one only; else the parent is returned as its own child. What stands
    in a place is not drawn again, be it the kind of a module, and an inner module of a branching at the root
    is no computation. A child must run; its shapes may be others than those inferred.

    Args are those of `mutate`, with compat rules.
    """
    found = places(grammar, parent.node, parent.typed)
    counts = np.cumsum([place.copies for place in found])
    for _ in range(max_draws):
        place = found[int(np.searchsorted(counts, rng.random() * counts[-1], side="right"))]
        new = _redraw(rng, grammar, options, place, _left(parent, place, budget), compat=True)
        if new is None:
            continue
        if rng.random() >= place.reached:
            return parent
        child = _accept(grammar, parent, place, new, budget, compat=True)
        if child is not None:
            return child
    return parent


def crossover(
    rng: np.random.Generator,
    grammar: Grammar,
    parent: Drawn,
    other: Drawn,
    *,
    budget: Budget,
    max_draws: int = 1000,
) -> Drawn:
    """Replaces a node of a derivation by one of another, all pairs of the same non-terminal alike.

    Args are those of `mutate`. Pairs that give no network, or the parent's, are drawn anew, `max_draws` times
    at most; after that the parent is returned.
    """
    givers: dict[str, list[Node]] = {}
    for place in places(grammar, other.node, other.typed):
        if place.head != "B":
            givers.setdefault(place.head, []).append(place.node)
    takers = [place for place in places(grammar, parent.node, parent.typed) if place.head in givers]
    takers = [place for place in takers if place.path]  # the whole of the other is no crossover
    counts = np.cumsum([len(givers[place.head]) for place in takers])
    network = network_text(simplify(parent.typed))
    for _ in range(max_draws if takers else 0):
        place = takers[int(np.searchsorted(counts, rng.random() * counts[-1], side="right"))]
        new = givers[place.head][int(rng.random() * len(givers[place.head]))]
        child = _accept(grammar, parent, place, new, budget)
        if child is not None and network_text(simplify(child.typed)) != network:
            return child
    return parent


def _left(parent: Drawn, place: Place, budget: Budget) -> Budget:
    """Returns what is left of a budget for what is to stand in a place."""
    if not budget.nodes:
        return budget
    return budget._replace(nodes=budget.nodes - len(flatten(parent.node)) + len(flatten(place.node)))


def _accept(
    grammar: Grammar, parent: Drawn, place: Place, new: Node, budget: Budget, compat: bool = False
) -> Drawn | None:
    """Returns a derivation with something new in a place, if it is a network within the budget."""
    node = replace(parent.node, place.path, new)
    if budget.nodes and len(flatten(node)) > budget.nodes:
        return None
    state = parent.typed.before
    try:
        typed = infer(node, state, rules="compat" if compat else "strict", grammar=grammar)
        if compat:
            executed_shape(typed, state.shape)
    except (TypingError, ShapeError):
        return None
    # A subtree that was drawn for one place may be too deep for another.
    if over_budget(typed, budget) or too_deep(typed, budget.depth):
        return None
    return Drawn(node, typed)


def _redraw(
    rng: np.random.Generator,
    grammar: Grammar,
    options: Options,
    place: Place,
    budget: Budget,
    compat: bool = False,
) -> Node | None:
    """Returns something new for a place, or None if there is nothing."""
    if place.head in ("S", "M"):
        without: tuple[str, ...] = ()
        if compat:
            without = (place.typed.kind,)
            if place.parent is not None and place.parent.kind == "branching" and len(place.path) == 1:
                without += ("computation",)
            if place.typed.kind == "leaf":
                return None
        try:
            return draw_module(
                rng,
                options,
                place.head,
                place.typed.before,
                budget=budget,
                depth=place.depth,
                copies=place.copies,
                compat=compat,
                without=without,
            ).node
        except OverBudget:
            return None
    if compat and not grammar.productions[place.node.rule].weight:
        return None
    others = [rule for rule, _ in _alternatives(options, place, compat) if rule != place.node.rule]
    if not others:
        return None
    rule = others[int(rng.random() * len(others))]
    return Node(rule, ()) if place.head != "B" else _branch_again(grammar, place.node, rule)


def _alternatives(options: Options, place: Place, compat: bool) -> tuple[Option, ...]:
    """Returns the operations that may stand in the place of one."""
    if place.head == "B":
        return options.branchings("M" if place.path else "S", place.typed.before)
    if place.head == "A":
        assert place.parent is not None
        branch, *inner, _ = place.parent.children
        modules = tuple(inner)
        return options.aggregations(
            aggregation_inputs(branch, modules), reported_branches(branch, modules) if compat else 0
        )
    return options.leaves(place.head, place.typed.before)


def _branch_again(grammar: Grammar, node: Node, rule: int) -> Node:
    """Returns a branching module with another operation, and as many of its inner modules as that needs."""
    inner, merge = node.children[:-1], node.children[-1]
    needed = len(grammar.right_hand_nonterminals(rule)) - 1
    return Node(rule, (*(inner * needed)[:needed], merge))
