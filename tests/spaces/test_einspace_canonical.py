"""One form for all derivations of a network."""

import numpy as np
import pytest

from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_seeds import Bare, chain, convolution, halves, make_seed, to_node
from elenas_jax.spaces.einspace_typing import infer, state_of

GRAMMAR = make_einspace_grammar()


def form(term, shape=(3, 8, 6)):
    return network_text(simplify(infer(to_node(GRAMMAR, term, "M"), state_of(shape))))


def routed(pre, inner, post):
    return ("routing", pre, inner, post)


SAME = [
    [chain("norm", "softmax", "leaky_relu", "norm"), halves("norm", "softmax", "leaky_relu", "norm")],
    [
        "norm",
        Bare("norm"),
        chain("norm", "identity"),
        chain("identity", "norm"),
        routed("identity", "norm", "identity"),
    ],
    [
        "identity",
        routed("permute(2,3,1)", "identity", "permute(3,1,2)"),
        ("group(3,2)", "identity", "identity", "concat(3,2)"),
    ],
    [
        routed("permute(2,3,1)", "norm", "permute(2,1,3)"),
        chain(
            routed("permute(2,3,1)", "norm", "permute(1,3,2)"),
            routed("permute(3,1,2)", "identity", "identity"),
        ),
    ],
    [("clone(2)", "norm", "linear(16)", "concat(3,2)")],
    [("clone(2)", "norm", "softmax", "add"), ("clone(2)", "softmax", "norm", "add")],
    [convolution(3, 2, 16), routed("im2col(3,2,1)", chain("identity", "linear(16)"), "col2im")],
    [("clone(4)", "norm", "add"), ("clone(4)", chain("norm", "identity"), "add")],
    ["softmax", chain("softmax", routed("im2col(1,1,0)", "identity", "col2im"))],
    [("clone(2)", "norm", "softmax", "concat(1,2)")],
    [("clone(2)", "softmax", "norm", "concat(1,2)")],
    [("group(1,2)", "norm", "softmax", "add")],
    [("group(1,2)", "softmax", "norm", "add")],
    [("clone(8)", "norm", "add")],
    [routed("im2col(3,2,1)", "identity", "col2im")],
]


def test_equal_networks_have_equal_forms_and_others_do_not():
    forms = [{form(term, (4, 8, 6)) for term in terms} for terms in SAME]
    assert all(len(found) == 1 for found in forms)
    assert len(set().union(*forms)) == len(SAME)


def test_the_text_of_a_network():
    term = chain(convolution(3, 2, 16), ("clone(2)", chain("norm", "softmax"), "identity", "add"))
    assert form(term) == "im2col(3,2,1) > linear(16) > col2im(4,3) > clone(2){identity | norm > softmax}add"


def test_an_unfolding_and_its_layer_meet_across_modules():
    inner = chain(routed("identity", "linear(16)", "identity"), "identity")
    found = simplify(
        infer(to_node(GRAMMAR, routed("im2col(3,1,1)", inner, "col2im"), "M"), state_of((3, 8, 6)))
    )
    assert (found.kind, found.activations) == ("routing", 16 * 48)


@pytest.mark.parametrize("name", ["resnet18_no_maxpool", "transformer", "mlp_mixer"])
def test_wrapping_leaves_of_seeds_changes_nothing(name):
    state = state_of((3, 28, 28))
    texts = {
        network_text(simplify(infer(make_seed(name, GRAMMAR, wrapped=wrapped), state)))
        for wrapped in (False, True)
    }
    assert len(texts) == 1


def test_equal_networks_are_built_alike():
    """Where a permutation stands in the derivation must not matter to what is scanned, see `_repeats`."""
    turn = routed("permute(2,1)", "identity", "identity")
    some = ["norm", "linear(16)", "leaky_relu", "linear(16)", "softmax", "positional_encoding"]
    inner = [*some, turn, *some, turn, *some, turn, *some]
    inside = chain(routed("im2col(4,4,0)", chain("linear(16)", *inner), "permute(2,1)"), "identity")
    behind = chain(routed("im2col(4,4,0)", "identity", "identity"), chain("linear(16)", *inner, turn))
    one, other = (
        simplify(infer(to_node(GRAMMAR, term, "M"), state_of((3, 16, 16)))) for term in (inside, behind)
    )
    assert network_text(one) == network_text(other) and one == other


def test_simplifying_keeps_shapes_and_parameters_and_is_idempotent():
    state, rng = state_of((3, 32, 32)), np.random.default_rng(0)
    options = make_options(GRAMMAR)
    num_shorter = 0
    for _ in range(200):
        typed = draw(rng, options, state, budget=Budget(100, 10**7)).typed
        simple = simplify(typed)
        assert (simple.before, simple.after) == (typed.before, typed.after)
        assert simple.parameters == typed.parameters and simple.activations <= typed.activations
        assert simplify(simple) == simple
        num_shorter += simple.activations < typed.activations
    assert num_shorter
