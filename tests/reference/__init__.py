"""Slow readable twins: what the fast code is tested against."""

from tests.reference.evaluator import (
    REASONS,
    Network,
    analyse,
    draw_params,
    evaluate,
    gradients,
    recursion_sources,
)

__all__ = ("REASONS", "Network", "analyse", "draw_params", "evaluate", "gradients", "recursion_sources")
