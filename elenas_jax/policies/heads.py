"""Heads on a graph network's embeddings: an actor and a baseline; and the policy they make."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from elenas_jax.policies.features import Embedding, mean_nodes
from elenas_jax.policies.gnn import GraphNetwork
from elenas_jax.types import Array, Observation


class Actor(nn.Module):
    """Chooses among actions from the nodes the action is about and the sampler's preferences.

    The last layer starts at zero, so that a new policy draws as the space's own sampler does:
    policies that start from uniform draws never see a valid graph.
    """

    width: int
    num_actions: int

    @nn.compact
    def __call__(self, focus: Array, pooled: Array, prior: Array) -> Array:
        """Maps `[2, F]` embeddings, the `[F]` graph and `[K]` log-probabilities to `[K]` logits."""
        hidden = jnp.concatenate([focus.reshape(-1), pooled, jax.nn.softmax(prior)])
        hidden = nn.leaky_relu(nn.Dense(self.width)(hidden))
        hidden = nn.leaky_relu(nn.Dense(self.width)(hidden))
        return prior + nn.Dense(self.num_actions, kernel_init=nn.initializers.zeros)(hidden)


class Baseline(nn.Module):
    """Predicts the return from the graph as a whole; starts at zero."""

    width: int

    @nn.compact
    def __call__(self, pooled: Array) -> Array:
        """Maps `[F]` to `[]`."""
        hidden = nn.leaky_relu(nn.Dense(self.width)(pooled))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden)[0]


class GraphPolicy(nn.Module):
    """An actor and a baseline on one graph network."""

    num_actions: int
    width: int = 64
    num_rounds: int = 2

    @nn.compact
    def __call__(self, observation: Observation) -> tuple[Array, Array]:
        """Returns `[K]` logits and the `[]` baseline for one observation; unbatched.

        `observation.graph.globals` holds the `[1, K]` log-probabilities of the space's sampler for
        this action (the first row, should the graph be padded), or is None.
        """
        graph = observation.graph
        prior = jnp.zeros(self.num_actions) if graph.globals is None else graph.globals[0]
        graph = GraphNetwork(self.width, self.num_rounds)(Embedding(self.width)(graph), observation)
        pooled = mean_nodes(graph)
        logits = Actor(self.width, self.num_actions)(graph.nodes[observation.focus], pooled, prior)
        return logits, Baseline(self.width)(pooled)
