"""Tests of `elenas_jax.policies`."""
