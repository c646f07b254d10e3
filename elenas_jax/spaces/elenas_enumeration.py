"""Every valid block of a small ELENAS space, once each; and which block each of its graphs is.

All graphs that `Choices` allows are constructed in compiled batches; those that are valid are told
apart by their canonical form. What is left out beforehand never gives a block of its own: recursion
edges from initial nodes, which count as none, and one of two graphs that differ in the names of two
neighbouring initial nodes alone. A test compares with what no such rule was applied to.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph, liveness
from elenas_jax.graphs.computation import MATMUL, RECURSION, intermediate_nodes
from elenas_jax.spaces.elenas_sampling import Choices, actions_from_graph
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

    judge = _make_judge(space)
    blocks: dict[bytes, np.ndarray] = {}
    met: set[bytes] = set()  # what is not alive changes nothing: most graphs end here
    for edges in _graphs(choices):
        status, networks = judge(edges)
        for network in networks[status == OK]:
            if network.tobytes() not in met:
                met.add(network.tobytes())
                blocks.setdefault(space.canonical(ComputationGraph(network)), network)
    return dict(sorted(blocks.items()))


def number_graphs(choices: Choices) -> tuple[Callable[[ComputationGraph], jax.Array], int]:
    """Returns a jittable function from a graph to its number, from 0 on, and how many graphs there are.

    Raises:
      ValueError: if there are more than `MOST_GRAPHS`.
    """
    sizes = choices.valid_actions.sum(axis=1).tolist()
    total = math.prod(sizes)
    if total > MOST_GRAPHS:
        raise ValueError(f"The space has {total:,} graphs; at most {MOST_GRAPHS:,} are enumerated.")
    weights = np.cumprod([1, *sizes[:-1]]).astype(np.int32)
    return lambda graph: jnp.sum(actions_from_graph(choices, graph) * weights), total


def tabulate_graphs(space: SearchSpace, choices: Choices) -> tuple[np.ndarray, list[bytes]]:
    """Judges every graph of a space once.

    Returns:
      `[G]` int32, for each graph by its number its block's place in the list, or minus its status; and
      the canonical bytes of the blocks.

    Raises:
      ValueError: as `number_graphs`.
    """
    judge = _make_judge(space)
    sizes = choices.valid_actions.sum(axis=1)
    _, total = number_graphs(choices)
    found = np.zeros(total, np.int32)
    blocks: dict[bytes, int] = {}
    met: dict[bytes, int] = {}
    for first in range(0, total, _BATCH):
        numbers = np.arange(first, min(first + _BATCH, total))
        edges = np.zeros((len(numbers), choices.num_nodes, choices.num_nodes), np.int8)
        rest = numbers
        for (source, target), size, codes in zip(choices.order, sizes, choices.codes, strict=True):
            rest, action = np.divmod(rest, size)
            edges[:, source, target] = codes[action]
        status, networks = judge(edges)
        found[numbers] = -status
        for number, network in zip(numbers[status == OK], networks[status == OK], strict=True):
            text = network.tobytes()
            if text not in met:
                form = space.canonical(ComputationGraph(network))
                met[text] = blocks.setdefault(form, len(blocks))
            found[number] = met[text]
    return found, list(blocks)


def _make_judge(space: SearchSpace) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a map from at most `_BATCH` graphs `[B, M, M]` to status and network."""

    @jax.jit
    @jax.vmap
    def judge(edges: jax.Array) -> tuple[jax.Array, jax.Array]:
        return space.status(ComputationGraph(edges)), liveness(ComputationGraph(edges)).edges

    def judge_some(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        status, networks = judge(np.pad(edges, ((0, _BATCH - len(edges)), (0, 0), (0, 0))))
        return np.asarray(status)[: len(edges)], np.asarray(networks)[: len(edges)]

    return judge_some


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
