"""What the public code of einspace infers and allows, where that differs from the paper.

Source: the code published with Ericsson et al. (2024). Known differences, kept here and nowhere else: an
aggregation may be for another number of branches than there are, since concats into 4 and 8 are not taken
from the options of two branches, and since a branch that ends in a branching module passes for one of a
single branch; col2im fits any number of values that the grid divides; one short axis takes a number of
groups from all axes. So the inferred shape may be wrong: `executed_shape` says what the network really does.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from elenas_jax.ops.fundamental import FundamentalOperation, output_shape
from elenas_jax.ops.fundamental_shapes import (
    COLUMN,
    EMPTY_AXIS,
    IMAGE,
    NO_GRID,
    NOT_AS_INFERRED,
    SHAPES_DISAGREE,
    WRONG_BRANCHES,
    WRONG_MODE,
    WRONG_TOKENS,
    Grid,
    Shape,
    ShapeError,
    mode_of,
)

if TYPE_CHECKING:
    from elenas_jax.spaces.einspace_typing import Typed


def compat_output_shape(
    operation: FundamentalOperation, inputs: tuple[Shape, ...], grid: Grid | None, reported_branches: int
) -> Shape:
    """Returns the shape that the public code infers; raises ShapeError where it gives up."""
    first = inputs[0]
    if 0 in first:
        raise ShapeError(EMPTY_AXIS, f"{operation.name} has an empty axis in its input {first}")
    if operation.kind in ("matmul", "scaled_matmul"):
        if reported_branches != 2:
            raise ShapeError(WRONG_BRANCHES, f"matmul needs 2 branches, not {reported_branches}")
        return output_shape(operation, inputs[:2])
    if operation.kind == "concat":
        branches = operation.values[1]
        # Into 4 or 8: as many as there should be of the first branch, whatever there is.
        pretended = inputs[:2] if branches == 2 else (first,) * branches
        return output_shape(operation, pretended)
    if operation.kind == "col2im":
        return _fold(first, grid)
    return output_shape(operation, inputs, grid)


def _fold(shape: Shape, grid: Grid | None) -> Shape:
    if mode_of(shape) != COLUMN:
        raise ShapeError(WRONG_MODE, f"col2im needs tokens; its input is {shape}")
    if grid is None:
        raise ShapeError(NO_GRID, "col2im has no im2col in its own routing module")
    channels, rest = divmod(math.prod(shape), math.prod(grid))
    if rest:
        raise ShapeError(
            WRONG_TOKENS, f"col2im has {math.prod(shape)} numbers for a grid of {grid[0]} times {grid[1]}"
        )
    return (channels, *grid)


def compat_options(
    options: Iterable[FundamentalOperation],
    inputs: tuple[Shape, ...],
    reported_branches: int = 0,
) -> list[FundamentalOperation]:
    """Returns what the public code keeps of the options of a slot, before it tries one of them.

    Args:
      options: operations of one group: branching, routing or aggregation.
      inputs: shape of the input; of the first two branches for an aggregation.
      reported_branches: for an aggregation, see `einspace_typing.reported_branches`.
    """
    return [row for row in options if _is_option(row, inputs, reported_branches)]


def _is_option(row: FundamentalOperation, inputs: tuple[Shape, ...], reported_branches: int) -> bool:
    shape = inputs[0]
    is_image = mode_of(shape) == IMAGE
    if row.kind == "permute":
        return len(row.values) == len(shape)
    if row.kind == "im2col":
        # Padding is not counted.
        return is_image and (row.values[0] < 3 or min(shape[1:]) >= row.values[0])
    if row.kind == "col2im":
        return not is_image
    if row.kind == "group":
        axis, parts = row.values
        return axis <= len(shape) and shape[axis - 1] % 2 == 0 and min(shape) >= parts
    if row.kind in ("matmul", "scaled_matmul", "add", "concat"):
        return _is_aggregation_option(row, inputs[0], inputs[1], reported_branches)
    return True


def _is_aggregation_option(row: FundamentalOperation, first: Shape, other: Shape, reported: int) -> bool:
    if len(first) != len(other):
        return False
    if reported in (4, 8) and row.kind != "add" and row.num_branches != reported:
        return False
    if row.kind == "add":
        return first == other
    if row.kind == "concat":
        axis = row.values[0]
        return axis <= len(first) and all(
            a == b for place, (a, b) in enumerate(zip(first, other, strict=True), 1) if place != axis
        )
    return first[-1] == other[-2] and first[:-2] == other[:-2]


def executed_shape(typed: "Typed", shape: Shape) -> Shape:
    """Returns the shape that a network has when it is run, its layers made for the inferred shapes.

    Args:
      typed: inferred by the rules of the public code.
      shape: of the input.

    Raises:
      ShapeError: if running it fails.
    """
    if typed.kind in ("sequential", "routing", "computation"):
        for child in typed.children:
            shape = executed_shape(child, shape)
        return shape
    if typed.kind == "branching":
        branch, *inner, merge = typed.children
        part = executed_shape(branch, shape)
        branches = tuple(executed_shape(module, part) for module in inner)
        assert merge.op is not None
        return _executed_merge(merge.op, branches * (typed.copies if len(inner) == 1 else 1))
    return _executed_leaf(typed, shape)


def _executed_merge(row: FundamentalOperation, branches: tuple[Shape, ...]) -> Shape:
    if row.kind == "concat":
        row = row._replace(values=(row.values[0], len(branches)))
    elif row.kind != "add" and len(branches) == 2:
        return _broadcast_matmul(*branches)
    return output_shape(row, branches)


def _broadcast_matmul(left: Shape, right: Shape) -> Shape:
    if left[-1] != right[-2]:
        raise ShapeError(SHAPES_DISAGREE, f"matmul does not fit {left} and {right}")
    # The batch axis takes part as well: tokens times an image would mix it with channels.
    if len(left) != len(right):
        raise ShapeError(SHAPES_DISAGREE, f"matmul does not fit {left} and {right}")
    return (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])


def _broadcast(left: Shape, right: Shape) -> Shape:
    try:
        return tuple(np.broadcast_shapes(left, right))
    except ValueError as error:
        raise ShapeError(SHAPES_DISAGREE, f"{left} and {right} do not broadcast") from error


def _executed_leaf(typed: "Typed", shape: Shape) -> Shape:
    row, made_for = typed.op, typed.before.shape
    assert row is not None
    if len(shape) != len(made_for) and row.kind in ("norm", "positional_encoding"):
        raise ShapeError(NOT_AS_INFERRED, f"{row.name} is for {made_for}; its input is {shape}")
    axis = {"linear": -1, "relative_linear": -1, "norm": 0 if mode_of(made_for) == IMAGE else -1, "conv1d": 0}
    if row.kind in axis and shape[axis[row.kind]] != made_for[axis[row.kind]]:
        raise ShapeError(NOT_AS_INFERRED, f"{row.name} is for {made_for}; its input is {shape}")
    if row.kind == "relative_linear":
        return (*shape[:-1], typed.after.shape[-1])
    if row.kind == "positional_encoding":
        return _broadcast(shape, made_for)
    if row.kind == "group":
        place = row.values[0] - 1
        if len(shape) <= place or shape[place] != made_for[place]:
            raise ShapeError(NOT_AS_INFERRED, f"{row.name} is for {made_for}; its input is {shape}")
    if row.kind == "col2im":
        return _fold(shape, typed.before.grid)
    return output_shape(row, (shape,))
