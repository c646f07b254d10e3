"""What fundamental operations do to shapes, and what they cost: rules without arrays.

Shapes are without the batch axis: (C, H, W) in the image mode, (S, D) in the column mode. Axis 1 is the
first one. Source: Ericsson et al. (2024), and its public code for what the paper leaves open.
"""

import math
from collections.abc import Callable

Shape = tuple[int, ...]
Grid = tuple[int, int]

IMAGE, COLUMN = "im", "col"

# Reasons why an operation cannot stand where it stands. They are the statuses of the space, in this order.
VALID = 0
NO_DERIVATION = 1
WRONG_MODE = 2
UNEVEN_SPLIT = 3
KERNEL_TOO_LARGE = 4
SHAPES_DISAGREE = 5
WRONG_BRANCHES = 6
NO_GRID = 7
WRONG_TOKENS = 8
EMPTY_AXIS = 9
TOO_MANY_PARAMETERS = 10
TOO_MANY_ACTIVATIONS = 11
TOO_DEEP = 12
NOT_AS_INFERRED = 13

REASONS = (
    "valid",
    "no derivation of the grammar",
    "an operation of the other mode",
    "an axis does not split evenly",
    "a kernel is larger than its input",
    "shapes of branches do not match",
    "an aggregation of another number of branches",
    "nothing was unfolded that could be folded",
    "the number of tokens is not that of the grid",
    "an axis is empty",
    "too many parameters",
    "too many activations",
    "too deep",
    "the network has other shapes than those inferred",
)


class ShapeError(ValueError):
    """An operation does not fit its inputs; `reason` is an index into `REASONS`."""

    def __init__(self, reason: int, message: str):
        super().__init__(message)
        self.reason = reason


# values, shapes of the inputs (one, or those of all branches), grid to fold into -> shape of the output
Output = Callable[[tuple[int, ...], tuple[Shape, ...], Grid | None], Shape]
Parameters = Callable[[tuple[int, ...], Shape], int]  # values, shape of the input -> their number
# values, shape of the (first) input, shape of the output, number of inputs -> cost
Flops = Callable[[tuple[int, ...], Shape, Shape, int], int]


def mode_of(shape: Shape) -> str:
    """Returns the mode of a shape: "im" of three axes, "col" of two."""
    return IMAGE if len(shape) == 3 else COLUMN


def windows(values: tuple[int, ...], shape: Shape) -> Grid:
    kernel, stride, padding = values
    if mode_of(shape) != IMAGE:
        raise ShapeError(WRONG_MODE, "needs an image")
    if min(shape[1:]) + 2 * padding < kernel:
        raise ShapeError(KERNEL_TOO_LARGE, "needs an image of at least its kernel")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in shape[1:])
    return rows, columns


