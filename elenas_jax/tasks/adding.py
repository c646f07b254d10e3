"""The adding problem: half the sum of the two marked numbers of a sequence.

Source: Hochreiter and Schmidhuber (1997), experiment 4; thresholds and sample counts from
Aichberger and Klambauer (2023). Here, as the ELENAS specification says: values are uniform in
[0, 1], markers are 1 at two different positions anywhere and 0 elsewhere, and the target is half
the sum, so that a constant 0.5 is right (within 0.04) in 1 - 0.92^2 = 15.4% of cases.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenas_jax.types import Batch, Task


@functools.cache
def _make_sample(length: int) -> Callable[[jax.Array, int], Batch]:
    """Returns the generator; the same object for the same length, so that it compiles once."""

    @functools.partial(jax.jit, static_argnames="num_examples")
    def sample(key: jax.Array, num_examples: int) -> Batch:
        key_values, key_first, key_distance = jax.random.split(key, 3)
        values = jax.random.uniform(key_values, (num_examples, length))
        first = jax.random.randint(key_first, (num_examples, 1), 0, length)
        distance = jax.random.randint(key_distance, (num_examples, 1), 1, length)
        position = jnp.arange(length)
        markers = (position == first) | (position == (first + distance) % length)
        targets = jnp.sum(jnp.where(markers, values, 0.0), axis=1, keepdims=True) / 2
        return Batch(jnp.stack([values, markers.astype(jnp.float32)], axis=-1), targets)

    return sample


def make_adding(*, length: int = 32) -> Task:
    """Adds two marked numbers out of `length`; inputs are value and marker."""
    if length < 2:
        raise ValueError(f"adding: length is {length}; two different positions need at least 2.")
    return Task(
        name="adding",
        in_features=2,
        out_features=1,
        time_steps=length,
        loss="squared",
        sample=_make_sample(length),
        train_samples=90_000,
        valid_samples=9_000,
        threshold=0.40,
        untrained=0.15,
        weight=1.0,
    )
