"""Tests of `elenas_jax.graphs`."""
