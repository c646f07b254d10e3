"""Graph attention with types of nodes and edges and features of edges, in dense form."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from elenas_jax.types import AnyArray, Array, Observation

NUM_NODE_TYPES = 2
NUM_EDGE_TYPES = 2
SLOPE = 0.01  # of leaky ReLUs


class HeatConv(nn.Module):
    """HEATConv of PyTorch Geometric, heads averaged, root weight 1 (Mo et al., 2021, arXiv 2106.07161).

        x = W[node type] node + b[node type],  e = leaky_relu(E edge),  t = leaky_relu(T[edge type])
        attention[i, j] = softmax over j of leaky_relu(a . [x_i, x_j, t_ij, e_ij]), for each head
        out_i = x_i + mean over heads of the sum over j of attention[i, j] (V [x_j, e_ij] + v)

    A logit is a sum of numbers of its receiver, its sender and its edge, and a message is the same
    for all heads. So edges come in as one `[M, M]` matrix, the mean attention, whose products with
    the nodes, and with the kinds of edges once summed over the edges of a kind, are the messages.
    """

    width: int
    num_heads: int

    @nn.compact
    def __call__(self, nodes: Array, observation: Observation) -> Array:
        """Maps `[M, F]` nodes to `[M, width]`; `observation` has the edges."""
        width, features = self.width, jnp.asarray(observation.kind_features)
        dense, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
        dense_by_type = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        kernel = self.param("node_kernel", dense_by_type, (NUM_NODE_TYPES, nodes.shape[-1], width))
        bias = self.param("node_bias", zeros, (NUM_NODE_TYPES, width))
        type_embedding = self.param("type_embedding", nn.initializers.normal(1.0), (NUM_EDGE_TYPES, width))
        edge_kernel = self.param("edge_kernel", dense, (features.shape[-1], width))
        attention = self.param("attention", dense, (4 * width, self.num_heads))
        message_kernel = self.param("message_kernel", dense, (2 * width, width))
        message_bias = self.param("message_bias", zeros, (width,))

        by_receiver, by_sender, by_type, by_edge = jnp.split(attention, 4)
        of_sender, of_edge = jnp.split(message_kernel, 2)
        typed = jax.nn.one_hot(observation.node_types, NUM_NODE_TYPES)
        each_type = (nodes @ jnp.concatenate(list(kernel), axis=1)).reshape(*nodes.shape[:-1], -1, width)
        nodes = jnp.sum((each_type + bias) * typed[..., None], axis=-2)
        edges = nn.leaky_relu(features @ edge_kernel, SLOPE)
        types = nn.leaky_relu(type_embedding, SLOPE)
        kind_logits = edges @ by_edge + (types @ by_type)[jnp.asarray(observation.kind_types)]

        num_kinds, kinds = len(features), observation.kinds
        logits = (nodes @ by_receiver)[:, None] + (nodes @ by_sender)[None, :]  # [M, M, heads]
        # Look-ups and sums by kind beat products with one-hot kinds on a CPU, gradients included.
        logits += jnp.pad(kind_logits, ((0, 1), (0, 0))).at[kinds].get(mode="promise_in_bounds")
        attended = jnp.moveaxis(nn.leaky_relu(logits, SLOPE), -1, 0)
        weights = jnp.mean(masked_softmax(attended, kinds < num_kinds), axis=0)
        receivers = jnp.arange(len(nodes))[:, None]
        of_kinds = (
            jnp.zeros((len(nodes), num_kinds + 1)).at[receivers, kinds].add(weights, mode="promise_in_bounds")
        )
        messages = weights @ (nodes @ of_sender) + of_kinds[:, :-1] @ (edges @ of_edge)
        return nodes + messages + jnp.sum(weights, axis=-1, keepdims=True) * message_bias


def masked_softmax(logits: Array, valid: AnyArray) -> Array:
    """Returns the softmax over the last axis of what is valid; zeros where nothing is."""
    logits = jnp.where(valid, logits, -jnp.inf)
    most = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.exp(logits - jnp.where(jnp.isfinite(most), most, 0.0))
    return powers / jnp.maximum(jnp.sum(powers, axis=-1, keepdims=True), 1e-16)
