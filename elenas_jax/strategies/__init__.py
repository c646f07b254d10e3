"""How to search: each strategy is init, ask and tell over a space."""

from collections.abc import Callable

from elenas_jax.strategies.evolution import make_evolution
from elenas_jax.strategies.ppo import make_ppo
from elenas_jax.strategies.random_search import make_random_search
from elenas_jax.strategies.reinforce import make_reinforce
from elenas_jax.strategies.rewards import make_reward
from elenas_jax.strategies.successive_halving import make_successive_halving
from elenas_jax.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "random_search": make_random_search,
    "evolution": make_evolution,
    "successive_halving": make_successive_halving,
    "reinforce": make_reinforce,
    "ppo": make_ppo,
}

LEARNING = ("reinforce", "ppo")  # those that learn a policy, which can be pre-trained

__all__ = (
    "LEARNING",
    "STRATEGIES",
    "make_evolution",
    "make_ppo",
    "make_random_search",
    "make_reinforce",
    "make_reward",
    "make_successive_halving",
)
