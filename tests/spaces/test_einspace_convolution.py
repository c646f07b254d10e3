"""Convolutions: as XLA's, as products with patches and as the twin's loops."""

import itertools

import jax
import numpy as np
import pytest

from elenas_jax.ops.fundamental import CONV1D_KERNELS, UNFOLDINGS
from elenas_jax.spaces.einspace_convolution import convolve, multiplies_patches, output_sizes, unfold
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_network import Form, make_backbone
from elenas_jax.spaces.einspace_seeds import to_node
from elenas_jax.spaces.einspace_typing import infer, state_of
from tests.reference import einspace_operations as reference

SHAPES = ((3, 32, 32), (5, 27, 18), (2, 64, 128))
GRAMMAR = make_einspace_grammar()


def draw(rng, shape):
    """Returns weights that make outputs of about 1, as those that a network starts with."""
    return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


def convolution(values, kernel):
    term = ("routing", f"im2col({','.join(map(str, values))})", kernel, "col2im")
    return ("sequential", term, "identity")


@pytest.mark.parametrize(("window", "shape"), list(itertools.product(UNFOLDINGS, SHAPES)))
def test_a_folded_routing_is_a_convolution(window, shape):
    """Case V3 of the specification."""
    typed = infer(to_node(GRAMMAR, convolution(window, "linear(16)")), state_of(shape))
    folded, unfolded = (make_backbone(typed, Form(fold_convolutions=fold)) for fold in (True, False))
    initials, same = (jax.eval_shape(network.init, jax.random.key(0))[0] for network in (folded, unfolded))
    assert jax.tree.structure(initials) == jax.tree.structure(same)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw(rng, leaf.shape), initials)
    inputs = rng.normal(size=(2, *shape)).astype(np.float32)
    kernel, stride, padding = window

    @jax.jit
    def images(params):
        (weights,) = params
        of_copies = convolve(
            inputs, weights["kernel"], (kernel, kernel), stride, ((padding, padding),) * 2, stacked=True
        )
        return (
            folded.apply(params, (), inputs)[0],
            unfolded.apply(params, (), inputs)[0],
            of_copies + weights["bias"][:, None, None],
        )

    expected = reference.convolution(inputs.astype(np.float64), params[0], *window)
    assert expected.shape[1:] == typed.after.shape
    for image in images(params):
        np.testing.assert_allclose(image, expected, atol=5e-6)


@pytest.mark.parametrize("window", [(3, 2, 1), (1, 2, 0), (4, 4, 0)])
def test_gradients_are_those_of_the_unfolded_form(window):
    typed = infer(to_node(GRAMMAR, convolution(window, "linear(16)")), state_of((5, 11, 9)))
    networks = [make_backbone(typed, Form(fold_convolutions=fold)) for fold in (True, False)]
    params, _ = networks[0].init(jax.random.key(0))
    inputs = np.random.default_rng(0).normal(size=(2, 5, 11, 9)).astype(np.float32)
    folded, unfolded = (
        jax.jit(jax.grad(lambda params, inputs, network=network: squares(network, params, inputs), (0, 1)))(
            params, inputs
        )
        for network in networks
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), folded, unfolded)


def squares(network, params, inputs):
    return (network.apply(params, (), inputs)[0] ** 2).sum()


def test_token_counts_of_the_specification():
    for shape, window, tokens, grid in (
        ((5, 27, 18), (4, 4, 0), (24, 80), (6, 4)),
        ((3, 32, 32), (16, 16, 0), (4, 768), (2, 2)),
    ):
        kernel, stride, padding = window
        padded = ((padding, padding),) * 2
        assert output_sizes(shape[1:], (kernel, kernel), stride, padded) == list(grid)
        patches = unfold(np.zeros((2, *shape), np.float32), (kernel, kernel), stride, padded)
        assert patches.shape == (2, *grid, kernel, kernel, shape[0])
        assert (np.prod(grid), np.prod(patches.shape[3:])) == tokens


@pytest.mark.parametrize("kernel", CONV1D_KERNELS)
@pytest.mark.parametrize("length", [3, 40])
def test_convolutions_over_one_axis(kernel, length):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 4, length)).astype(np.float32)
    weights = {"kernel": rng.normal(size=(4 * kernel, 6)).astype(np.float32), "bias": np.zeros(6)}
    expected = reference.conv1d(inputs, weights, kernel, 6)
    padding = (((kernel - 1) // 2, kernel // 2),)
    for stacked in (False, True):
        found = convolve(inputs, weights["kernel"], (kernel,), 1, padding, stacked)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_what_xla_has_no_fast_kernel_for_is_a_product():
    assert not multiplies_patches((3, 3), 1, (3, 3), stacked=False)
    assert multiplies_patches((3, 3), 1, (2, 4), stacked=False)
    assert multiplies_patches((3, 3), 1, (9, 9), stacked=True)
    assert multiplies_patches((4, 4), 4, (9, 9), stacked=False)
    jaxpr = str(
        jax.make_jaxpr(lambda x, w: convolve(x, w, (3, 3), 2, ((1, 1), (1, 1))))(
            np.zeros((1, 2, 4, 4), np.float32), np.zeros((18, 5), np.float32)
        )
    )
    assert "conv_general_dilated" not in jaxpr and "dot_general" in jaxpr
