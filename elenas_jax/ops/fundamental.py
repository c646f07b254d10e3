"""The fundamental operations of einspace: branch, merge, route, compute.

Source: Ericsson et al. (2024), "einspace: Searching for Neural Architectures from Fundamental
Operations", and its public code for what the paper leaves open. A row says what an operation does to
shapes, how many parameters it has and how many operations it costs; nothing here allocates an array.
"""

from typing import NamedTuple

from elenas_jax.ops import fundamental_shapes as rules
from elenas_jax.ops.fundamental_shapes import EMPTY_AXIS, Flops, Grid, Output, Parameters, Shape, ShapeError


class FundamentalOperation(NamedTuple):
    """One terminal of the grammar. Functions take its `values`, its numbers, first."""

    name: str
    kind: str
    values: tuple[int, ...]
    output: Output
    parameters: Parameters
    flops: Flops
    copies: bool = False  # hands its input on as it is, or its parts: makes no activations of its own

    @property
    def num_branches(self) -> int:
        """Branches that a branching operation makes, or that a concat is for; 0 for others."""
        return self.values[-1] if self.kind in ("clone", "group", "concat") else 0


def output_shape(
    operation: FundamentalOperation, inputs: tuple[Shape, ...], grid: Grid | None = None
) -> Shape:
    """Returns the shape of an operation's output; of each branch, for one that branches.

    Args:
      operation: a row.
      inputs: the shape of its input; those of all branches for an aggregation.
      grid: rows and columns that col2im folds into, None where nothing was unfolded.

    Raises:
      ShapeError: if the operation does not fit.
    """
    try:
        if any(0 in shape for shape in inputs):
            raise ShapeError(EMPTY_AXIS, "needs axes that are not empty")
        return operation.output(operation.values, inputs, grid)
    except ShapeError as error:
        shapes = " and ".join(map(str, dict.fromkeys(inputs)))
        raise ShapeError(error.reason, f"{operation.name} {error}; its input is {shapes}") from None


def num_parameters(operation: FundamentalOperation, shape: Shape) -> int:
    """Returns the number of trainable numbers of an operation on an input of `shape`."""
    return operation.parameters(operation.values, shape)


def num_flops(operation: FundamentalOperation, inputs: tuple[Shape, ...], output: Shape) -> int:
    """Returns the forward cost of one example: 2 for a multiply-add, 1 for another operation on a number."""
    return operation.flops(operation.values, inputs[0], output, len(inputs))


def unfolded_grid(operation: FundamentalOperation, shape: Shape) -> Grid | None:
    """Returns the grid of patches that an im2col makes of an image, None for other operations."""
    if operation.kind != "im2col":
        return None
    return rules.windows(operation.values, shape)


def _row(
    kind: str,
    values: tuple[int, ...],
    output: Output,
    parameters: Parameters,
    flops: Flops,
    *,
    name: str = "",
    copies: bool = False,
) -> FundamentalOperation:
    written = f"({','.join(map(str, values))})" if values else ""
    return FundamentalOperation(name or kind + written, kind, values, output, parameters, flops, copies)


BRANCHES = (2, 4, 8)
AXES = (1, 2, 3)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
UNFOLDINGS = ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 4, 0), (8, 8, 0), (16, 16, 0))
PERMUTATIONS = ((2, 1), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1))
CONV1D_KERNELS = (1, 3, 5, 8)
CONV1D_WIDTHS = (32, 64, 128, 256)

_IDENTITY = (_row("identity", (), rules.same, rules.none, rules.free, copies=True),)
_PERMUTES = tuple(_row("permute", order, rules.permute, rules.none, rules.free) for order in PERMUTATIONS)

BRANCHING = (
    *(_row("clone", (b,), rules.same, rules.none, rules.free, copies=True) for b in BRANCHES),
    *(
        _row("group", (axis, b), rules.group, rules.none, rules.free, copies=True)
        for b in BRANCHES
        for axis in AXES
    ),
)
AGGREGATION = (
    _row("matmul", (), rules.matmul, rules.none, rules.matmul_flops),
    _row("scaled_matmul", (), rules.matmul, rules.none, rules.scaled_matmul_flops),
    _row("add", (), rules.add, rules.none, rules.add_flops),
    *(_row("concat", (axis, b), rules.concat, rules.none, rules.free) for b in BRANCHES for axis in AXES),
)
PRE_ROUTING = (
    *_IDENTITY,
    *_PERMUTES,
    *(_row("im2col", values, rules.im2col, rules.none, rules.free) for values in UNFOLDINGS),
)
POST_ROUTING = (*_IDENTITY, *_PERMUTES, _row("col2im", (), rules.col2im, rules.none, rules.free))
COMPUTATION = (
    *_IDENTITY,
    *(
        _row("linear", (width,), rules.linear, rules.linear_parameters, rules.linear_flops)
        for width in WIDTHS
    ),
    _row("norm", (), rules.same, rules.norm_parameters, rules.per_number(8)),
    _row("leaky_relu", (), rules.same, rules.none, rules.per_number(1)),
    _row("softmax", (), rules.same, rules.none, rules.per_number(4)),
    _row("positional_encoding", (), rules.same, rules.all_numbers, rules.per_number(1)),
)
# The leaves that inputs of one axis have besides.
CONVOLUTION_1D = tuple(
    _row("conv1d", (kernel, width), rules.conv1d, rules.conv1d_parameters, rules.conv1d_flops)
    for kernel in CONV1D_KERNELS
    for width in CONV1D_WIDTHS
)
# Of the published seeds only; a search never draws them.
OFF_GRAMMAR = (
    *(
        _row(
            "relative_linear",
            values,
            rules.relative_linear,
            rules.relative_linear_parameters,
            rules.linear_flops,
            name=name,
        )
        for name, values in (("linear(x4)", (4, 1)), ("linear(/4)", (1, 4)))
    ),
    _row("im2col", (7, 2, 3), rules.im2col, rules.none, rules.free),
    _row("max_pool", (3, 2, 1), rules.max_pool, rules.none, rules.per_number(8)),
)

FUNDAMENTAL_BY_NAME = {
    row.name: row
    for row in (
        *BRANCHING,
        *AGGREGATION,
        *PRE_ROUTING,
        *POST_ROUTING,
        *COMPUTATION,
        *CONVOLUTION_1D,
        *OFF_GRAMMAR,
    )
}
