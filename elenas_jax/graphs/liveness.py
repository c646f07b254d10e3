"""Which part of a computation graph is the network, and why there may be none.

Rules (a) to (e) of the ELENAS specification of this project, which settle what the paper's
appendix D leaves open:

(a) recursion edges from initial nodes count as none;
(b) an intermediate node without incoming edges is dead and its outgoing edges count as none,
    repeated until nothing changes;
(c) candidates for the final node: living nodes with a path from the input, recursion edges
    included, that feed no living node within the step;
(d) of these the one with most ancestors over all edges, never itself; ties: the higher index;
(e) the final node and its ancestors are the network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenas_jax.graphs.computation import RECURSION, ComputationGraph, initial_nodes, intermediate_nodes

# Bits of a word, in which the rows of relations are packed.
WORD = 32

REASONS = (
    "valid",
    "no path from input",
    "no final node",
    "illegitimate recursion",
    "shapes do not fit",
    "output rows",
    "no parameters",
    "needs a fixed length",
    "too long",
    "too many parameters",  # of a space that has a limit
)
(
    VALID,
    NO_PATH,
    NO_FINAL,
    ILLEGITIMATE_RECURSION,
    SHAPES,
    OUTPUT_ROWS,
    NO_PARAMETERS,
    FIXED_LENGTH,
    TOO_LONG,
    TOO_MANY_PARAMETERS,
) = range(10)


def explain(status: int) -> str:
    """Says in words what a constructor's status means."""
    status = int(status)
    if not 0 <= status < len(REASONS):
        raise ValueError(f"Unknown status {status}; known are 0 to {len(REASONS) - 1}.")
    return REASONS[status]


class Liveness(NamedTuple):
    """What of a graph is alive, and what of that is the network."""

    edges: jax.Array  # [M, M] int8, only edges and self-edges of the network
    alive: jax.Array  # [M] bool, rules (a) and (b); input and initial nodes are alive
    network: jax.Array  # [M] bool, rule (e); all False where there is no final node
    final: jax.Array  # [] int32, -1 where there is none
    depends_on_input: jax.Array  # [M] bool, a path from node 0 over living edges
    recurrent: jax.Array  # [] bool, the network holds a recursion edge
    reach_within_step: jax.Array  # [M, M] bool, paths inside the network without recursion edges
    reason: jax.Array  # [] int32: VALID, NO_PATH, NO_FINAL or ILLEGITIMATE_RECURSION


def pack_bits(relation: jax.Array) -> jax.Array:
    """Packs booleans `[..., N]` into words `[W, ...]` uint32, bit i of word w being column 32 w + i."""
    num_words = -(-relation.shape[-1] // WORD)
    padding = [(0, 0)] * (relation.ndim - 1) + [(0, WORD * num_words - relation.shape[-1])]
    bits = jnp.pad(relation, padding).reshape(*relation.shape[:-1], num_words, WORD).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(WORD, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)
    return jnp.moveaxis(words, -1, 0)


def unpack_bits(words: jax.Array, length: int) -> jax.Array:
    """Unpacks words `[W, N]` into booleans `[N, length]`."""
    bits = (words.T[:, :, None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
    return bits.reshape(words.shape[1], -1)[:, :length].astype(bool)


def close_bits(words: jax.Array) -> jax.Array:
    """Returns `[W, N]` words of the transitive closure of a relation in words `[W, N]`.

    Warshall's algorithm, the constructor's inner loop: a step joins one row to all that enter it.
    """

    def through(node, reach):
        enters = (reach[node // WORD] >> (node % WORD).astype(jnp.uint32)) & 1
        return reach | (reach[:, node, None] * enters[None, :])

    return jax.lax.fori_loop(0, words.shape[1], through, words)


def reachable(adjacency: jax.Array) -> jax.Array:
    """Returns `[M, M]` booleans: a path of one or more edges leads from row to column."""
    return unpack_bits(close_bits(pack_bits(adjacency)), adjacency.shape[0])


def living_edges(edges: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies rules (a) and (b).

    Args:
      edges: `[M, M]` int8 edge matrix.

    Returns:
      `[M, M]` int8 combining codes of the living edges (zero diagonal) and `[M]` bool alive.
    """
    num_nodes = edges.shape[0]
    initial = jnp.asarray(initial_nodes(num_nodes))
    intermediate = jnp.asarray(intermediate_nodes(num_nodes))
    real = intermediate[None, :] & ~jnp.eye(num_nodes, dtype=bool)
    real &= ~(initial[:, None] & (edges == RECURSION))
    combining = jnp.where(real, edges, 0)
    present = combining > 0

    def feed(state):
        alive, _ = state
        fed = ~intermediate | jnp.any(present & alive[:, None], axis=0)
        return fed, jnp.any(fed != alive)

    # Starts from everything alive, so nodes only die: at most as many rounds as nodes.
    alive, _ = jax.lax.while_loop(lambda state: state[1], feed, (jnp.ones(num_nodes, bool), jnp.bool_(True)))
    return jnp.where(alive[:, None] & alive[None, :], combining, 0), alive


@jax.jit
def liveness(graph: ComputationGraph) -> Liveness:
    """Finds the network of a graph; unbatched."""
    edges = jnp.asarray(graph.edges)
    num_nodes = edges.shape[0]
    intermediate = jnp.asarray(intermediate_nodes(num_nodes))
    index = jnp.arange(num_nodes)
    combining, alive = living_edges(edges)
    present = combining > 0
    within_step = present & (combining != RECURSION)

    reach = reachable(present)
    depends_on_input = reach[0] | (index == 0)
    reached = alive & intermediate & reach[0]
    candidate = reached & ~jnp.any(within_step, axis=1)
    num_ancestors = jnp.sum(reach & (index[:, None] != index[None, :]), axis=0)
    # The highest index among the most ancestors.
    rank = jnp.where(candidate, num_ancestors * num_nodes + index, -1)
    final = jnp.where(jnp.any(candidate), jnp.argmax(rank), -1).astype(jnp.int32)

    network = (reach[:, final] | (index == final)) & (final >= 0)
    in_network = network[:, None] & network[None, :]
    on_diagonal = index[:, None] == index[None, :]
    kept = jnp.where(in_network, jnp.where(on_diagonal & intermediate[None, :], edges, combining), 0)
    recurrent = jnp.any(in_network & (combining == RECURSION))
    # A node of the network on a cycle without a recursion edge; ancestors within the network only.
    reach_within_step = reachable(within_step & in_network)
    cyclic = jnp.any(jnp.diagonal(reach_within_step))
    reason = jnp.where(
        ~jnp.any(reached),
        NO_PATH,
        jnp.where(final < 0, NO_FINAL, jnp.where(cyclic, ILLEGITIMATE_RECURSION, VALID)),
    )
    return Liveness(
        kept, alive, network, final, depends_on_input, recurrent, reach_within_step, reason.astype(jnp.int32)
    )
