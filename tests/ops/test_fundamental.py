"""The fundamental operations: how many there are, and what each does to shapes."""

import pytest

from elenas_jax.ops.fundamental import (
    AGGREGATION,
    BRANCHING,
    COMPUTATION,
    CONVOLUTION_1D,
    FUNDAMENTAL_BY_NAME,
    POST_ROUTING,
    PRE_ROUTING,
    num_flops,
    num_parameters,
    output_shape,
    unfolded_grid,
)
from elenas_jax.ops.fundamental_shapes import (
    EMPTY_AXIS,
    KERNEL_TOO_LARGE,
    NO_GRID,
    REASONS,
    SHAPES_DISAGREE,
    UNEVEN_SPLIT,
    WRONG_BRANCHES,
    WRONG_MODE,
    WRONG_TOKENS,
    ShapeError,
)

GROUPS = (BRANCHING, AGGREGATION, PRE_ROUTING, POST_ROUTING, COMPUTATION)

# Operation, inputs, output, parameters; by hand.
FITTING = [
    ("identity", ((3, 8, 6),), (3, 8, 6), 0),
    ("clone(8)", ((5, 7),), (5, 7), 0),
    ("group(1,2)", ((4, 8, 6),), (2, 8, 6), 0),
    ("group(2,4)", ((4, 8, 6),), (4, 2, 6), 0),
    ("group(3,2)", ((4, 8, 6),), (4, 8, 3), 0),
    ("group(2,8)", ((3, 16),), (3, 2), 0),
    ("permute(2,1)", ((5, 7),), (7, 5), 0),
    ("permute(1,3,2)", ((3, 8, 6),), (3, 6, 8), 0),
    ("permute(2,1,3)", ((3, 8, 6),), (8, 3, 6), 0),
    ("permute(2,3,1)", ((3, 8, 6),), (8, 6, 3), 0),
    ("permute(3,1,2)", ((3, 8, 6),), (6, 3, 8), 0),
    ("permute(3,2,1)", ((3, 8, 6),), (6, 8, 3), 0),
    ("im2col(1,1,0)", ((5, 27, 18),), (486, 5), 0),
    ("im2col(1,2,0)", ((5, 27, 18),), (126, 5), 0),
    ("im2col(3,1,1)", ((5, 27, 18),), (486, 45), 0),
    ("im2col(3,2,1)", ((5, 27, 18),), (126, 45), 0),
    ("im2col(4,4,0)", ((5, 27, 18),), (24, 80), 0),
    ("im2col(8,8,0)", ((5, 27, 18),), (6, 320), 0),
    ("im2col(16,16,0)", ((3, 32, 32),), (4, 768), 0),
    ("linear(16)", ((3, 8, 6),), (3, 8, 16), 7 * 16),
    ("linear(2048)", ((5, 7),), (5, 2048), 8 * 2048),
    ("linear(x4)", ((5, 7),), (5, 28), 8 * 28),
    ("linear(/4)", ((5, 28),), (5, 7), 29 * 7),
    ("norm", ((3, 8, 6),), (3, 8, 6), 6),
    ("norm", ((5, 7),), (5, 7), 14),
    ("leaky_relu", ((5, 7),), (5, 7), 0),
    ("softmax", ((3, 8, 6),), (3, 8, 6), 0),
    ("positional_encoding", ((3, 8, 6),), (3, 8, 6), 144),
    ("matmul", ((5, 7), (7, 2)), (5, 2), 0),
    ("scaled_matmul", ((3, 8, 6), (3, 6, 4)), (3, 8, 4), 0),
    ("add", ((5, 7),) * 8, (5, 7), 0),
    ("concat(1,2)", ((3, 8, 6), (2, 8, 6)), (5, 8, 6), 0),
    ("concat(2,4)", ((5, 7),) * 4, (5, 28), 0),
    ("concat(3,8)", ((3, 8, 6),) * 8, (3, 8, 48), 0),
    ("conv1d(8,32)", ((4, 1000),), (32, 1000), (4 * 8 + 1) * 32),
    ("conv1d(1,256)", ((4, 46),), (256, 46), 5 * 256),
    ("max_pool(3,2,1)", ((64, 27, 18),), (64, 14, 9), 0),
]

