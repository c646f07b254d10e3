"""Tests of elenas_jax.analysis."""
