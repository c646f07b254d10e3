"""Weights of exported networks: parameters of a program as variables of its Flax module, and as a file."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from elenas_jax.graphs.computation import ComputationGraph
from elenas_jax.graphs.export import _rows_only, _Sizes, parameter_names
from elenas_jax.graphs.parameters import HEAD_BIAS, HEAD_KERNEL, unpack_params
from elenas_jax.graphs.program import Program
from elenas_jax.graphs.statements import read, rounded


def flax_params(graph: ComputationGraph, program: Program, params: dict) -> dict[str, dict[str, Any]]:
    """Returns the variables of the module that `flax_source` writes for the widths of a program.

    Args:
      graph: that the program was constructed from, padded or not.
      program: valid, unbatched, on the host.
      params: packed parameters.

    Returns:
      `{"params": {"W1": [rows, columns], "b1": [columns], ..., "head": {"kernel": ..., "bias": ...}}}`,
      named as `parameter_names` says; `flax.linen.RNN` wants them as `{"params": {"cell": ...}}`.

    Raises:
      ValueError: for a program that is not valid, or not of this graph.
    """
    unpacked = unpack_params(program, params)
    head = program.head
    names = parameter_names(graph, head)
    if {node for node in unpacked if isinstance(node, int)} != set(names):
        raise ValueError("The program is not of this graph: its parameters are other nodes.")
    graph = rounded(graph)
    reading = read(graph, head)
    widths = ("in_features", "out_features", "hidden_features", "time_steps")
    sizes = _Sizes(graph, reading, head, {width: getattr(program, width) for width in widths})
    is_flat = _rows_only(reading, sizes)
    tree: dict[str, Any] = {}
    for node, name in names.items():
        value = unpacked[node]
        tree[name] = value[0] if is_flat and not reading.parameters[node] else value
    if head == "linear":
        tree["head"] = {"kernel": unpacked[HEAD_KERNEL], "bias": unpacked[HEAD_BIAS]}
    return {"params": tree}


def weights_file(variables: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Returns an .npz file of the parameters in `variables`, by flat names such as `head/kernel`."""
    buffer = io.BytesIO()
    np.savez(buffer, **flatten_dict(variables["params"], sep="/"))
    return buffer.getvalue()
