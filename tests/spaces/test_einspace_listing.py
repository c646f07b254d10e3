import numpy as np
import pytest

from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_listing import describe_derivation, network_listing, one_line
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, make_seed, to_node
from elenas_jax.spaces.einspace_typing import infer, state_of

GRAMMAR = make_einspace_grammar()
TERM = (
    "sequential",
    ("routing", "im2col(3,1,1)", "linear(16)", "col2im"),
    ("clone(2)", "identity", ("sequential", "norm", ("clone(4)", "linear(32)", "add")), "concat(3,2)"),
)
LISTING = """\
x                  3x8x8
conv 3x3, 16      16x8x8    448
clone(2)          16x8x8
- identity        16x8x8
- norm            16x8x8     32
  clone(4)        16x8x8
  4x linear(32)  16x8x32  1,152
  add            16x8x32
concat(3,2)      16x8x40
1,632 parameters; 13 operations in 12 modules, depth 5
"""
LINE = (
    "y = x > im2col(3,1,1) > linear(16) > col2im(8,8) > "
    "clone(2){identity | norm > clone(4){linear(32)}add}concat(3,2)"
)


def summed(listing: str) -> int:
    """Sums the column of parameters."""
    return sum(
        int(line.split()[-1].replace(",", "")) for line in listing.splitlines() if "x" not in line[-6:]
    )


def test_a_listing_has_a_line_for_each_operation_and_all_of_it_in_the_last_one():
    text = describe_derivation(infer(to_node(GRAMMAR, TERM), state_of((3, 8, 8))))
    assert text == LISTING + LINE


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_parameters_of_a_published_architecture_add_up(name):
    typed = infer(make_seed(name, GRAMMAR), state_of((3, 64, 64)))
    assert summed(network_listing(typed)) == typed.parameters


def test_parameters_of_samples_add_up_with_copies():
    rng, options = np.random.default_rng(0), make_options(GRAMMAR)
    for _ in range(60):
        typed = draw(rng, options, state_of((3, 16, 16)), budget=Budget(nodes=200)).typed
        assert summed(network_listing(typed)) == typed.parameters


def test_a_network_of_nothing_says_so():
    nothing = infer(to_node(GRAMMAR, ("sequential", "identity", "identity")), state_of((3, 8, 8)))
    assert one_line(nothing) == "y = x > identity"
    assert network_listing(nothing).split() == ["x", "3x8x8", "identity", "3x8x8"]
