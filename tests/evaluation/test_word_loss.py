"""The loss of words in parts: against the whole, and its gradient against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elenas_jax.evaluation import word_loss
from elenas_jax.evaluation.word_loss import mean_word_loss, word_losses

WORDS, WIDTH = 13, 4


def whole(output, x, words):
    logits = x @ output["kernel"] + output["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, words)


@pytest.mark.parametrize("at_once", [1, 13, 30, 60, 1000])  # logits: parts of 1, 1, 2, 4 and all of 7 rows
def test_parts_are_the_whole(monkeypatch, at_once):
    monkeypatch.setattr(word_loss, "_logits_at_once", lambda: at_once)
    rng = np.random.default_rng(0)
    output = {
        "kernel": rng.normal(size=(WIDTH, WORDS)).astype(np.float32),
        "bias": rng.normal(size=WORDS).astype(np.float32),
    }
    x, words = rng.normal(size=(7, WIDTH)).astype(np.float32), rng.integers(0, WORDS, 7)
    np.testing.assert_allclose(word_losses(output, x, words), whole(output, x, words), rtol=1e-5)

    def pulled(loss):
        return jax.value_and_grad(lambda *args: 3 * loss(*args, words), argnums=(0, 1))(output, x)

    found, expected = pulled(mean_word_loss), pulled(lambda *args: jnp.mean(whole(*args)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    np.testing.assert_allclose(mean_word_loss(output, x, words), expected[0] / 3, rtol=1e-6)


def test_logits_of_any_size_are_finite():
    output = {"kernel": np.full((WIDTH, WORDS), 1e4, np.float32), "bias": np.zeros(WORDS, np.float32)}
    grads = jax.grad(mean_word_loss, argnums=1)(output, np.ones((3, WIDTH), np.float32), np.arange(3))
    assert np.isfinite(grads).all()
