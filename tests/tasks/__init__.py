"""Tests of `elenas_jax.tasks`."""
