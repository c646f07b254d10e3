"""Every valid block of a small ELENAS space, once each.

All graphs that `Choices` allows are constructed in compiled batches; those that are valid are told
apart by their canonical form. What is left out beforehand never gives a block of its own: recursion
edges from initial nodes, which count as none, and one of two graphs that differ in the names of two
neighbouring initial nodes alone. A test compares with what no such rule was applied to.
"""

import itertools
import math
from collections.abc import Iterator

import jax
import numpy as np

from elenas_jax.graphs import ComputationGraph, liveness
from elenas_jax.graphs.computation import MATMUL, RECURSION, intermediate_nodes
from elenas_jax.spaces.elenas_sampling import Choices
from elenas_jax.types import OK, SearchSpace

MOST_GRAPHS = 2**24
_BATCH = 4096


def enumerate_blocks(space: SearchSpace, choices: Choices) -> dict[bytes, np.ndarray]:
    """Returns the valid blocks of a space by their canonical bytes, sorted by these.

    Args:
      space: whose status and canonical form count.
      choices: what may stand on each edge of its graphs.

    Returns:
      `{canonical bytes: [M, M] int8 edges of the network of one such graph}`.

    Raises:
      ValueError: if there are more than `MOST_GRAPHS` graphs.
    """

    @jax.jit
    @jax.vmap
    def judge(edges: jax.Array) -> tuple[jax.Array, jax.Array]:
        return space.status(ComputationGraph(edges)), liveness(ComputationGraph(edges)).edges

    blocks: dict[bytes, np.ndarray] = {}
    met: set[bytes] = set()  # what is not alive changes nothing: most graphs end here
    for edges in _graphs(choices):
        padded = np.pad(edges, ((0, _BATCH - len(edges)), (0, 0), (0, 0)))
        status, networks = (np.asarray(each)[: len(edges)] for each in judge(padded))
        for network in networks[status == OK]:
            if network.tobytes() not in met:
                met.add(network.tobytes())
                blocks.setdefault(space.canonical(ComputationGraph(network)), network)
    return dict(sorted(blocks.items()))


def _graphs(choices: Choices) -> Iterator[np.ndarray]:
    """Yields `[B, M, M]` int8 edges of all graphs, those left out that are others renamed."""
    targets = np.flatnonzero(intermediate_nodes(choices.num_nodes)).tolist()
    allowed = [_allowed(choices, target) for target in targets]
    total = math.prod(len(codes) for by_source in allowed for codes in by_source)
    if total > MOST_GRAPHS:
        raise ValueError(f"The space has {total:,} graphs; at most {MOST_GRAPHS:,} are enumerated.")
    # [n, M] for each target: whatever may lead into it.
    columns = [np.array(list(itertools.product(*by_source)), np.int8) for by_source in allowed]
    for first in range(0, total, _BATCH):
        rest = np.arange(first, min(first + _BATCH, total))
        edges = np.zeros((len(rest), choices.num_nodes, choices.num_nodes), np.int8)
        for target, column in zip(targets, columns, strict=True):
            rest, place = np.divmod(rest, len(column))
            edges[:, :, target] = column[place]
        yield edges[~_has_earlier_name(edges)]


def _allowed(choices: Choices, target: int) -> list[list[int]]:
    """Returns the codes that may stand on the edge from each node to `target`."""
    allowed = []
    for source in range(choices.num_nodes):
        step = np.flatnonzero((choices.order == (source, target)).all(axis=1))[0]
        codes = choices.codes[step][choices.valid_actions[step]].tolist()
        is_initial = source % 2 == 1
        allowed.append([code for code in codes if not (is_initial and code == RECURSION)])
    return allowed


def _has_earlier_name(edges: np.ndarray) -> np.ndarray:
    """Returns `[B]` booleans, True where swapping two initial nodes gives the same block, listed apart.

    Initial nodes i and i + 2 may swap names where no node multiplies two of i, i + 1 and i + 2: then
    neither passes another factor of a product. Of the graphs that swaps lead to, the one whose initial
    nodes have the largest rows stays.
    """
    left_out = np.zeros(len(edges), bool)
    for i in range(1, edges.shape[1] - 2, 2):
        factors = (edges[:, i : i + 3] == MATMUL).sum(axis=1)
        is_free = (factors <= 1).all(axis=1)
        # The first entry in which the rows differ decides.
        difference = edges[:, i].astype(int) - edges[:, i + 2]
        first = np.take_along_axis(difference, (difference != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
        left_out |= is_free & (first < 0)
    return left_out
