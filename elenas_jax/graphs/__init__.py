"""How a candidate is held: graphs, the constructor, programs, the interpreter."""

from elenas_jax.graphs.canonical import canonical_bytes, canonical_graph, canonical_hash
from elenas_jax.graphs.computation import ComputationGraph, edge_order, from_edges, pad_graph, to_edges
from elenas_jax.graphs.constructor import construct
from elenas_jax.graphs.export import equations, flax_source
from elenas_jax.graphs.interpreter import initial_carry, interpret, specialise
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from elenas_jax.graphs.liveness import REASONS, Liveness, explain, liveness
from elenas_jax.graphs.parameters import init_params, pack_params, unpack_params
from elenas_jax.graphs.program import Program, is_recurrent, num_flops, num_parameters, status_within

__all__ = (
    "KNOWN_BLOCKS",
    "REASONS",
    "ComputationGraph",
    "Liveness",
    "Program",
    "canonical_bytes",
    "canonical_graph",
    "canonical_hash",
    "construct",
    "edge_order",
    "equations",
    "explain",
    "flax_source",
    "from_edges",
    "init_params",
    "initial_carry",
    "interpret",
    "is_recurrent",
    "liveness",
    "num_flops",
    "num_parameters",
    "pack_params",
    "pad_graph",
    "specialise",
    "status_within",
    "to_edges",
    "unpack_params",
)
