"""Tests of `elenas_jax.spaces`."""
