"""Typed derivations: states, copies, convolutions, and why something is no network."""

import pytest

from elenas_jax.ops.fundamental_shapes import NO_DERIVATION, NO_GRID, SHAPES_DISAGREE, WRONG_TOKENS
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_seeds import convolution, to_node
from elenas_jax.spaces.einspace_typing import TypingError, infer, is_convolution, state_of
from elenas_jax.spaces.grammar import Node

GRAMMAR = make_einspace_grammar()


def typed(term, shape=(3, 8, 6), rules="strict"):
    return infer(to_node(GRAMMAR, term, "M"), state_of(shape), rules=rules)


def test_states_carry_modes_and_the_grid_to_the_end_of_the_routing():
    found = typed(("routing", "im2col(4,4,0)", ("sequential", "linear(16)", "norm"), "col2im"))
    pre, inner, post = found.children
    assert (pre.before, pre.after) == (((3, 8, 6), "im", None), ((2, 48), "col", (2, 1)))
    assert (inner.before, inner.after) == (((2, 48), "col", None), ((2, 16), "col", None))
    assert (post.before, post.after) == (((2, 16), "col", (2, 1)), ((16, 2, 1), "im", None))
    assert found.after == post.after
    assert inner.children[1].parameters == 32 and found.parameters == 49 * 16 + 32


def test_copies_count_and_share_one_module():
    found = typed(("clone(4)", ("sequential", "linear(16)", "norm"), "concat(1,4)"))
    branch, inner, merge = found.children
    assert (found.kind, found.name, found.copies) == ("branching", "clone(4)", 4)
    assert (branch.kind, merge.name, merge.before.shape) == ("leaf", "concat(1,4)", (3, 8, 16))
    assert found.after.shape == (12, 8, 16)
    assert found.parameters == 4 * inner.parameters == 4 * (7 * 16 + 6)
    assert found.activations == 4 * inner.activations + 12 * 8 * 16
    assert found.flops == 4 * inner.flops


def test_branches_of_two_have_a_module_each():
    found = typed(("group(2,2)", "linear(16)", "linear(32)", "concat(3,2)"))
    assert found.copies == 1 and len(found.children) == 4
    assert found.children[0].after.shape == (3, 4, 6)
    assert found.after.shape == (3, 4, 48)


def test_convolutions_never_hold_what_they_unfold():
    found = typed(convolution(3, 2, 16))
    assert is_convolution(found) and found.after.shape == (16, 4, 3)
    assert found.activations == 16 * 4 * 3
    assert found.flops == (2 * 27 + 1) * 16 * 12
    other = typed(("routing", "im2col(3,2,1)", "norm", "col2im"))
    assert not is_convolution(other) and other.activations > other.after.shape[0] * 12
    assert not is_convolution(typed(("routing", "im2col(3,2,1)", "linear(16)", "identity")))


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (("routing", "identity", "norm", "col2im"), None),
        (("routing", "im2col(1,1,0)", ("routing", "identity", "norm", "col2im"), "identity"), NO_GRID),
        (
            ("routing", "im2col(1,1,0)", ("routing", "permute(2,1)", "norm", "identity"), "col2im"),
            WRONG_TOKENS,
        ),
        (("clone(2)", "norm", convolution(3, 2, 16), "add"), SHAPES_DISAGREE),
    ],
)
def test_what_is_no_network_says_why(term, reason):
    with pytest.raises(TypingError) as error:
        typed(term)
    assert reason is None or error.value.reason == reason


def test_a_rule_that_is_none():
    with pytest.raises(TypingError, match="there is no production 9999") as error:
        infer(Node(9999, ()), state_of((3, 8, 6)))
    assert error.value.reason == NO_DERIVATION


def test_sequences_use_the_grammar_of_their_axes():
    grammar = make_einspace_grammar(num_axes=2)
    node = to_node(grammar, ("sequential", "conv1d(8,64)", ("routing", "permute(2,1)", "norm", "identity")))
    found = infer(node, state_of((4, 1000)))
    assert found.after.shape == (1000, 64) and found.parameters == 33 * 64 + 128
