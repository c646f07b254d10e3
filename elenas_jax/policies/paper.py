"""The policy of the paper: graph attention, an actor on an edge's nodes, a critic on the graph."""

import jax.numpy as jnp
from flax import linen as nn

from elenas_jax.graphs.convert import valid_nodes
from elenas_jax.policies.heat import SLOPE, HeatConv, masked_softmax
from elenas_jax.types import Array, Observation


class SeedPooling(nn.Module):
    """Pools nodes by the attention of one learned seed (GMPool_G; Baek et al., 2021, arXiv 2102.11533).

        k = K conv(nodes), v = V conv(nodes), q = Q seed;  pooled = q + softmax(q . k / sqrt(width)) v
        out = pooled + relu(O pooled), heads next to one another

    conv is the mean over neighbours of Kipf and Welling (2017): with self-loops, scaled by the
    roots of both degrees. With one seed, keys and values of single nodes are never needed.
    """

    num_heads: int

    @nn.compact
    def __call__(self, nodes: Array, valid: Array, edges: Array) -> Array:
        """Maps `[M, F]` nodes, of which some are `[M]` valid, to `[F]`.

        Args:
          nodes: embeddings.
          valid: False for padding.
          edges: `[M, M]` bool, whether there is one into node i from node j.
        """
        width, heads = nodes.shape[-1], self.num_heads
        seed = self.param("seed", nn.initializers.normal(1.0), (width,))
        query = nn.Dense(width, name="query")(seed).reshape(heads, -1)
        dense, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
        key_kernel = self.param("key_kernel", dense, (width, width))
        key_bias = self.param("key_bias", zeros, (width,))
        value_kernel = self.param("value_kernel", dense, (width, width))
        value_bias = self.param("value_bias", zeros, (width,))

        looped = (edges | jnp.eye(len(nodes), dtype=bool)) * 1.0
        root = 1.0 / jnp.sqrt(jnp.sum(looped, axis=-1))
        mixed = (root[:, None] * looped * root[None, :]) @ nodes
        asked = jnp.einsum("fhd,hd->hf", key_kernel.reshape(width, heads, -1), query)
        offset = jnp.sum(key_bias.reshape(heads, -1) * query, axis=-1)
        weights = masked_softmax((asked @ mixed.T + offset[:, None]) / jnp.sqrt(width), valid)
        values = jnp.einsum("hf,fhd->hd", weights @ mixed, value_kernel.reshape(width, heads, -1))
        pooled = (query + values).reshape(-1) + value_bias
        return pooled + nn.relu(nn.Dense(width, name="output")(pooled))


class PaperPolicy(nn.Module):
    """Actor and critic on a common backbone (Aichberger and Klambauer, 2023, appendix).

    Left open there and fixed here: leaky ReLUs after each convolution and between layers of the
    heads; edges and their types are embedded in `width` numbers, as nodes are.
    """

    num_actions: int
    width: int = 256
    num_layers: int = 2
    num_heads: int = 4
    use_prior: bool = True  # start as the space's own sampler, see `heads.Actor`; False is the paper

    @nn.compact
    def __call__(self, observation: Observation) -> tuple[Array, Array]:
        """Returns `[K]` logits and the `[]` expected return for one observation; unbatched."""
        graph = observation.graph
        nodes = graph.nodes
        for place in range(self.num_layers):
            conv = HeatConv(self.width, self.num_heads, name=f"conv_{place}")
            nodes = nn.leaky_relu(conv(nodes, observation), SLOPE)

        hidden = nodes[observation.focus].reshape(-1)
        hidden = nn.leaky_relu(nn.Dense(self.width, name="actor_0")(hidden), SLOPE)
        hidden = nn.leaky_relu(nn.Dense(self.width // 4, name="actor_1")(hidden), SLOPE)
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")
        init = nn.initializers.zeros if self.use_prior else small
        logits = nn.Dense(self.num_actions, kernel_init=init, name="actor_2")(hidden)
        if self.use_prior and graph.globals is not None:
            logits += graph.globals[0]

        edges = observation.kinds < observation.kind_features.shape[0]
        pooled = SeedPooling(self.num_heads, name="pooling")(nodes, valid_nodes(graph), edges)
        hidden = nn.leaky_relu(nn.Dense(self.width, name="critic_0")(pooled), SLOPE)
        value = nn.Dense(1, kernel_init=nn.initializers.zeros, name="critic_1")(hidden)
        return logits, value[0]
