"""From an observation to embeddings: what a graph network starts with."""

import jax.numpy as jnp
import jraph
from flax import linen as nn

from elenas_jax.graphs.convert import valid_nodes
from elenas_jax.types import Array


class Embedding(nn.Module):
    """Embeds node features; padding becomes zero."""

    width: int

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
        """Maps nodes `[M, F]` to `[M, width]` and leaves edges as they are."""
        nodes = nn.leaky_relu(nn.Dense(self.width)(graph.nodes))
        return graph._replace(nodes=jnp.where(valid_nodes(graph)[:, None], nodes, 0.0))


def mean_nodes(graph: jraph.GraphsTuple) -> Array:
    """Returns the `[F]` mean over the real nodes."""
    valid = valid_nodes(graph)[:, None]
    return jnp.sum(jnp.where(valid, graph.nodes, 0.0), axis=0) / jnp.maximum(jnp.sum(valid), 1)
