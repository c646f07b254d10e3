"""What `benchmark_policy.py` compares with: the same policies in PyTorch eager, edge by edge.

Written as one writes them there: linear layers on gathered senders and receivers, scatters by
receiver, automatic gradients and Adam. Graphs of a batch are one graph of parts that are not
connected. PyTorch is imported where it is used; nothing else of the project knows it.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.policies import GraphPolicy, PaperPolicy
from elenas_jax.types import Observation

Weights = Mapping[str, Any]  # nested as Flax names them, leaves tensors


class Graphs(NamedTuple):
    """B graphs of M nodes each as one; tensors."""

    nodes: Any  # [B * M, F]
    edges: Any  # [B * L, G]
    senders: Any  # [B * L]
    receivers: Any  # [B * L]
    node_types: Any  # [B * M]
    edge_types: Any  # [B * L]
    focus: Any  # [B, 2]
    prior: Any  # [B, K]


class Steps(NamedTuple):
    """What is learned from, B steps; tensors."""

    graphs: Graphs
    actions: Any  # [B]
    valid_actions: Any  # [B, K]
    returns: Any  # [B]


def is_there() -> bool:
    return importlib.util.find_spec("torch") is not None


def configure(threads: int) -> str:
    """Sets the number of threads; returns the version in words."""
    import torch

    torch.set_num_threads(threads)
    return f"PyTorch {torch.__version__} ({threads} threads)"


def to_graphs(observations: Sequence[Observation]) -> Graphs:
    """Joins unpadded observations, NumPy, of one size."""
    import torch

    graphs = [each.graph for each in observations]
    num_nodes = len(graphs[0].nodes)
    offsets = np.arange(len(graphs))[:, None] * num_nodes
    types = [each.kind_types[each.kinds[each.graph.receivers, each.graph.senders]] for each in observations]
    return Graphs(
        torch.tensor(np.concatenate([graph.nodes for graph in graphs])),
        torch.tensor(np.concatenate([graph.edges for graph in graphs])),
        torch.tensor((np.stack([graph.senders for graph in graphs]) + offsets).reshape(-1)).long(),
        torch.tensor((np.stack([graph.receivers for graph in graphs]) + offsets).reshape(-1)).long(),
        torch.tensor(np.concatenate([each.node_types for each in observations])).long(),
        torch.tensor(np.concatenate(types)).long(),
        torch.tensor(np.stack([each.focus for each in observations]) + offsets).long(),
        torch.tensor(np.concatenate([graph.globals for graph in graphs])),
    )


def to_weights(params: Any) -> Weights:
    """Copies Flax parameters."""
    import torch

    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), params["params"])


def outputs(model: GraphPolicy | PaperPolicy, weights: Weights, graphs: Graphs) -> tuple[Any, Any]:
    """Returns `[B, K]` logits and `[B]` values, as `model` has them for each graph."""
    if isinstance(model, PaperPolicy):
        return _paper_policy(weights, graphs, model.num_layers, model.num_heads)
    return _graph_policy(weights, graphs, model.num_rounds)


def _linear(weights: Weights, x: Any) -> Any:
    return x @ weights["kernel"] + weights["bias"]


def _leaky(x: Any) -> Any:
    from torch.nn import functional

    return functional.leaky_relu(x, 0.01)


def _add_up(values: Any, places: Any, size: int) -> Any:
    """Adds rows of `values` up by their places."""
    return values.new_zeros((size, *values.shape[1:])).index_add(0, places, values)


def _graph_policy(weights: Weights, graphs: Graphs, num_rounds: int) -> tuple[Any, Any]:
    import torch

    size, num_graphs = len(graphs.nodes), len(graphs.focus)
    network = weights["GraphNetwork_0"]
    nodes = _leaky(_linear(weights["Embedding_0"]["Dense_0"], graphs.nodes))
    count = _add_up(torch.ones(len(graphs.receivers), 1), graphs.receivers, size)
    scale = torch.where(count > 0, count.clamp(min=1).rsqrt(), 0.0)
    for place in range(num_rounds):
        sent = nodes.index_select(0, graphs.senders) @ network[f"message_{place}"]["kernel"]
        messages = _leaky(sent + _linear(network[f"edge_{place}"], graphs.edges))
        received = _add_up(messages, graphs.receivers, size) * scale
        change = _leaky(_linear(network[f"update_{place}"], torch.cat([nodes, received], dim=-1)))
        norm = network[f"normalise_{place}"]
        nodes = torch.nn.functional.layer_norm(
            nodes + change, nodes.shape[-1:], norm["scale"], norm["bias"], eps=1e-6
        )
    pooled = nodes.reshape(num_graphs, -1, nodes.shape[-1]).mean(dim=1)
    hidden = torch.cat([nodes[graphs.focus].flatten(1), pooled, torch.softmax(graphs.prior, dim=-1)], dim=-1)
    for place in range(2):
        hidden = _leaky(_linear(weights["Actor_0"][f"Dense_{place}"], hidden))
    logits = graphs.prior + _linear(weights["Actor_0"]["Dense_2"], hidden)
    hidden = _leaky(_linear(weights["Baseline_0"]["Dense_0"], pooled))
    return logits, _linear(weights["Baseline_0"]["Dense_1"], hidden)[:, 0]


def _softmax_by(values: Any, places: Any, size: int) -> Any:
    """Returns the softmax of `[L, H]` over rows of equal place."""
    index = places[:, None].expand_as(values)
    most = values.new_full((size, values.shape[1]), -np.inf).scatter_reduce(0, index, values.detach(), "amax")
    powers = (values - most[places]).exp()
    return powers / (_add_up(powers, places, size) + 1e-16)[places]


def _heat_conv(weights: Weights, nodes: Any, graphs: Graphs) -> Any:
    import torch

    size = len(nodes)
    kernel, bias = weights["node_kernel"], weights["node_bias"]
    typed = nodes.new_zeros(size, kernel.shape[-1])
    for node_type in range(len(kernel)):
        those = torch.nonzero(graphs.node_types == node_type)[:, 0]
        typed = typed.index_copy(0, those, nodes[those] @ kernel[node_type] + bias[node_type])
    types = _leaky(weights["type_embedding"].index_select(0, graphs.edge_types))
    edges = _leaky(graphs.edges @ weights["edge_kernel"])
    received = typed.index_select(0, graphs.receivers)
    sent = typed.index_select(0, graphs.senders)
    logits = _leaky(torch.cat([received, sent, types, edges], dim=-1) @ weights["attention"])
    attention = _softmax_by(logits, graphs.receivers, size)
    messages = torch.cat([sent, edges], dim=-1) @ weights["message_kernel"] + weights["message_bias"]
    messages = messages[:, None, :] * attention[:, :, None]
    return typed + _add_up(messages, graphs.receivers, size).mean(dim=1)


def _seed_pooling(weights: Weights, nodes: Any, graphs: Graphs, num_heads: int) -> Any:
    import torch

    size, num_graphs = len(nodes), len(graphs.focus)
    others = graphs.senders != graphs.receivers
    senders = torch.cat([graphs.senders[others], torch.arange(size)])
    receivers = torch.cat([graphs.receivers[others], torch.arange(size)])
    root = _add_up(torch.ones(len(receivers)), receivers, size).rsqrt()
    norm = (root[senders] * root[receivers])[:, None]

    def convolve(name: str) -> Any:
        sent = (nodes @ weights[f"{name}_kernel"]).index_select(0, senders)
        whole = _add_up(sent * norm, receivers, size) + weights[f"{name}_bias"]
        return whole.reshape(num_graphs, -1, num_heads, whole.shape[-1] // num_heads).transpose(1, 2)

    query = _linear(weights["query"], weights["seed"]).reshape(num_heads, 1, -1)
    keys, values = convolve("key"), convolve("value")  # [B, heads, M, width / heads]
    attention = torch.softmax(query @ keys.transpose(2, 3) / nodes.shape[-1] ** 0.5, dim=-1)
    pooled = (query + attention @ values).reshape(num_graphs, -1)
    return pooled + torch.relu(_linear(weights["output"], pooled))


def _paper_policy(weights: Weights, graphs: Graphs, num_layers: int, num_heads: int) -> tuple[Any, Any]:
    nodes = graphs.nodes
    for place in range(num_layers):
        nodes = _leaky(_heat_conv(weights[f"conv_{place}"], nodes, graphs))
    hidden = nodes[graphs.focus].flatten(1)
    for place in range(2):
        hidden = _leaky(_linear(weights[f"actor_{place}"], hidden))
    logits = graphs.prior + _linear(weights["actor_2"], hidden)
    pooled = _seed_pooling(weights["pooling"], nodes, graphs, num_heads)
    hidden = _leaky(_linear(weights["critic_0"], pooled))
    return logits, _linear(weights["critic_1"], hidden)[:, 0]


def draw(model: GraphPolicy | PaperPolicy, weights: Weights, graphs: Graphs, valid_actions: Any) -> Any:
    """Draws `[B]` actions; what a step of rolling out computes beside the environment."""
    import torch

    with torch.no_grad():
        logits, _ = outputs(model, weights, graphs)
        probabilities = torch.softmax(logits.masked_fill(~valid_actions, -1e9), dim=-1)
        return torch.multinomial(probabilities, 1)[:, 0]


def make_optimiser(weights: Weights, learning_rate: float) -> Any:
    import torch

    return torch.optim.Adam(jax.tree.leaves(weights), lr=learning_rate)


def to_steps(observations: Sequence[Observation], actions, valid_actions, returns) -> Steps:
    import torch

    return Steps(
        to_graphs(observations),
        torch.tensor(actions).long(),
        torch.tensor(valid_actions),
        torch.tensor(returns),
    )


def update(
    model: GraphPolicy | PaperPolicy, weights: Weights, optimiser: Any, parts: Sequence[Steps]
) -> float:
    """Takes one step of the optimiser on the sum of the gradients of equal parts; returns the mean loss."""
    optimiser.zero_grad()
    total = 0.0
    for steps in parts:
        loss = _loss(model, weights, steps) / len(parts)
        loss.backward()
        total += float(loss.detach())
    optimiser.step()
    return total


def _loss(model: GraphPolicy | PaperPolicy, weights: Weights, steps: Steps) -> Any:
    """As `benchmark_policy.loss_of`."""
    import torch

    logits, values = outputs(model, weights, steps.graphs)
    log_probs = torch.log_softmax(logits.masked_fill(~steps.valid_actions, -1e9), dim=-1)
    advantage = (steps.returns - values).detach()
    chosen = log_probs.gather(1, steps.actions[:, None])[:, 0]
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return (-advantage * chosen + 0.5 * (steps.returns - values) ** 2 - 0.01 * entropy).mean()
