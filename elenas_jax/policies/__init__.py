"""Graph networks that choose what to build next."""

from elenas_jax.policies.features import Embedding
from elenas_jax.policies.gnn import GraphNetwork
from elenas_jax.policies.heads import Actor, Baseline, GraphPolicy

__all__ = ("Actor", "Baseline", "Embedding", "GraphNetwork", "GraphPolicy")
