"""Stacks of blocks: against the reference layer by layer, sizes, pieces of text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.evaluation.stacked import Interface, Stacking, _norm, count_parameters, make_stack, widest
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.graphs.export import parameter_names
from tests import reference

WIDTH, STEPS = 4, 5
FEATURES = Interface(False, 3, 2, STEPS, every_step=False)
TEXT = Interface(True, 11, 11, 6, every_step=True)


def with_noise(params, seed=0):
    """Parameters without zeros and ones, so that every one of them matters."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    moved = [np.float32(leaf + 0.3 * rng.normal(size=leaf.shape)) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def layer_norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


@pytest.mark.parametrize("name", ["elman", "elena2"])
def test_a_stack_equals_the_reference_layer_by_layer(name):
    graph = KNOWN_BLOCKS[name]
    network = make_stack(graph, Stacking(2, WIDTH, norm=True, residual=True), FEATURES)
    params, state = network.init(jax.random.key(0))
    params = with_noise(params)
    inputs = np.random.default_rng(1).normal(size=(3, STEPS, 3)).astype(np.float32)
    found, _ = jax.jit(network.apply)(params, state, inputs)

    sizes = dict(in_features=WIDTH, out_features=WIDTH, hidden_features=WIDTH)
    one = reference.analyse(np.asarray(graph.edges), **sizes, head="linear")
    names = parameter_names(graph)
    x = inputs @ params["input"]["kernel"] + params["input"]["bias"]
    for place in range(2):
        of_block = {node: np.float64(params[f"block_{place}"][label]) for node, label in names.items()}
        of_block |= {"head/kernel": np.eye(WIDTH), "head/bias": np.zeros(WIDTH)}
        read = layer_norm(params[f"norm_{place}"], np.float64(x))
        y = reference.evaluate(one, of_block, read)[0]
        x = x + layer_norm(params[f"norm_after_{place}"], y)
    last = layer_norm(params["norm"], x[:, -1])
    expected = last @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling_leaves_the_padding_out(pool):
    network = make_stack(KNOWN_BLOCKS["elman"], Stacking(1, WIDTH, pool=pool), FEATURES)
    params = with_noise(network.init(jax.random.key(0))[0])
    params["input"]["bias"] = np.zeros(WIDTH, np.float32)  # padding reads as zeros, so that none is needed
    inputs = np.random.default_rng(2).normal(size=(3, STEPS, 3)).astype(np.float32)
    inputs[0, :2] = 0  # padding
    inputs[0, 3] = 0  # none: the sequence has begun
    inputs[1] = 0  # nothing but zeros
    found = jax.jit(network.apply)(params, ({},), inputs)[0]

    each_step = make_stack(KNOWN_BLOCKS["elman"], Stacking(1, WIDTH), FEATURES._replace(every_step=True))
    plain = {"kernel": np.eye(WIDTH, dtype=np.float32), "bias": np.zeros(WIDTH, np.float32)}
    steps = np.asarray(jax.jit(each_step.apply)(params | {"output": plain}, ({},), inputs)[0])
    pooled = [getattr(np, pool)(row[first:], axis=0) for row, first in zip(steps, (2, 0, 0), strict=True)]
    expected = np.stack(pooled) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    # Tokens are features that are one of their kind, and padding is none.
    tokens = np.array([[0, 0, 3, 1, 2], [0, 0, 0, 0, 0], [1, 1, 2, 3, 3]])
    of_tokens = make_stack(
        KNOWN_BLOCKS["elman"], Stacking(1, WIDTH, pool=pool), FEATURES._replace(is_tokens=True, in_features=4)
    )
    kernel, one_hot = params["input"]["kernel"], np.eye(4, dtype=np.float32)[tokens][..., 1:]
    embedding = {"embedding": np.concatenate([np.ones((1, WIDTH), np.float32), kernel])}
    dense = {"kernel": kernel, "bias": np.zeros(WIDTH, np.float32)}
    np.testing.assert_allclose(
        jax.jit(of_tokens.apply)(params | {"input": embedding}, ({},), tokens)[0],
        jax.jit(network.apply)(params | {"input": dense}, ({},), one_hot)[0],
        rtol=1e-5,
        atol=1e-5,
    )


