"""Costs read off traced functions, against counts by hand."""

import jax
import jax.numpy as jnp

from elenas_jax.evaluation.flops import count_flops, has_convolution


def traced(fn, *shapes):
    return jax.make_jaxpr(fn)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def test_matrix_products():
    assert count_flops(traced(lambda a, b: jnp.tanh(a @ b), (5, 4), (4, 3))) == 2 * 5 * 4 * 3
    assert count_flops(traced(lambda a, b: a @ b, (7, 5, 4), (7, 4, 3))) == 7 * 2 * 5 * 4 * 3
    assert count_flops(traced(lambda a: a + 1, (5,))) == 0


def test_convolutions():
    def conv(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", feature_group_count=groups)

    assert count_flops(traced(conv, (2, 6, 8, 8), (10, 6, 3, 3))) == 2 * (2 * 10 * 4 * 4) * (6 * 9)
    grouped = traced(lambda x, kernel: conv(x, kernel, groups=2), (2, 6, 8, 8), (10, 3, 3, 3))
    assert count_flops(grouped) == 2 * (2 * 10 * 4 * 4) * (3 * 9)
    assert has_convolution(grouped)


def test_functions_inside():
    def step(x, w):
        return jax.jit(lambda a: a @ w)(x), None

    scanned = traced(lambda x, w: jax.lax.scan(lambda c, _: step(c, w), x, None, length=6)[0], (2, 3), (3, 3))
    assert count_flops(scanned) == 6 * 2 * 2 * 3 * 3
    either = traced(lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x), (2, 3), (3, 3))
    assert count_flops(either) == 2 * 2 * 3 * 3
    assert not has_convolution(either)
