"""What a drawing of an ELENAS graph shows: its network, with labels and colours as data."""

from typing import Any

import numpy as np

from elenas_jax.graphs import ComputationGraph
from elenas_jax.graphs.export import parameter_names
from elenas_jax.graphs.statements import known_liveness
from elenas_jax.ops import COMBINING, TRANSFORMING, TRANSFORMING_BY_NAME

INPUT_COLOUR = "#ffffff"
INITIAL_COLOUR = "#e8e8e8"


def draw_network(graph: ComputationGraph, head: str) -> dict[str, Any]:
    """Returns nodes, edges and legend of a graph's network; only what is alive.

    Parameters are called as in the equations of the graph. With head "none" the final node has
    no activation.

    Raises:
      ValueError: for a graph that is no network.
    """
    names = parameter_names(graph, head)
    live = known_liveness(graph)
    edges, final = np.asarray(live.edges), int(live.final)
    nodes = []
    for node in np.flatnonzero(np.asarray(live.network)).tolist():
        if node == 0 or node % 2:
            kind, label, operation = ("input", "x", "") if node == 0 else ("initial", names[node], "")
            colour = INITIAL_COLOUR if node else INPUT_COLOUR
        else:
            row = TRANSFORMING[edges[node, node]]
            if head == "none" and node == final and row.is_activation:
                row = TRANSFORMING_BY_NAME["identity"]
            kind, label, operation, colour = "intermediate", row.symbol, row.name, row.colour
        nodes.append(
            {
                "id": node,
                "kind": kind,
                "label": label,
                "operation": operation,
                "colour": colour,
                "is_output": node == final,
            }
        )
    drawn = []
    for source, target in np.argwhere(edges).tolist():
        if source != target:
            combining = COMBINING[edges[source, target]]
            drawn.append(
                {
                    "source": source,
                    "target": target,
                    "operation": combining.name,
                    "symbol": combining.symbol,
                    "colour": combining.colour,
                    "delayed": combining.delayed,
                }
            )
    used_edges = {edge["operation"] for edge in drawn}
    used_nodes = {node["operation"] for node in nodes}
    legend = [{"label": row.name, "colour": row.colour} for row in COMBINING if row.name in used_edges]
    legend += [{"label": row.name, "colour": row.colour} for row in TRANSFORMING if row.name in used_nodes]
    return {"nodes": nodes, "edges": drawn, "legend": legend}
