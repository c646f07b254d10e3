"""Known recurrent blocks and their variants, at random places of a graph: what policies are pre-trained on.

Source: Aichberger and Klambauer (2023), who pre-train on simulated episodes that build variants of the
LSTM. Fixed here: the blocks are those of `RECURRENT` that the operations of a space can build and its
nodes can hold; their nodes are spread over the graph in their own order, so that products keep the order
of their operands; every second one is changed by a mutation of the space.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, liveness
from elenas_jax.spaces.elenas_sampling import Choices

RECURRENT = ("elman", "lstm", "mgu", "gru", "elena1", "elena2")


def known_names(choices: Choices) -> tuple[str, ...]:
    """Returns the blocks of `RECURRENT` that can be built from `choices`."""
    return tuple(name for name in RECURRENT if _fits(np.asarray(KNOWN_BLOCKS[name].edges), choices))


def make_known(
    choices: Choices, mutate: Callable, is_valid: Callable | None = None
) -> Callable[[jax.Array], ComputationGraph]:
    """Returns a jittable function from a key to a known block or a variant of one.

    Args:
      choices: of the space.
      mutate: key, candidate -> candidate, of the space.
      is_valid: candidate -> [] bool, where the space may not have all of them; the others are left out.

    Raises (when it is called):
      ValueError: if no known block can be built.
    """
    size = choices.num_nodes
    blocks = [np.asarray(KNOWN_BLOCKS[name].edges) for name in known_names(choices)]
    edges = np.stack([_pad(block, size) for block in blocks]) if blocks else np.zeros((0, size, size))
    counts = np.array([_used(block) for block in blocks]).reshape(-1, 2)

    @functools.cache  # not before it is called: this compiles
    def valid_places() -> np.ndarray:
        if is_valid is None or not blocks:
            return np.arange(len(blocks))
        with jax.ensure_compile_time_eval():
            graphs = ComputationGraph(jnp.asarray(edges, jnp.int8))
            return np.flatnonzero(jax.jit(jax.vmap(is_valid))(graphs))

    def known(key: jax.Array) -> ComputationGraph:
        places = valid_places()
        if not len(places):
            raise ValueError(
                f"No known recurrent block ({', '.join(RECURRENT)}) can be built in graphs of {size} nodes "
                "with these operations and parameters."
            )
        key_block, key_place, key_change, key_mutate = jax.random.split(key, 4)
        which = jnp.asarray(places)[jax.random.randint(key_block, (), 0, len(places))]
        block = ComputationGraph(
            place_block(jnp.asarray(edges)[which], jnp.asarray(counts)[which], key_place)
        )
        changed = mutate(key_mutate, block)
        is_variant = jax.random.bernoulli(key_change)
        chosen = ComputationGraph(jnp.where(is_variant, changed.edges, block.edges))
        # The network alone: what a mutation has cut off need not be built, and might not be allowed.
        return ComputationGraph(liveness(chosen).edges)

    return known


def place_block(edges: jax.Array, counts: jax.Array, key: jax.Array) -> jax.Array:
    """Spreads the nodes of a block at random over a graph, initial and intermediate ones in their order.

    Args:
      edges: `[M, M]`, the block's nodes first.
      counts: `[2]`, how many of the initial and of the intermediate places the block takes.
      key: of the places.
    """
    num_nodes = edges.shape[0]
    new = jnp.zeros(num_nodes, jnp.int32)
    for kind, first in ((0, 1), (1, 2)):
        num_places = len(range(first, num_nodes, 2))
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(jax.random.fold_in(key, kind), (num_places,))))
        # Chosen places in ascending order, then the others.
        places = jnp.argsort(rank >= counts[kind], stable=True)
        new = new.at[first::2].set(first + 2 * places)
    return jnp.zeros_like(edges).at[new[:, None], new[None, :]].set(edges)


def _fits(edges: np.ndarray, choices: Choices) -> bool:
    if edges.shape[0] > choices.num_nodes:
        return False
    padded = _pad(edges, choices.num_nodes)
    codes = padded[choices.order[:, 0], choices.order[:, 1]]
    return bool(((choices.codes == codes[:, None]) & choices.valid_actions).any(axis=1).all())


def _pad(edges: np.ndarray, size: int) -> np.ndarray:
    return np.pad(edges, ((0, size - edges.shape[0]),) * 2)


def _used(edges: np.ndarray) -> tuple[int, int]:
    """Returns how many initial and intermediate places lead up to the last one with an edge."""
    busy = np.flatnonzero(edges.any(axis=0) | edges.any(axis=1))
    initial, intermediate = busy[busy % 2 == 1], busy[(busy % 2 == 0) & (busy > 0)]
    return int(initial.max(initial=-1) + 1) // 2, int(intermediate.max(initial=0)) // 2
