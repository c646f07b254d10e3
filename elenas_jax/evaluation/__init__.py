"""What a candidate is worth: training populations, or one by one, the ladder of tasks, the cache."""

from elenas_jax.evaluation.cache import Cache, MemoryCache, Record
from elenas_jax.evaluation.individual import make_individual_evaluator
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.population import Evaluator, evaluate_seeds, make_population_evaluator
from elenas_jax.evaluation.recipes import Recipe
from elenas_jax.evaluation.records import evaluate

__all__ = (
    "Cache",
    "Evaluator",
    "MemoryCache",
    "Recipe",
    "Record",
    "evaluate",
    "evaluate_seeds",
    "ladder_score",
    "make_individual_evaluator",
    "make_population_evaluator",
    "passes",
)
