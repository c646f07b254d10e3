"""Graph networks that choose what to build next."""

from elenas_jax.policies.features import Embedding
from elenas_jax.policies.gnn import GraphNetwork
from elenas_jax.policies.heads import Actor, Baseline, GraphPolicy
from elenas_jax.policies.heat import HeatConv
from elenas_jax.policies.paper import PaperPolicy, SeedPooling

__all__ = (
    "Actor",
    "Baseline",
    "Embedding",
    "GraphNetwork",
    "GraphPolicy",
    "HeatConv",
    "PaperPolicy",
    "SeedPooling",
)
