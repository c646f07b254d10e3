"""Neural architecture search in JAX: spaces, strategies, tasks and evaluators that go together."""

from elenas_jax.evaluation import evaluate

__version__ = "0.1.0"

__all__ = ("__version__", "evaluate")
