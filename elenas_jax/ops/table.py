"""The record of an operation: everything the package knows of it is in its row.

Codes are numbers in the edge matrix of a `ComputationGraph`. They mean the same under
every config; a config only says which codes a search may draw.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Extent(NamedTuple):
    """Which part of a padded value is real."""

    valid_rows: jax.Array | np.ndarray  # [R, 1] bool
    valid_cols: jax.Array | np.ndarray  # [1, C] bool


class Combining(NamedTuple):
    """How an edge between two nodes hands on its source. Rows are kept in the order of codes.

    A node's value takes its operands group by group in the order of codes, each joined to
    what stands so far by `fn(accumulated, operand)`. Within a group the order must not matter, and
    `fn(0, 0)` is 0, since padding is.
    """

    name: str
    code: int
    symbol: str  # in equations and legends: between operands, or the name of a function if there is `flax`
    colour: str  # in drawings
    fn: Callable[[jax.Array, jax.Array], jax.Array] | None  # None for none and matmul
    shape_rule: str  # "none", "matmul" or "elementwise"
    delayed: bool = False  # reads the source's value of the previous step
    alone: str = "identity"  # transforming operation of a first operand with nothing to its left
    # `fn` as a Python expression of `{x}`, what stands so far, and `{y}`, with jax, jnp in scope; empty
    # for the operators of Python among the symbols.
    flax: str = ""


class Transforming(NamedTuple):
    """What a self-edge does to its node's value."""

    name: str
    code: int
    symbol: str  # function name in equations and legends
    colour: str
    # `fn(value [..., R, C], extent) -> [..., R, C]`. Padding of the value is zero. Padding of the
    # result may be anything for elementwise rows; the interpreter sets it to zero.
    fn: Callable[[jax.Array, Extent], jax.Array]
    # The same as a Python expression of `{x}` with jax, jnp in scope, unpadded. Where every value of a step
    # is one row, `{x}` may be [..., C], unless the expression names an axis -2.
    flax: str
    shape_rule: str  # "same", "transpose" or "one_row"
    is_activation: bool = False  # dropped at a final node without a head (spec, rule 6)
    # `grad(value, result, cotangent) -> cotangent of value`; None: differentiate `fn`.
    grad: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


def by_name(rows: Sequence[Any]) -> dict[str, Any]:
    """Returns rows by their names, after checking that codes are the rows' places."""
    for place, row in enumerate(rows):
        if row.code != place:
            raise ValueError(f"Operation {row.name!r} has code {row.code} but stands at place {place}.")
    return {row.name: row for row in rows}