def test_parameters_keep_their_types_in_a_step():
    """Weak ones would be compiled for twice."""
    network = make_stack(KNOWN_BLOCKS["lstm"], Stacking(2, WIDTH, norm=True, residual=True), FEATURES)
    shapes = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
    assert not any(leaf.weak_type for leaf in shapes)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_norms_know_values_that_differ_little(size):
    """Blocks that add up hand on large values: what differs is a small part of them."""
    x = (size + np.random.default_rng(0).normal(size=(3, WIDTH))).astype(np.float32)
    params = {"scale": np.ones(WIDTH), "bias": np.zeros(WIDTH)}
    np.testing.assert_allclose(_norm(params, x), layer_norm(params, np.float64(x)), rtol=1e-3, atol=1e-3)


def test_padding_pulls_at_nothing():
    """A norm of zeros multiplies gradients by a thousand: they must not come from steps of padding."""
    network = make_stack(
        KNOWN_BLOCKS["elena2"], Stacking(2, WIDTH, norm=True, residual=True, pool="max"), FEATURES
    )
    params = network.init(jax.random.key(0))[0]
    inputs = np.random.default_rng(3).normal(size=(2, STEPS, 3)).astype(np.float32)

    def pull(inputs):
        grads = jax.grad(lambda params: jnp.sum(network.apply(params, ({}, {}), inputs)[0]))(params)
        return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads))))

    padded = inputs.copy()
    padded[:, : STEPS - 2] = 0
    assert pull(padded) < 3 * pull(inputs)


def test_text_goes_on_from_the_piece_before():
    network = make_stack(KNOWN_BLOCKS["gru"], Stacking(2, WIDTH), TEXT)
    half = make_stack(KNOWN_BLOCKS["gru"], Stacking(2, WIDTH), TEXT._replace(time_steps=3))
    params, state = network.init(jax.random.key(0))
    params = with_noise(params)
    words = np.random.default_rng(0).integers(0, 11, (2, 6))
    whole, _ = jax.jit(network.apply)(params, state, words)
    first, state = jax.jit(half.apply)(params, state, words[:, :3])
    second, _ = jax.jit(half.apply)(params, state, words[:, 3:])
    assert whole.shape == (2, 6, 11)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)
    assert np.any(np.abs(np.asarray(jax.jit(half.apply)(params, ({}, {}), words[:, 3:])[0]) - second) > 1e-4)


def test_padding_is_zero_and_the_first_word_of_a_text_is_not():
    tokens = Interface(True, 11, 2, STEPS, every_step=False)
    for interface, is_zero in ((tokens, True), (TEXT._replace(time_steps=STEPS), False)):
        network = make_stack(KNOWN_BLOCKS["elena1"], Stacking(1, WIDTH), interface)
        params, state = network.init(jax.random.key(0))

        def total(params, network=network, state=state):
            return jnp.sum(network.apply(params, state, jnp.zeros((2, STEPS), jnp.int32))[0] ** 2)

        grad = jax.grad(total)(params)["input"]["embedding"]
        assert bool(np.all(np.asarray(grad) == 0)) == is_zero


def test_dropout_is_for_training_only():
    network = make_stack(KNOWN_BLOCKS["elman"], Stacking(1, 32, dropout=0.5), FEATURES)
    params, state = network.init(jax.random.key(0))
    inputs = np.ones((2, STEPS, 3), np.float32)
    plain, _ = network.apply(params, state, inputs)
    same, _ = network.apply(params, state, inputs, key=jax.random.key(1))
    dropped, _ = network.apply(params, state, inputs, train=True, key=jax.random.key(1))
    np.testing.assert_array_equal(plain, same)
    assert np.any(np.asarray(plain) != np.asarray(dropped))


def test_widest_is_the_largest_width_within_the_limit():
    most = 20_000

    def size(width):
        network = make_stack(KNOWN_BLOCKS["lstm"], Stacking(2, width, norm=True), FEATURES)
        return count_parameters(network.init(jax.random.key(0))[0])

    width = widest(KNOWN_BLOCKS["lstm"], Stacking(2, norm=True), FEATURES, most)
    assert width % 8 == 0 and size(width) <= most < size(width + 8)


def test_a_limit_that_nothing_meets_is_an_error():
    with pytest.raises(ValueError, match=r"Even a width of 8 takes .* allowed are 10"):
        widest(KNOWN_BLOCKS["lstm"], Stacking(), FEATURES, 10)
