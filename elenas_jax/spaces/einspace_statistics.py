"""Sizes of einspace architectures and their distribution, copies of shared branches counted.

Source: Ericsson et al. (2024), table 10 and figure 8, and the public code for what is counted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elenas_jax.ops.fundamental_shapes import COLUMN, ShapeError
from elenas_jax.spaces.einspace_compat import executed_shape
from elenas_jax.spaces.einspace_typing import Typed, ends_in_branching


class Size(NamedTuple):
    """Counts of one architecture."""

    terminals: int  # leaf operations
    nonterminals: int  # modules
    depth: int  # of the deepest leaf; the root has depth 0
    mean_branches: float  # over leaves: the factor of the branching that a leaf stands in, 1 outside of any
    parameters: int
    activations: int

    @property
    def nodes(self) -> int:
        return self.terminals + self.nonterminals


class Distribution(NamedTuple):
    """How large architectures are: a row of table 10, and what else is known of the public code's."""

    samples: int
    mean_terminals: float
    median_terminals: float
    ninety_terminals: float  # 90% of architectures have at most as many
    max_terminals: int
    mean_nonterminals: float
    mean_branches: float
    mean_depth: float
    median_depth: float
    max_depth: int
    median_parameters: float
    ninety_five_parameters: float
    max_parameters: int
    without_parameters: float  # share
    root_sequential: float  # shares of the kinds of roots
    root_branching: float
    root_routing: float
    ends_in_columns: float  # share whose output is no image
    invalid: float  # share that does not run, or runs with other shapes than those inferred


def distribution_of(architectures: Sequence[Typed]) -> Distribution:
    """Returns the distribution of sizes of architectures; raises ValueError if there are none."""
    if not architectures:
        raise ValueError("There are no architectures to describe.")
    sizes = [size_of(typed) for typed in architectures]
    terminals = np.array([size.terminals for size in sizes], float)
    parameters = np.array([size.parameters for size in sizes], float)
    depths = np.array([size.depth for size in sizes])
    kinds = [typed.kind for typed in architectures]
    return Distribution(
        samples=len(architectures),
        mean_terminals=float(terminals.mean()),
        median_terminals=float(np.median(terminals)),
        ninety_terminals=float(np.quantile(terminals, 0.9)),
        max_terminals=int(terminals.max()),
        mean_nonterminals=float(np.mean([size.nonterminals for size in sizes])),
        mean_branches=float(np.mean([size.mean_branches for size in sizes])),
        mean_depth=float(depths.mean()),
        median_depth=float(np.median(depths)),
        max_depth=int(depths.max()),
        median_parameters=float(np.median(parameters)),
        ninety_five_parameters=float(np.quantile(parameters, 0.95)),
        max_parameters=int(parameters.max()),
        without_parameters=float(np.mean(parameters == 0)),
        root_sequential=kinds.count("sequential") / len(kinds),
        root_branching=kinds.count("branching") / len(kinds),
        root_routing=kinds.count("routing") / len(kinds),
        ends_in_columns=float(np.mean([typed.after.mode == COLUMN for typed in architectures])),
        invalid=float(np.mean([not runs_as_inferred(typed) for typed in architectures])),
    )


def runs_as_inferred(typed: Typed) -> bool:
    """Whether a network runs, and has the shape that was inferred; False only of some under compat rules."""
    try:
        return executed_shape(typed, typed.before.shape) == typed.after.shape
    except ShapeError:
        return False


class _Counts(NamedTuple):
    terminals: int
    nonterminals: int
    branches: int  # sum over leaves
    depth: int


def size_of(typed: Typed) -> Size:
    """Returns the counts of an architecture."""
    counts = _count(typed, 1, 0)
    return Size(
        counts.terminals,
        counts.nonterminals,
        counts.depth,
        counts.branches / counts.terminals,
        typed.parameters,
        typed.activations,
    )


def too_deep(typed: Typed, max_depth: int) -> bool:
    """Whether over `max_depth` modules stand around a module, 0 is no limit; leaves may be one deeper."""
    return bool(max_depth) and size_of(typed).depth > max_depth + 1


def _count(typed: Typed, factor: int, depth: int) -> _Counts:
    """Counts a node that stands `depth` deep in a branching by `factor`, as the public code passes it on."""
    if typed.kind == "leaf":
        return _Counts(1, 0, factor, depth)
    terminals, nonterminals, branches, deepest = 0, 1, 0, depth
    last = len(typed.children) - 1
    for place, (child, entered) in enumerate(zip(typed.children, _factors(typed, factor), strict=True)):
        counts = _count(child, entered, depth + 1)
        times = typed.copies if 0 < place < last else 1
        terminals += times * counts.terminals
        nonterminals += times * counts.nonterminals
        branches += times * counts.branches
        deepest = max(deepest, counts.depth)
    return _Counts(terminals, nonterminals, branches, deepest)


def _factors(typed: Typed, factor: int) -> list[int]:
    """Returns the factor that each child of a module is told; one behind a branching is told 1."""
    if typed.kind == "branching":
        branch, *inner, _ = typed.children
        assert branch.op is not None
        branches = branch.op.num_branches
        behind = 1 if ends_in_branching(inner[0]) else branches
        return [factor, *[branches] * len(inner), behind]
    if typed.kind == "routing":
        return [factor, factor, 1 if ends_in_branching(typed.children[1]) else factor]
    return [factor] * len(typed.children)
