"""Which productions may come next in an einspace derivation that grows from the left."""

from collections.abc import Callable, Sequence

from elenas_jax.ops.fundamental import FUNDAMENTAL_BY_NAME
from elenas_jax.spaces.einspace_grammar import module_kind
from elenas_jax.spaces.einspace_options import Options
from elenas_jax.spaces.einspace_typing import (
    Rules,
    State,
    Typed,
    TypingError,
    aggregation,
    aggregation_inputs,
    branching,
    computation,
    leaf,
    reported_branches,
    routing,
    sequential,
    state_of,
)
from elenas_jax.spaces.grammar import Grammar, make_grammar
from elenas_jax.spaces.grammar_sampling import least_nodes


class _Open(Exception):
    """The derivation so far ends at a slot; `found` are the productions that fit there."""

    def __init__(self, found: Sequence[int]):
        super().__init__()
        self.found = found


def make_valid_rules(
    grammar: Grammar,
    options: Options,
    state: State,
    *,
    max_rules: int,
    rules: Rules = "strict",
    max_depth: int = 100,
) -> Callable[[Sequence[int]], list[int]]:
    """Returns a function from the rules of a derivation so far to those that may come next.

    What fits into the slot is what the sampler would draw there, and lets the derivation end within
    `max_rules`. Where nothing fits, or where what stands so far is no network, everything that the sampler
    ever draws is as good: the derivation is to end, as an invalid one.
    """
    # Bare leaves would need fewer nodes, but are not drawn.
    least = least_nodes(make_grammar(row for row in grammar.productions if row.weight))
    drawn: dict[str, list[int]] = {head: [] for head in grammar.nonterminals}
    for rule, production in enumerate(grammar.productions):
        if production.weight:
            drawn[production.head].append(rule)

    def valid_rules(prefix: Sequence[int]) -> list[int]:
        head, others = _open_heads(grammar, prefix)
        walk = _Walk(grammar, options, prefix, rules == "compat", max_depth)
        found: Sequence[int] = ()
        try:
            walk.module("S", state, 0)
        except _Open as slot:
            found = slot.found
        except TypingError:
            pass
        room = max_rules - len(prefix) - 1 - sum(least[other] for other in others)
        return [
            rule
            for rule in found or drawn[head]
            if sum(least[child] for child in grammar.right_hand_nonterminals(rule)) <= room
        ]

    return valid_rules


def _open_heads(grammar: Grammar, prefix: Sequence[int]) -> tuple[str, list[str]]:
    """Returns the non-terminal that the next production replaces, and the others that are open."""
    stack = [grammar.start]
    for rule in prefix:
        stack.pop()
        stack.extend(grammar.right_hand_nonterminals(rule)[::-1])
    return stack[-1], stack[:-1]


class _Walk:
    """One reading of a derivation from the left, up to its first open slot."""

    def __init__(
        self, grammar: Grammar, options: Options, prefix: Sequence[int], compat: bool, max_depth: int
    ):
        self.names = [grammar.productions[rule].symbols[0] for rule in prefix]
        self.options = options
        self.compat = compat
        self.max_depth = max_depth
        self.place = 0

    def name(self) -> str | None:
        """Returns the next production's name, None at the end."""
        if self.place == len(self.names):
            return None
        self.place += 1
        return self.names[self.place - 1]

    def module(self, head: str, state: State, depth: int) -> Typed:
        name = self.name()
        if name is None:
            raise _Open(self.modules(head, state, depth))
        kind = module_kind(name)
        if kind == "sequential":
            first = self.module("M", state, depth + 1)
            return sequential(first, self.module("M", first.after, depth + 1))
        if kind == "computation":
            return computation(self.leaf("C", state))
        if kind == "routing":
            pre = self.leaf("P", state)
            inner = self.module("M", state_of(pre.after.shape), depth + 1)
            return routing(pre, inner, self.leaf("R", state_of(inner.after.shape, pre.after.grid)))
        operation = leaf(FUNDAMENTAL_BY_NAME[name], state, compat=self.compat)
        return operation if kind == "leaf" else self.branching(operation, depth)

    def branching(self, branch: Typed, depth: int) -> Typed:
        assert branch.op is not None
        num_modules = 2 if branch.op.num_branches == 2 else 1
        inner = tuple(self.module("M", branch.after, depth + 1) for _ in range(num_modules))
        name = self.name()
        if name is None:
            reported = reported_branches(branch, inner) if self.compat else 0
            found = self.options.aggregations(aggregation_inputs(branch, inner), reported)
            raise _Open([rule for rule, _ in found])
        merge = aggregation(FUNDAMENTAL_BY_NAME[name], branch, inner, self.compat)
        return branching((branch, *inner, merge))

    def leaf(self, head: str, state: State) -> Typed:
        name = self.name()
        if name is None:
            raise _Open([rule for rule, _ in self.options.leaves(head, state)])
        return leaf(FUNDAMENTAL_BY_NAME[name], state, compat=self.compat)

    def modules(self, head: str, state: State, depth: int) -> list[int]:
        kinds = [kind for kind, _ in self.options.kinds[head] if kind != "branching"]
        if depth >= self.max_depth > 0:
            kinds = ["computation"]
        found = [self.options.modules[head, kind] for kind in kinds]
        if kinds != ["computation"]:
            found += [rule for rule, _ in self.options.branchings(head, state)]
        return found
