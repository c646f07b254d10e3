"""Host functions under jit and vmap: the same results whichever way they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces.on_host import generator, jittable, jittable_draw


def moments(pair):
    """Of a pair of arrays; NumPy alone."""
    assert isinstance(pair["a"], np.ndarray) and pair["a"].shape == (3,)
    return {"sum": pair["a"].sum() + pair["b"], "order": np.argsort(pair["a"])}


RESULT = {"sum": np.float32(0), "order": jax.ShapeDtypeStruct((3,), jnp.int32)}


def test_results_are_those_on_the_host():
    fn = jittable(moments, RESULT)
    a = np.array([[[3, 1, 2], [9, 8, 7]]], np.float32)
    b = np.array([10.0, 20.0], np.float32)
    # One axis that both have, and one that only `a` has.
    nested = jax.vmap(jax.vmap(fn), in_axes=({"a": 0, "b": None},))
    for found in (nested({"a": a, "b": b}), jax.jit(nested)({"a": a, "b": b})):
        np.testing.assert_array_equal(found["sum"], [[16, 44]])
        np.testing.assert_array_equal(found["order"], [[[1, 2, 0], [2, 1, 0]]])
        assert (found["sum"].dtype, found["order"].dtype) == (np.float32, np.int32)
    single = jax.jit(fn)({"a": a[0, 1], "b": b[1]})
    np.testing.assert_array_equal(single["sum"], 44)


def test_no_arguments_are_needed():
    assert float(jax.jit(jittable(lambda: 2.5, np.float32(0)))()) == 2.5


def test_draws_follow_from_the_key_alone():
    draw = jittable_draw(lambda rng, most: rng.integers(0, most, 4), np.zeros(4, np.int32))
    keys = jax.random.split(jax.random.key(0), 5)
    expected = np.stack([generator(key).integers(0, 1000, 4) for key in keys])
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(np.stack([draw(key, 1000) for key in keys]), expected)
    batched = jax.vmap(draw, in_axes=(0, None))
    np.testing.assert_array_equal(batched(keys, 1000), expected)
    np.testing.assert_array_equal(jax.jit(batched)(keys, 1000), expected)
    in_turn = jax.jit(lambda keys: jax.lax.map(lambda key: draw(key, 1000), keys))
    np.testing.assert_array_equal(in_turn(keys), expected)
    # Keys of the old kind are the data of new ones.
    np.testing.assert_array_equal(draw(jax.random.key_data(keys[2]), 1000), expected[2])


def test_generators_of_neighbouring_keys_differ():
    first = {int(generator(np.array([0, word], np.uint32)).integers(2**60)) for word in range(50)}
    first |= {int(generator(np.array([word, 0], np.uint32)).integers(2**60)) for word in range(1, 50)}
    assert len(first) == 99


def test_wrong_results_end_the_program():
    with pytest.raises(Exception, match="broadcast"):
        jax.block_until_ready(jittable(lambda: np.zeros(3), np.zeros(2))())
    with pytest.raises(Exception, match="argument 2 is"):
        jax.block_until_ready(jittable(lambda: 1, (np.float32(0), np.float32(0)))())
