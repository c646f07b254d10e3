"""Typed derivations of einspace: the shape before and after every node, without allocating an array.

Source: Ericsson et al. (2024) and its public code. A node of a derivation becomes a `Typed` with its
states, its counts of parameters and activations and its cost. Two sets of rules: "strict" is what the paper
says; "compat" is what the public code infers, which is wrong for some networks, see `einspace_compat`.
"""

import functools
import math
from typing import Literal, NamedTuple

from elenas_jax.ops.fundamental import (
    FUNDAMENTAL_BY_NAME,
    FundamentalOperation,
    num_flops,
    num_parameters,
    output_shape,
    unfolded_grid,
)
from elenas_jax.ops.fundamental_shapes import NO_DERIVATION, REASONS, Grid, Shape, ShapeError, mode_of
from elenas_jax.spaces.einspace_compat import compat_output_shape
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar, module_kind
from elenas_jax.spaces.grammar import Grammar, Node

Rules = Literal["strict", "compat"]


class TypingError(ValueError):
    """A derivation is no network; `reason` is an index into `ops.fundamental.REASONS`."""

    def __init__(self, reason: int, message: str):
        super().__init__(message)
        self.reason = reason


class State(NamedTuple):
    """What is known of a value between two nodes."""

    shape: Shape  # without the batch axis
    mode: str  # "im" or "col"
    grid: Grid | None = None  # that the routing around has unfolded, for its own post-routing operation


def state_of(shape: Shape, grid: Grid | None = None) -> State:
    """Returns the state of a value of `shape`."""
    return State(shape, mode_of(shape), grid)


class Typed(NamedTuple):
    """A node of a derivation with its shapes. Counts are of the whole node, all copies counted."""

    name: str  # of the production: "sequential", "clone(2)", "routing", "computation", "linear(64)", ...
    kind: str  # "sequential", "branching", "routing", "computation" or "leaf"
    op: FundamentalOperation | None  # of a leaf
    copies: int  # that a branching makes of its one inner module; else 1
    # branching: its leaf, one or two inner modules, the aggregation; routing: leaf, module, leaf.
    children: tuple["Typed", ...]
    before: State
    after: State
    parameters: int
    activations: int  # numbers that leaves compute for one example, of what the network holds
    flops: int  # forward, one example


@functools.cache
def default_grammar(num_axes: int) -> Grammar:
    """Returns the grammar for inputs of 3 or 2 axes; probabilities do not matter for types."""
    return make_einspace_grammar(num_axes=num_axes)


def infer(node: Node, state: State, *, rules: Rules = "strict", grammar: Grammar | None = None) -> Typed:
    """Returns a derivation with its shapes.

    Args:
      node: the root of a derivation, or any module below it.
      state: of the input.
      rules: "strict" or "compat".
      grammar: of the derivation; by default the one for inputs of this number of axes.

    Raises:
      TypingError: if an operation does not fit where it stands.
    """
    grammar = grammar or default_grammar(len(state.shape))
    return _module(grammar, node, state, rules == "compat")


def leaf(
    operation: FundamentalOperation,
    before: State,
    inputs: tuple[Shape, ...] | None = None,
    *,
    reported_branches: int = 0,
    compat: bool = False,
) -> Typed:
    """Returns an operation with its shapes.

    Args:
      operation: a row of `ops.fundamental`.
      before: state of its input; of the first branch, for an aggregation.
      inputs: shapes of all branches, for an aggregation.
      reported_branches: their number as the public code knows it, for an aggregation with its rules.
      compat: whether to infer as the public code does.

    Raises:
      TypingError: if it does not fit.
    """
    inputs = inputs or (before.shape,)
    try:
        if compat:
            shape = compat_output_shape(operation, inputs, before.grid, reported_branches)
        else:
            shape = output_shape(operation, inputs, before.grid)
        grid = unfolded_grid(operation, before.shape)
    except ShapeError as error:
        raise TypingError(error.reason, str(error)) from error
    after = state_of(shape, grid)
    size = 0 if operation.copies else math.prod(shape)
    parameters = num_parameters(operation, before.shape)
    flops = num_flops(operation, inputs, shape)
    return Typed(operation.name, "leaf", operation, 1, (), before, after, parameters, size, flops)


def sequential(first: Typed, second: Typed) -> Typed:
    return _module_of("sequential", "sequential", 1, (first, second), first.before, second.after)


def branching(children: tuple[Typed, ...]) -> Typed:
    """Joins a branching operation, its one or two inner modules and an aggregation."""
    first = children[0]
    assert first.op is not None
    copies = 1 if first.op.num_branches == 2 else first.op.num_branches
    return _module_of(first.name, "branching", copies, children, first.before, children[-1].after)


