"""Cross entropy of a dense layer over many words, a few rows at a time.

The outputs of a layer over a vocabulary are the largest array of a language model by far: 45 MB for a piece
of 32 x 35 words of 10,000. On a CPU rows are taken as many at a time as a cache holds, and their gradient at
once (scripts/benchmark_word_loss.py, benchmarks.md); accelerators take 64 times as many.
"""

import functools

import jax
import jax.numpy as jnp

from elenas_jax.evaluation import parallel


def word_losses(output: dict[str, jax.Array], x: jax.Array, words: jax.Array) -> jax.Array:
    """Returns `[N]` negative log-likelihoods of words.

    Args:
      output: "kernel" `[W, V]` and "bias" `[V]` of the layer.
      x: `[N, W]` what it reads.
      words: `[N]` int32 below V.
    """
    num_rows, parts = _cut(len(output["bias"]), x, words)
    losses = jax.lax.map(lambda part: _losses(output, *part)[0], parts)
    return losses.reshape(-1)[:num_rows]


@jax.custom_vjp
def mean_word_loss(output: dict[str, jax.Array], x: jax.Array, words: jax.Array) -> jax.Array:
    """Returns the mean of `word_losses`; its gradient is taken along with it."""
    return jnp.mean(word_losses(output, x, words))


def _forward(output, x, words):
    num_rows, parts = _cut(len(output["bias"]), x, words)
    num_padded = parts[0].shape[0] * parts[0].shape[1]
    weights = (jnp.arange(num_padded) < num_rows).astype(x.dtype) / num_rows

    def step(grads, part):
        *of_part, weight = part
        losses, logits, lse = _losses(output, *of_part)
        pull = jnp.exp(logits - lse[:, None]) - jax.nn.one_hot(of_part[1], logits.shape[1])
        pull = pull * weight[:, None]
        kernel, bias = grads["kernel"] + of_part[0].T @ pull, grads["bias"] + jnp.sum(pull, axis=0)
        return {"kernel": kernel, "bias": bias}, (jnp.sum(losses * weight), pull @ output["kernel"].T)

    zeros = jax.tree.map(jnp.zeros_like, output)
    grads, (losses, of_x) = jax.lax.scan(step, zeros, (*parts, weights.reshape(parts[1].shape)))
    return jnp.sum(losses), (grads, of_x.reshape(num_padded, -1)[:num_rows])


def _backward(kept, cotangent):
    return *jax.tree.map(lambda grad: cotangent * grad, kept), None


mean_word_loss.defvjp(_forward, _backward)


def _losses(output, x, words) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `[N]` losses, `[N, V]` logits and the `[N]` logarithms of the sums of their exponentials."""
    logits = x @ output["kernel"] + output["bias"]
    lse = jax.nn.logsumexp(logits, axis=-1)
    return lse - jnp.take_along_axis(logits, words[:, None], axis=1)[:, 0], logits, lse


def _cut(num_words: int, x: jax.Array, words: jax.Array) -> tuple[int, tuple[jax.Array, jax.Array]]:
    """Returns the number of rows, and the rows in parts `[C, R, ...]` of one size, filled up with zeros."""
    num_rows = len(x)
    size = min(num_rows, max(1, _logits_at_once() // num_words))
    num_parts = -(-num_rows // size)
    size = -(-num_rows // num_parts)  # parts of almost one size, so that little is filled up
    extra = num_parts * size - num_rows
    filled = jnp.pad(x, ((0, extra), (0, 0))), jnp.pad(words, (0, extra))
    return num_rows, (filled[0].reshape(num_parts, size, -1), filled[1].reshape(num_parts, size))


@functools.cache
def _logits_at_once() -> int:
    """How many logits there are at a time: as many as a cache holds, on accelerators more."""
    return 2**20 if parallel.is_cpu() else 2**26
