"""Tests of configs, run folders, checkpoints and the loop."""
