"""Tests of `elenas_jax.strategies`."""