def same(_values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    return inputs[0]


def group(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    axis, parts = values
    (shape,) = inputs
    if axis > len(shape):
        raise ShapeError(WRONG_MODE, f"needs an axis {axis}")
    if shape[axis - 1] % parts:
        raise ShapeError(UNEVEN_SPLIT, "needs an axis that it splits evenly")
    return (*shape[: axis - 1], shape[axis - 1] // parts, *shape[axis:])


def permute(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    (shape,) = inputs
    if len(values) != len(shape):
        raise ShapeError(WRONG_MODE, f"needs {len(values)} axes")
    return tuple(shape[axis - 1] for axis in values)


def im2col(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    (shape,) = inputs
    rows, columns = windows(values, shape)
    return (rows * columns, shape[0] * values[0] ** 2)


def col2im(_values: tuple[int, ...], inputs: tuple[Shape, ...], grid: Grid | None) -> Shape:
    (shape,) = inputs
    if mode_of(shape) != COLUMN:
        raise ShapeError(WRONG_MODE, "needs tokens")
    if grid is None:
        raise ShapeError(NO_GRID, "needs an im2col in its own routing module")
    if shape[0] != grid[0] * grid[1]:
        raise ShapeError(WRONG_TOKENS, f"needs {grid[0]} times {grid[1]} tokens")
    return (shape[1], *grid)


def linear(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    return (*inputs[0][:-1], values[0])


def linear_parameters(values: tuple[int, ...], shape: Shape) -> int:
    return (shape[-1] + 1) * values[0]


def linear_flops(_values: tuple[int, ...], shape: Shape, output: Shape, _inputs: int) -> int:
    return (2 * shape[-1] + 1) * math.prod(output)


def relative(values: tuple[int, ...], shape: Shape) -> int:
    multiplier, divisor = values
    return shape[-1] * multiplier // divisor


def relative_linear(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    return (*inputs[0][:-1], relative(values, inputs[0]))


def relative_linear_parameters(values: tuple[int, ...], shape: Shape) -> int:
    return (shape[-1] + 1) * relative(values, shape)


def conv1d(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    (shape,) = inputs
    if mode_of(shape) != COLUMN:
        raise ShapeError(WRONG_MODE, "needs two axes")
    return (values[1], shape[1])


def conv1d_parameters(values: tuple[int, ...], shape: Shape) -> int:
    return (shape[0] * values[0] + 1) * values[1]


def conv1d_flops(values: tuple[int, ...], shape: Shape, output: Shape, _inputs: int) -> int:
    return (2 * shape[0] * values[0] + 1) * math.prod(output)


def max_pool(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    (shape,) = inputs
    return (shape[0], *windows(values, shape))


def norm_parameters(_values: tuple[int, ...], shape: Shape) -> int:
    # Batch normalisation over channels in the image mode, layer normalisation over features in the other.
    return 2 * (shape[0] if mode_of(shape) == IMAGE else shape[-1])


def check_equal(inputs: tuple[Shape, ...], but: str = "") -> None:
    if any(shape != inputs[0] for shape in inputs):
        raise ShapeError(SHAPES_DISAGREE, f"needs branches of equal shapes{but}")


def matmul(_values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    if len(inputs) != 2:
        raise ShapeError(WRONG_BRANCHES, f"needs 2 branches, not {len(inputs)}")
    left, right = inputs
    if len(left) != len(right) or left[-1] != right[-2] or left[:-2] != right[:-2]:
        raise ShapeError(SHAPES_DISAGREE, "needs branches that can be multiplied")
    return (*left[:-1], right[-1])


def add(_values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    check_equal(inputs)
    return inputs[0]


def concat(values: tuple[int, ...], inputs: tuple[Shape, ...], _grid: Grid | None) -> Shape:
    axis, branches = values
    if len(inputs) != branches:
        raise ShapeError(WRONG_BRANCHES, f"needs {branches} branches, not {len(inputs)}")
    first = inputs[0]
    if axis > len(first):
        raise ShapeError(WRONG_MODE, f"needs an axis {axis}")
    others = tuple((len(shape), *shape[: axis - 1], *shape[axis:]) for shape in inputs)
    check_equal(others, f" but for axis {axis}")
    return (*first[: axis - 1], sum(shape[axis - 1] for shape in inputs), *first[axis:])


def none(_values: tuple[int, ...], _shape: Shape) -> int:
    return 0


def free(_values: tuple[int, ...], _shape: Shape, _output: Shape, _inputs: int) -> int:
    return 0


def per_number(cost: int) -> Flops:
    return lambda _values, _shape, output, _inputs: cost * math.prod(output)


def matmul_flops(_values: tuple[int, ...], shape: Shape, output: Shape, _inputs: int) -> int:
    return 2 * shape[-1] * math.prod(output)


def scaled_matmul_flops(_values: tuple[int, ...], shape: Shape, output: Shape, _inputs: int) -> int:
    return (2 * shape[-1] + 1) * math.prod(output)


def add_flops(_values: tuple[int, ...], _shape: Shape, output: Shape, inputs: int) -> int:
    return (inputs - 1) * math.prod(output)


def all_numbers(_values: tuple[int, ...], shape: Shape) -> int:
    return math.prod(shape)