UNFITTING = [
    ("permute(2,1)", ((3, 8, 6),), WRONG_MODE),
    ("permute(2,1,3)", ((3, 8),), WRONG_MODE),
    ("im2col(3,1,1)", ((3, 8),), WRONG_MODE),
    ("im2col(4,4,0)", ((3, 8, 3),), KERNEL_TOO_LARGE),
    ("col2im", ((3, 8, 6),), WRONG_MODE),
    ("col2im", ((48, 8),), NO_GRID),
    ("group(3,2)", ((4, 8),), WRONG_MODE),
    ("group(1,4)", ((6, 8, 6),), UNEVEN_SPLIT),
    ("matmul", ((5, 7), (5, 7)), SHAPES_DISAGREE),
    ("matmul", ((3, 8, 6), (2, 6, 8)), SHAPES_DISAGREE),
    ("matmul", ((7, 7),) * 4, WRONG_BRANCHES),
    ("add", ((5, 7), (7, 5)), SHAPES_DISAGREE),
    ("concat(1,4)", ((5, 7),) * 2, WRONG_BRANCHES),
    ("concat(3,2)", ((5, 7),) * 2, WRONG_MODE),
    ("concat(3,2)", ((5, 7, 2), (5, 7)), SHAPES_DISAGREE),
    ("concat(1,2)", ((5, 7, 2), (5, 7, 3)), SHAPES_DISAGREE),
    ("conv1d(3,32)", ((5, 7, 2),), WRONG_MODE),
    ("leaky_relu", ((5, 0),), EMPTY_AXIS),
]


def test_there_are_as_many_operations_as_in_the_paper():
    assert [len(group) for group in GROUPS] == [12, 12, 14, 8, 13]
    assert len({row.name for group in GROUPS for row in group}) == 51
    assert len(CONVOLUTION_1D) == 16


@pytest.mark.parametrize(("name", "inputs", "output", "parameters"), FITTING)
def test_shapes_and_parameters(name, inputs, output, parameters):
    row = FUNDAMENTAL_BY_NAME[name]
    assert output_shape(row, inputs) == output
    assert num_parameters(row, inputs[0]) == parameters


def test_every_operation_is_among_those_whose_shapes_were_written_down_by_hand():
    kinds = {FUNDAMENTAL_BY_NAME[name].kind for name, *_ in FITTING} | {"col2im"}
    assert kinds == {row.kind for row in FUNDAMENTAL_BY_NAME.values()}


@pytest.mark.parametrize(("name", "inputs", "reason"), UNFITTING)
def test_what_does_not_fit_says_why(name, inputs, reason):
    with pytest.raises(ShapeError, match=r"needs .*; its input is \(") as error:
        output_shape(FUNDAMENTAL_BY_NAME[name], inputs)
    assert error.value.reason == reason and REASONS[reason]
    assert str(error.value).startswith(name)


def test_folding_needs_as_many_tokens_as_the_grid_has():
    fold = FUNDAMENTAL_BY_NAME["col2im"]
    assert output_shape(fold, ((24, 5),), (6, 4)) == (5, 6, 4)
    with pytest.raises(ShapeError, match="needs 6 times 4 tokens") as error:
        output_shape(fold, ((48, 5),), (6, 4))
    assert error.value.reason == WRONG_TOKENS


def test_grids_of_patches():
    grids = [unfolded_grid(FUNDAMENTAL_BY_NAME[f"im2col({k},{k},0)"], (3, 27, 18)) for k in (4, 8, 16)]
    assert grids == [(6, 4), (3, 2), (1, 1)]
    assert unfolded_grid(FUNDAMENTAL_BY_NAME["linear(16)"], (3, 27, 18)) is None


@pytest.mark.parametrize(
    ("name", "inputs", "flops"),
    [
        ("linear(16)", ((5, 7),), (2 * 7 + 1) * 5 * 16),
        ("conv1d(3,32)", ((4, 10),), (2 * 12 + 1) * 320),
        ("matmul", ((5, 7), (7, 2)), 2 * 7 * 10),
        ("scaled_matmul", ((5, 7), (7, 2)), 2 * 7 * 10 + 10),
        ("add", ((5, 7),) * 4, 3 * 35),
        ("leaky_relu", ((5, 7),), 35),
        ("permute(2,1)", ((5, 7),), 0),
    ],
)
def test_costs(name, inputs, flops):
    row = FUNDAMENTAL_BY_NAME[name]
    assert num_flops(row, inputs, output_shape(row, inputs)) == flops
