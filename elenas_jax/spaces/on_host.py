"""Functions of NumPy arrays, run on the host, inside of programs that JAX compiles.

For what has no fixed shape and so no place in a compiled program, such as trees. The functions must be
pure: JAX may call them more often than they are needed, or not at all. Under vmap the whole batch goes
to the host at once, and the function is called for each of its elements.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import Array, PyTree


def jittable(host_fn: Callable[..., PyTree], result: PyTree) -> Callable[..., PyTree]:
    """Makes a function on the host one that can be jitted and vmapped, with the same results.

    Args:
      host_fn: from pytrees of NumPy arrays to one of arrays or numbers; unbatched.
      result: a pytree like what it returns, of arrays or `jax.ShapeDtypeStruct`; values do not matter.

    Returns:
      A function of the same arguments. What `host_fn` raises ends the program that calls it.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), result)
    wanted, structure = jax.tree.flatten(shapes)

    def call(*arguments: PyTree) -> PyTree:
        ranks = [jnp.ndim(leaf) for leaf in jax.tree.leaves(arguments)]

        def on_batch(*batched: PyTree) -> PyTree:
            leaves, form = jax.tree.flatten(jax.tree.map(np.asarray, batched))
            batch = leaves[0].shape[: leaves[0].ndim - ranks[0]] if leaves else ()
            found = [np.empty((*batch, *leaf.shape), leaf.dtype) for leaf in wanted]
            for place in np.ndindex(*batch):
                returned = host_fn(*jax.tree.unflatten(form, [leaf[place] for leaf in leaves]))
                for leaf, value in zip(found, jax.tree.leaves(returned), strict=True):
                    leaf[place] = value
            return jax.tree.unflatten(structure, found)

        return jax.pure_callback(on_batch, shapes, *arguments, vmap_method="broadcast_all")

    return call


def jittable_draw(host_fn: Callable[..., PyTree], result: PyTree) -> Callable[..., PyTree]:
    """Like `jittable` for a function whose first argument is a random generator.

    Args:
      host_fn: from a `np.random.Generator` and pytrees of NumPy arrays; its results follow from these.
      result: as in `jittable`.

    Returns:
      A function of a JAX key and the same other arguments.
    """
    from_data = jittable(lambda data, *arguments: host_fn(generator(data), *arguments), result)
    return lambda key, *arguments: from_data(jax.random.key_data(key), *arguments)


def generator(key: Array | np.ndarray | Any) -> np.random.Generator:
    """Returns the random generator on the host that belongs to a JAX key, or to the data of one."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    number = int.from_bytes(np.asarray(key, "<u4").tobytes(), "little")
    return np.random.Generator(np.random.Philox(key=number))
