"""What a candidate is worth: training populations, the ladder of tasks, the cache."""

from elenas_jax.evaluation.cache import Cache, MemoryCache, Record
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.population import Evaluator, evaluate_seeds, make_population_evaluator
from elenas_jax.evaluation.records import evaluate

__all__ = (
    "Cache",
    "Evaluator",
    "MemoryCache",
    "Record",
    "evaluate",
    "evaluate_seeds",
    "ladder_score",
    "make_population_evaluator",
    "passes",
)
