"""A graph network: rounds of messages along the edges."""

import jax.numpy as jnp
import jraph
from flax import linen as nn

from elenas_jax.graphs.convert import valid_edges, valid_nodes
from elenas_jax.types import Observation


class GraphNetwork(nn.Module):
    """Rounds of message passing with residual updates (Battaglia et al., 2018).

    A message is `leaky_relu(A sender + B edge)`. A is applied to nodes and B to the few kinds of edges
    before their values are gathered, so there is no matrix product over edges; the receiver comes
    in when a node is updated. Messages are summed and divided by the root of their number.
    """

    width: int
    num_rounds: int = 2

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, observation: Observation) -> jraph.GraphsTuple:
        """Updates nodes `[M, width]`; padding stays zero, and its edges reach nobody but padding.

        Args:
          graph: that of the observation, its nodes embedded.
          observation: has the kinds of edges and their features.
        """
        nodes_mask = valid_nodes(graph)[:, None]
        edges_mask = valid_edges(graph)[:, None]
        num_incoming = jraph.segment_sum(edges_mask * 1.0, graph.receivers, graph.nodes.shape[0])
        scale = jnp.where(num_incoming > 0, 1.0 / jnp.sqrt(jnp.maximum(num_incoming, 1.0)), 0.0)
        for place in range(self.num_rounds):
            update = nn.Dense(self.width, name=f"update_{place}")
            projected = nn.Dense(self.width, use_bias=False, name=f"message_{place}")(graph.nodes)
            of_kinds = nn.Dense(self.width, name=f"edge_{place}")(observation.kind_features)
            of_edges = of_kinds.at[observation.edge_kinds].get(mode="clip")  # padding has none of these kinds
            normalise = nn.LayerNorm(name=f"normalise_{place}")

            def update_edges(of_edges, sent, received, _):
                del received
                # Nobody needs zeros on padding; a CPU rolls out a quarter faster for how XLA fuses this.
                return nn.leaky_relu(sent["projected"] + of_edges) * edges_mask

            def update_nodes(nodes, sent, received, _, update=update, normalise=normalise):
                del sent
                change = update(jnp.concatenate([nodes["state"], received * scale], axis=-1))
                return normalise(nodes["state"] + nn.leaky_relu(change)) * nodes_mask

            passed = jraph.GraphNetwork(update_edges, update_nodes)(
                graph._replace(
                    nodes={"state": graph.nodes, "projected": projected}, edges=of_edges, globals=None
                )
            )
            graph = graph._replace(nodes=passed.nodes)
        return graph
