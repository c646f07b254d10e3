"""Drawing einspace architectures: productions by their probabilities, limited to what fits.

Source: Ericsson et al. (2024), section 3, and its public code. The kind of a module is drawn first, then an
operation uniformly among those that fit. Under "strict" rules inner modules that no aggregation fits are
drawn anew, and an architecture over a budget is drawn anew from the start, so that what is drawn has the
grammar's distribution given the budgets. Under "compat" rules a kind of module that came to a dead end is
struck off its slot, as the public code does. Copies of a shared branch count in all budgets but that of
nodes.
"""

from typing import NamedTuple

import numpy as np

from elenas_jax.ops.fundamental import FundamentalOperation
from elenas_jax.ops.fundamental_shapes import TOO_MANY_ACTIVATIONS, TOO_MANY_PARAMETERS, VALID
from elenas_jax.spaces.einspace_options import Options
from elenas_jax.spaces.einspace_typing import (
    State,
    Typed,
    aggregation_inputs,
    branching,
    computation,
    reported_branches,
    routing,
    sequential,
    state_of,
)
from elenas_jax.spaces.grammar import Node

WORK_PER_NODE = 20  # nodes drawn for one that may stay, before a draw starts again


class Budget(NamedTuple):
    """What an architecture may have at most; 0 is no limit."""

    nodes: int = 0  # of the derivation: modules and leaves but branching operations, copies not counted
    parameters: int = 0
    activations: int = 0  # numbers held for one example
    depth: int = 100  # modules around a module; as deep as this, only leaf operations are drawn


class Drawn(NamedTuple):
    """A derivation, or a part of one, and its types."""

    node: Node
    typed: Typed


class OverBudget(Exception):
    """A draw has grown over its budget, or has taken too long."""


class _DeadEnd(Exception):
    """Nothing fits into a slot."""


def over_budget(typed: Typed, budget: Budget, copies: int = 1) -> int:
    """Returns why an architecture is over its budget: an index into `ops.fundamental.REASONS`, or 0."""
    if budget.parameters and typed.parameters * copies > budget.parameters:
        return TOO_MANY_PARAMETERS
    if budget.activations and typed.activations * copies > budget.activations:
        return TOO_MANY_ACTIVATIONS
    return VALID


def draw(
    rng: np.random.Generator,
    options: Options,
    state: State,
    *,
    budget: Budget,
    compat: bool = False,
    max_draws: int = 1000,
) -> Drawn:
    """Draws an architecture.

    Args:
      rng: where randomness comes from.
      options: of the grammar.
      state: of the input.
      budget: that it keeps to.
      compat: whether to treat dead ends as the public code does.
      max_draws: most tries within the budget; after that the smallest architecture is returned.
    """
    for _ in range(max_draws):
        try:
            return draw_module(rng, options, "S", state, budget=budget, compat=compat)
        except OverBudget:
            pass
    return smallest(options, state)


def smallest(options: Options, state: State) -> Drawn:
    """Returns identities in a row, which fit any budget and any shape."""
    rule, typed = next(option for option in options.leaves("C", state) if option[1].name == "identity")
    part = Drawn(Node(options.modules["M", "computation"], (Node(rule, ()),)), computation(typed))
    return Drawn(
        Node(options.modules["S", "sequential"], (part.node, part.node)), sequential(part.typed, part.typed)
    )


def draw_module(
    rng: np.random.Generator,
    options: Options,
    head: str,
    state: State,
    *,
    budget: Budget,
    depth: int = 0,
    copies: int = 1,
    compat: bool = False,
    without: tuple[str, ...] = (),
) -> Drawn:
    """Draws a module.

    Args:
      rng, options, state, budget, compat: as of `draw`.
      head: "S" for a root, "M" for a module inside of one.
      depth: of the module.
      copies: that its network has of it, as it stands in shared branches.
      without: kinds of modules that are not drawn in its slot.

    Raises:
      OverBudget: if it takes more than is left of the budget, or if nothing fits.
    """
    try:
        return _Draw(rng, options, budget, compat).module(head, state, depth, copies, without)
    except _DeadEnd:
        raise OverBudget from None


