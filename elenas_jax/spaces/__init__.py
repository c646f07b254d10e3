"""Search spaces: what can be sampled, mutated, grown and built."""

from elenas_jax.spaces.elenas import make_elenas

SPACES = {"elenas": make_elenas}

__all__ = ("SPACES", "make_elenas")
