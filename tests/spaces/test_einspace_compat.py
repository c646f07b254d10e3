"""What the public code allows and infers, next to what the paper says."""

import pytest

from elenas_jax.ops.fundamental import AGGREGATION, BRANCHING, FUNDAMENTAL_BY_NAME, POST_ROUTING, PRE_ROUTING
from elenas_jax.ops.fundamental_shapes import ShapeError
from elenas_jax.spaces.einspace_compat import compat_options, compat_output_shape, executed_shape
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_seeds import to_node
from elenas_jax.spaces.einspace_typing import TypingError, infer, state_of

GRAMMAR = make_einspace_grammar()
UNSEEN = ((3, 28, 28), (1, 24, 24), (3, 64, 64), (1, 27, 18), (1, 64, 128), (12, 18, 18))


def names(rows):
    return {row.name for row in rows}


def strict(head, shape):
    found = make_options(GRAMMAR).leaves(head, state_of(shape))
    return {typed.name for _, typed in found}


def strict_branchings(shape):
    return {typed.name for _, typed in make_options(GRAMMAR).branchings("S", state_of(shape))}


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 64, 64)])
def test_first_branchings_of_three_channels(shape):
    expected = {"clone(2)", "clone(4)", "clone(8)", "group(2,2)", "group(3,2)"}
    assert names(compat_options(BRANCHING, (shape,))) == expected
    # One short axis takes no groups from the others.
    assert strict_branchings(shape) >= expected | {"group(2,4)", "group(3,4)"}


def test_first_branchings_of_other_inputs():
    assert names(compat_options(BRANCHING, ((1, 24, 24),))) == {"clone(2)", "clone(4)", "clone(8)"}
    assert len(strict_branchings((1, 24, 24))) == 9
    assert len(compat_options(BRANCHING, ((12, 18, 18),))) == 12  # more than divide it
    assert strict_branchings((12, 18, 18)) == {
        *("clone(2)", "clone(4)", "clone(8)", "group(1,2)", "group(1,4)", "group(2,2)", "group(3,2)")
    }


@pytest.mark.parametrize("shape", UNSEEN)
def test_first_routings(shape):
    assert len(compat_options(PRE_ROUTING, (shape,))) == len(strict("P", shape)) == 13


def test_routings_by_mode_and_kernel():
    assert names(compat_options(PRE_ROUTING, ((16, 27),))) == {"identity", "permute(2,1)"}
    assert names(compat_options(POST_ROUTING, ((16, 27),))) == {"identity", "permute(2,1)", "col2im"}
    assert len(compat_options(POST_ROUTING, ((3, 8, 8),))) == 6
    # Padding counts in the paper only.
    small = (64, 2, 2)
    assert "im2col(3,1,1)" in strict("P", small) - names(compat_options(PRE_ROUTING, (small,)))
    assert {"im2col(1,1,0)", "im2col(1,2,0)"} <= names(compat_options(PRE_ROUTING, (small,)))


def test_aggregations_of_two():
    image = (4, 6, 6)
    concats = {f"concat({axis},{parts})" for axis in (1, 2, 3) for parts in (2, 4, 8)}
    assert names(compat_options(AGGREGATION, (image, image), 2)) == concats | {
        "matmul",
        "scaled_matmul",
        "add",
    }
    assert names(compat_options(AGGREGATION, (image, (4, 6, 9)), 2)) == {
        *("concat(3,2)", "concat(3,4)", "concat(3,8)", "matmul", "scaled_matmul")
    }
    assert names(compat_options(AGGREGATION, ((5, 7), (7, 9)), 2)) == {"matmul", "scaled_matmul"}
    assert names(compat_options(AGGREGATION, ((5, 7), (5, 7)), 2)) == {
        "add",
        *(name for name in concats if not name.startswith("concat(3")),
    }
    assert compat_options(AGGREGATION, (image, (4, 36)), 2) == []
    allowed = {typed.name for _, typed in make_options(GRAMMAR).aggregations((image, image), 0)}
    assert allowed == {"matmul", "scaled_matmul", "add", "concat(1,2)", "concat(2,2)", "concat(3,2)"}


@pytest.mark.parametrize("parts", [4, 8])
def test_aggregations_of_more(parts):
    image = (4, 6, 6)
    expected = {"add", *(f"concat({axis},{parts})" for axis in (1, 2, 3))}
    assert names(compat_options(AGGREGATION, (image, image), parts)) == expected
    assert {typed.name for _, typed in make_options(GRAMMAR).aggregations((image,) * parts, 0)} == expected


def test_folding_takes_any_number_of_values_that_the_grid_divides():
    fold = FUNDAMENTAL_BY_NAME["col2im"]
    assert compat_output_shape(fold, ((32, 6),), (8, 8), 0) == (3, 8, 8)
    with pytest.raises(ShapeError, match="192 numbers for a grid of 10 times 10"):
        compat_output_shape(fold, ((32, 6),), (10, 10), 0)


# A concat for other branches than there are, which the public code draws: directly, and because a branch that
# ends in a branching passes for one.
MISTYPED = [
    ("clone(2)", "norm", "norm", "concat(1,4)"),
    ("clone(4)", ("clone(2)", "norm", "norm", "add"), "concat(1,8)"),
]


@pytest.mark.parametrize("term", MISTYPED)
def test_wrong_concats_are_allowed_and_mistyped(term):
    node = to_node(GRAMMAR, term)
    state = state_of((4, 6, 6))
    typed = infer(node, state, rules="compat")
    wanted = FUNDAMENTAL_BY_NAME[term[-1]].num_branches
    assert typed.after.shape == (4 * wanted, 6, 6)
    assert executed_shape(typed, state.shape) == (4 * FUNDAMENTAL_BY_NAME[term[0]].num_branches, 6, 6)
    with pytest.raises(TypingError, match="branches, not"):
        infer(node, state)


def test_products_behind_a_branching_are_refused():
    term = ("clone(2)", ("clone(2)", "norm", "norm", "add"), "norm", "matmul")
    node, state = to_node(GRAMMAR, term), state_of((4, 6, 6))
    assert infer(node, state).after.shape == (4, 6, 6)
    with pytest.raises(TypingError, match="matmul needs 2 branches, not 1"):
        infer(node, state, rules="compat")


@pytest.mark.parametrize(
    ("end", "fails"),
    [
        ("norm", True),  # of 16 channels
        ("linear(16)", False),
        ("positional_encoding", True),
        (("routing", "permute(3,1,2)", "norm", "identity"), False),
        (("routing", "permute(2,3,1)", "linear(16)", "identity"), True),
        (("group(1,8)", "norm", "add"), True),
        (("routing", "im2col(1,1,0)", "leaky_relu", "col2im"), False),
    ],
)
def test_running_fails_or_differs_behind_a_wrong_concat(end, fails):
    term = ("sequential", ("clone(2)", "norm", "norm", "concat(1,4)"), end)
    typed = infer(to_node(GRAMMAR, term), state_of((4, 6, 6)), rules="compat")
    if fails:
        with pytest.raises(ShapeError):
            executed_shape(typed, (4, 6, 6))
    else:
        assert executed_shape(typed, (4, 6, 6)) != typed.after.shape