def routing(pre: Typed, inner: Typed, post: Typed) -> Typed:
    typed = _module_of("routing", "routing", 1, (pre, inner, post), pre.before, post.after)
    if is_convolution(typed):
        # What was unfolded does not exist, and the product is the convolution; but in stacked copies, where
        # patches are multiplied (`einspace_convolution`), more is held than is counted here.
        return typed._replace(activations=post.activations)
    return typed


def computation(operation: Typed) -> Typed:
    return _module_of("computation", "computation", 1, (operation,), operation.before, operation.after)


def is_convolution(typed: Typed) -> bool:
    """Whether a node is im2col, a linear layer and col2im, which is a convolution."""
    if typed.kind != "routing":
        return False
    pre, inner, post = typed.children
    while inner.kind == "computation":
        (inner,) = inner.children
    names = [child.op.kind if child.op else "" for child in (pre, inner, post)]
    return names[0] == "im2col" and names[1] in ("linear", "relative_linear") and names[2] == "col2im"


def ends_in_branching(typed: Typed) -> bool:
    """Whether the public code forgets, at the end of a module, of how many branches it is a part."""
    if typed.kind == "sequential":
        return ends_in_branching(typed.children[1])
    if typed.kind == "routing":
        return ends_in_branching(typed.children[1])
    return typed.kind == "branching"


def aggregation_inputs(branch: Typed, inner: tuple[Typed, ...]) -> tuple[Shape, ...]:
    """Returns the shapes of all branches."""
    assert branch.op is not None
    copies = branch.op.num_branches // len(inner)
    return tuple(typed.after.shape for typed in inner for _ in range(copies))


def reported_branches(branch: Typed, inner: tuple[Typed, ...]) -> int:
    """Returns the number of branches that the public code reports to an aggregation."""
    assert branch.op is not None
    return 1 if ends_in_branching(inner[0]) else branch.op.num_branches


def _module(grammar: Grammar, node: Node, state: State, compat: bool) -> Typed:
    if not 0 <= node.rule < len(grammar.productions):
        raise TypingError(NO_DERIVATION, f"{REASONS[NO_DERIVATION]}: there is no production {node.rule}")
    name = grammar.productions[node.rule].symbols[0]
    kind = module_kind(name)
    children = node.children
    if kind == "sequential":
        first = _module(grammar, children[0], state, compat)
        return sequential(first, _module(grammar, children[1], first.after, compat))
    if kind == "computation":
        return computation(_leaf(grammar, children[0], state, compat))
    if kind == "routing":
        pre = _leaf(grammar, children[0], state, compat)
        inner = _module(grammar, children[1], state_of(pre.after.shape), compat)
        # A grid is only known to the post-routing operation of the same module.
        post = state_of(inner.after.shape, pre.after.grid)
        return routing(pre, inner, _leaf(grammar, children[2], post, compat))
    if kind == "branching":
        branch = leaf(FUNDAMENTAL_BY_NAME[name], state, compat=compat)
        modules = tuple(_module(grammar, child, branch.after, compat) for child in children[:-1])
        merge = grammar.productions[children[-1].rule].symbols[0]
        return branching((branch, *modules, aggregation(FUNDAMENTAL_BY_NAME[merge], branch, modules, compat)))
    return leaf(FUNDAMENTAL_BY_NAME[name], state, compat=compat)


def aggregation(
    operation: FundamentalOperation, branch: Typed, inner: tuple[Typed, ...], compat: bool = False
) -> Typed:
    """Returns the merge of a branching operation's inner modules; raises TypingError if it does not fit."""
    return leaf(
        operation,
        state_of(inner[0].after.shape),
        aggregation_inputs(branch, inner),
        reported_branches=reported_branches(branch, inner) if compat else 0,
        compat=compat,
    )


def _leaf(grammar: Grammar, node: Node, state: State, compat: bool) -> Typed:
    return leaf(FUNDAMENTAL_BY_NAME[grammar.productions[node.rule].symbols[0]], state, compat=compat)


def _module_of(
    name: str, kind: str, copies: int, children: tuple[Typed, ...], before: State, after: State
) -> Typed:
    """Joins typed children; what stands between the two ends of a branching counts `copies` times."""
    parameters = activations = flops = 0
    last = len(children) - 1
    for place, child in enumerate(children):
        times = copies if 0 < place < last else 1
        parameters += times * child.parameters
        activations += times * child.activations
        flops += times * child.flops
    return Typed(
        name, kind, None, copies, children, before, state_of(after.shape), parameters, activations, flops
    )
