"""Search spaces: what can be sampled, mutated, grown and built."""

from collections.abc import Callable

from elenas_jax.spaces.einspace import make_einspace
from elenas_jax.spaces.elenas import make_elenas
from elenas_jax.types import SearchSpace

SPACES: dict[str, Callable[..., SearchSpace]] = {"einspace": make_einspace, "elenas": make_elenas}

__all__ = ("SPACES", "make_einspace", "make_elenas")
