"""The memory task: name the first symbol of a sequence after a delay.

Aichberger and Klambauer (2023) compare found blocks on it and never search with it; they give the
lengths (20 to 80) but no number of symbols, samples or epochs. Chosen here:

- 7 symbols, uniform, one-hot; the first step holds the one to remember.
- One distractor, uniform over the same 7 symbols, at a uniform later step; all other steps are
  zero. A block that only sums a function of each step cannot tell the two symbols apart and is
  right in 1/7 + 6/7 / 2 = 57.1% of cases at every length, which is what the paper reports for
  ELENA1 (56.7 to 57.2%).
- 200,000 training and 20,000 validation samples, one epoch.

Threshold 0.90 and weight 1 are this project's too; the task is in no ladder of the paper.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenas_jax.types import Batch, Task

NUM_SYMBOLS = 7


@functools.cache
def _make_sample(length: int) -> Callable[[jax.Array, int], Batch]:
    """Returns the generator; the same object for the same length, so that it compiles once."""

    @functools.partial(jax.jit, static_argnames="num_examples")
    def sample(key: jax.Array, num_examples: int) -> Batch:
        key_first, key_distractor, key_position = jax.random.split(key, 3)
        first = jax.random.randint(key_first, (num_examples, 1), 0, NUM_SYMBOLS)
        distractor = jax.random.randint(key_distractor, (num_examples, 1), 0, NUM_SYMBOLS)
        position = jax.random.randint(key_position, (num_examples, 1), 1, length)
        step = jnp.arange(length)
        symbols = jnp.where(step == 0, first, jnp.where(step == position, distractor, -1))
        return Batch(jax.nn.one_hot(symbols, NUM_SYMBOLS), jax.nn.one_hot(first[:, 0], NUM_SYMBOLS))

    return sample


def make_memory(*, length: int = 20) -> Task:
    """Classifies the first symbol of `length` steps; the paper uses lengths 20, 30, ... 80."""
    if length < 2:
        raise ValueError(f"memory: length is {length}; the first symbol and a distractor need at least 2.")
    return Task(
        name="memory",
        in_features=NUM_SYMBOLS,
        out_features=NUM_SYMBOLS,
        time_steps=length,
        loss="categorical",
        sample=_make_sample(length),
        train_samples=200_000,
        valid_samples=20_000,
        threshold=0.90,
        untrained=1 / NUM_SYMBOLS,
        weight=1.0,
    )
