"""Every operation against its slow twin: values, shapes and the number of weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.ops.fundamental import AGGREGATION, BRANCHING, FUNDAMENTAL_BY_NAME
from elenas_jax.spaces.einspace_layers import (
    Initial,
    initialise,
    leaf_layer,
    merge,
    merge_stacked,
    split,
    split_stacked,
)
from elenas_jax.spaces.einspace_typing import leaf, state_of
from tests.reference import einspace_operations as reference

IMAGES, TOKENS = (3, 17, 18), (12, 8)
ALONE = [row for row in FUNDAMENTAL_BY_NAME.values() if row not in (*BRANCHING, *AGGREGATION)]
ONLY_TOKENS, ONLY_IMAGES = ("col2im", "conv1d"), ("im2col", "max_pool")


def shapes_for(row):
    if row.kind in ONLY_IMAGES or (row.kind == "permute" and len(row.values) == 3):
        return [IMAGES]
    if row.kind in ONLY_TOKENS or row.kind == "permute":
        return [TOKENS]
    return [IMAGES, TOKENS]


CASES = [
    pytest.param(row, shape, id=f"{row.name}-{len(shape)}") for row in ALONE for shape in shapes_for(row)
]


def draw(rng, initials):
    return jax.tree.map(lambda each: rng.normal(size=each.shape).astype(np.float32), initials)


def apply(layer, params, state, values, train=True):
    """One jitted call, so that an operation is compiled once."""
    return jax.jit(layer.apply, static_argnums=3)(params, state, values, train)


def test_there_are_51_terminals_and_16_convolutions():
    in_grammar = [
        row for row in FUNDAMENTAL_BY_NAME.values() if row.kind not in ("relative_linear", "max_pool")
    ]
    convolutions = [row for row in in_grammar if row.kind == "conv1d"]
    assert len(convolutions) == 16
    assert len(in_grammar) - len(convolutions) - 1 == 51  # one unfolding is only of a seed
    assert {param.values[0].name for param in CASES} == {row.name for row in ALONE}


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_operations_are_as_their_twins(row, shape):
    rng = np.random.default_rng(0)
    grid = (3, 4) if row.kind == "col2im" else None
    typed = leaf(row, state_of(shape, grid))
    layer = leaf_layer(typed)
    params, state = draw(rng, layer.params), initialise(jax.random.key(0), layer.state)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == typed.parameters
    values = rng.normal(size=(2, *shape)).astype(np.float32)
    found, _ = apply(layer, params, state, values)
    exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), params) or {}
    expected = reference.operate(row.kind, row.values, values.astype(np.float64), exact, grid)
    assert found.shape == expected.shape == (2, *typed.after.shape)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_batch_norm_keeps_running_statistics():
    rng = np.random.default_rng(1)
    layer = leaf_layer(leaf(FUNDAMENTAL_BY_NAME["norm"], state_of((3, 4, 5))))
    state = initialise(jax.random.key(0), layer.state)
    params = draw(rng, layer.params)
    expected = {"mean": np.zeros(3), "variance": np.ones(3)}
    for _ in range(2):
        values = rng.normal(2.0, 3.0, size=(4, 3, 4, 5)).astype(np.float32)
        _, state = apply(layer, params, state, values)
        expected = reference.batch_statistics(values.astype(np.float64), expected)
    jax.tree.map(lambda leaf, exact: np.testing.assert_allclose(leaf, exact, rtol=1e-5), state, expected)
    found, after = apply(layer, params, state, values, False)
    shaped = {name: leaf[:, None, None] for name, leaf in (params | expected).items()}
    exact = (values - shaped["mean"]) / np.sqrt(shaped["variance"] + 1e-5) * shaped["scale"] + shaped["bias"]
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_batch_norm_of_a_single_number_stays_finite():
    layer = leaf_layer(leaf(FUNDAMENTAL_BY_NAME["norm"], state_of((3, 1, 1))))
    params, state = (initialise(jax.random.key(0), each) for each in (layer.params, layer.state))
    _, after = apply(layer, params, state, np.ones((1, 3, 1, 1), np.float32))
    np.testing.assert_allclose(after["variance"], 0.9)


@pytest.mark.parametrize("row", BRANCHING, ids=lambda row: row.name)
def test_branches(row):
    values = np.random.default_rng(0).normal(size=(2, 8, 16, 24)).astype(np.float32)
    expected = reference.branch(row.kind, row.values, values)
    found = split(row, jnp.asarray(values))
    stacked, axis = split_stacked(row, jnp.asarray(values))
    assert len(found) == row.num_branches
    for place, exact in enumerate(expected):
        np.testing.assert_array_equal(found[place], exact)
        of_stack = stacked if axis is None else np.take(np.asarray(stacked), place, axis)
        np.testing.assert_array_equal(of_stack, exact)


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        pytest.param(row, shape, id=f"{row.name}-{len(shape)}")
        for row in AGGREGATION
        for shape in ((3, 4, 4), (4, 4))
        if row.kind != "concat" or row.values[0] <= len(shape)
    ],
)
def test_aggregations(row, shape):
    number = row.num_branches or 2
    branches = np.random.default_rng(0).normal(size=(number, 2, *shape)).astype(np.float32)
    expected = reference.join(row.kind, row.values, branches.astype(np.float64))
    np.testing.assert_allclose(merge(row, list(jnp.asarray(branches))), expected, rtol=1e-5, atol=1e-6)
    if row.kind in ("add", "concat"):
        np.testing.assert_allclose(merge_stacked(row, jnp.asarray(branches)), expected, rtol=1e-5, atol=1e-6)


def test_the_scale_of_a_product_is_the_left_operands():
    left, right = np.ones((1, 2, 9), np.float32), np.ones((1, 9, 4), np.float32)
    np.testing.assert_allclose(merge(FUNDAMENTAL_BY_NAME["scaled_matmul"], [left, right]), 3.0)


def test_weights_start_as_those_of_pytorch():
    rows = ("linear(512)", "conv1d(8,256)", "positional_encoding", "norm")
    layers = [leaf_layer(leaf(FUNDAMENTAL_BY_NAME[name], state_of((50, 100)))) for name in rows]
    initials = [layer.params for layer in layers]
    linear, convolution, encoding, norm = initialise(jax.random.key(0), initials)
    for weights, inputs in ((linear, 100), (convolution, 400)):
        for leaf_ in (weights["kernel"], weights["bias"]):
            assert np.abs(leaf_).max() == pytest.approx(1 / math.sqrt(inputs), rel=0.02)
            assert np.std(leaf_) == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.1)
    assert encoding["encoding"].shape == (50, 100)
    assert np.std(encoding["encoding"]) == pytest.approx(1.0, rel=0.05)
    np.testing.assert_array_equal(norm["scale"], 1.0)
    np.testing.assert_array_equal(norm["bias"], 0.0)
    again = initialise(jax.random.key(0), initials)
    jax.tree.map(np.testing.assert_array_equal, again, [linear, convolution, encoding, norm])
    other = initialise(jax.random.key(1), initials)
    assert not np.any(other[0]["kernel"] == linear["kernel"])
    # No two arrays share their draws.
    assert np.corrcoef(linear["kernel"][0, :256], convolution["kernel"][0])[0, 1] < 0.3


def test_nothing_to_draw():
    assert initialise(jax.random.key(0), ()) == ()
    np.testing.assert_array_equal(initialise(jax.random.key(0), Initial((2,), "constant", 3.0)), [3.0, 3.0])
