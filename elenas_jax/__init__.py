"""Neural architecture search in JAX: spaces, strategies, tasks and evaluators that go together."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elenas_jax.evaluation import evaluate

__version__ = "0.1.0"

__all__ = ("__version__", "evaluate")


def __getattr__(name: str) -> Any:
    # Not before somebody asks for it: what reads run folders needs no JAX, and operations are added
    # (`ops.add_operation`) before anything else is imported.
    if name == "evaluate":
        from elenas_jax.evaluation import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