class _Draw:
    """One draw: what it has taken so far of its budget of nodes, and how many it has drawn."""

    def __init__(self, rng: np.random.Generator, options: Options, budget: Budget, compat: bool):
        self.random = rng.random
        self.options = options
        self.budget = budget
        self.compat = compat
        self.nodes = 0
        self.work = 0

    def take(self, nodes: int) -> None:
        self.nodes += nodes
        self.work += nodes
        most = self.budget.nodes
        if most and (self.nodes > most or self.work > WORK_PER_NODE * most):
            raise OverBudget

    def module(
        self, head: str, state: State, depth: int, copies: int, without: tuple[str, ...] = ()
    ) -> Drawn:
        kinds = self.options.kinds[head]
        if depth >= self.budget.depth > 0:
            without = ("sequential", "branching", "routing")
        if without:
            kinds = _without(kinds, without)
        self.take(1)
        while kinds:
            kind = self.kind(kinds)
            nodes = self.nodes
            try:
                drawn = self.build(head, kind, state, depth, copies)
            except _DeadEnd:
                self.nodes = nodes
                kinds = _without(kinds, (kind,))
                continue
            if over_budget(drawn.typed, self.budget, copies):
                raise OverBudget
            return drawn
        raise _DeadEnd

    def kind(self, kinds: tuple[tuple[str, float], ...]) -> str:
        left = self.random() * sum(weight for _, weight in kinds)
        for kind, weight in kinds:
            left -= weight
            if left < 0:
                return kind
        return kinds[-1][0]

    def build(self, head: str, kind: str, state: State, depth: int, copies: int) -> Drawn:
        if kind == "branching":
            return self.branching(head, state, depth, copies)
        rule = self.options.modules[head, kind]
        if kind == "sequential":
            first = self.module("M", state, depth + 1, copies)
            second = self.module("M", first.typed.after, depth + 1, copies)
            return Drawn(Node(rule, (first.node, second.node)), sequential(first.typed, second.typed))
        if kind == "computation":
            leaf = self.leaf("C", state)
            return Drawn(Node(rule, (leaf.node,)), computation(leaf.typed))
        pre = self.leaf("P", state)
        inner = self.module("M", state_of(pre.typed.after.shape), depth + 1, copies)
        post = self.leaf("R", state_of(inner.typed.after.shape, pre.typed.after.grid))
        parts = (pre, inner, post)
        return Drawn(Node(rule, tuple(part.node for part in parts)), routing(*(part.typed for part in parts)))

    def leaf(self, head: str, state: State) -> Drawn:
        self.take(1)
        return self.one_of(self.options.leaves(head, state))

    def one_of(self, found: tuple[tuple[int, Typed], ...]) -> Drawn:
        if not found:
            raise _DeadEnd
        rule, typed = found[int(self.random() * len(found))]
        return Drawn(Node(rule, ()), typed)

    def branching(self, head: str, state: State, depth: int, copies: int) -> Drawn:
        branch = self.one_of(self.options.branchings(head, state))
        operation = branch.typed.op
        assert operation is not None
        nodes = self.nodes
        while True:
            inner = self.inner_modules(operation, branch.typed.after, depth + 1, copies)
            typed = tuple(part.typed for part in inner)
            found = self.options.aggregations(
                aggregation_inputs(branch.typed, typed),
                reported_branches(branch.typed, typed) if self.compat else 0,
            )
            if found or self.compat:
                break
            self.nodes = nodes
        self.take(1)
        merge = self.one_of(found)
        return Drawn(
            Node(branch.node.rule, (*(part.node for part in inner), merge.node)),
            branching((branch.typed, *typed, merge.typed)),
        )

    def inner_modules(
        self, operation: FundamentalOperation, state: State, depth: int, copies: int
    ) -> tuple[Drawn, ...]:
        if operation.num_branches == 2:
            return tuple(self.module("M", state, depth, copies) for _ in range(2))
        return (self.module("M", state, depth, copies * operation.num_branches),)


def _without(kinds: tuple[tuple[str, float], ...], struck: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Strikes kinds of modules off; computation keeps its probability, the others share what is left."""
    kept = [each for each in kinds if each[0] not in struck]
    others = sum(weight for kind, weight in kinds if kind != "computation")
    left = sum(weight for kind, weight in kept if kind != "computation")
    if not left:
        return tuple(kept)
    return tuple((kind, weight if kind == "computation" else weight * others / left) for kind, weight in kept)
