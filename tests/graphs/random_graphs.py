"""Random graphs for tests: many valid ones of each kind, and invalid ones of every reason.

Uniform draws are never valid, so valid graphs come from walks: start at a small network of the
wanted kind and set one random edge after another, keeping what stays of that kind. What a walk
refuses is one edge away from a network and makes the hardest invalid graphs. Sparse random draws
are added for graphs that are far from any network. The reference decides what is valid.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.graphs import ComputationGraph, Program, construct, from_edges
from tests.reference import REASONS, Network, analyse
from tests.reference.evaluator import COMBINING, TRANSFORMING

# Compiling is most of what these tests wait for; XLA's costly optimisations save nothing here.
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}

KINDS = ("rows", "matrices", "sequence")  # recurrent on rows, recurrent on matrices, whole sequence


class Widths(NamedTuple):
    """What a graph is constructed for besides itself."""

    in_features: int
    out_features: int
    hidden_features: int
    head: str
    time_steps: int | None


class Drawn(NamedTuple):
    """A graph and what the reference says of it."""

    edges: np.ndarray  # [M, M] int8
    network: Network


def kind(network: Network) -> str:
    """Returns one of KINDS for a valid network."""
    if not network.recurrent:
        return "sequence"
    one_row = all(network.values[node][0] == 1 for node in network.depends_on_input)
    return "rows" if one_row else "matrices"


def _code(name: str) -> int:
    return COMBINING.index(name) if name in COMBINING else TRANSFORMING.index(name)


def _start(wanted: str, num_nodes: int, rng: np.random.Generator, extended: bool) -> np.ndarray:
    """Returns a small network of a kind, on random nodes; all kinds need 5 nodes, matrices at best 12."""
    edges = np.zeros((num_nodes, num_nodes), np.int8)
    even = rng.permutation(np.arange(2, num_nodes, 2))
    odd = rng.permutation(np.arange(1, num_nodes, 2))
    final = even[0]
    edges[0, final] = edges[odd[0], final] = _code("matmul")
    if wanted == "rows":  # y = x W + y(t-1)
        edges[final, even[1]] = _code("recursion")
        edges[even[1], final] = _code("add")
    elif wanted == "sequence" and extended and rng.random() < 0.3:  # y = mean(x W) W'
        edges[0, even[1]] = edges[odd[1], even[1]] = _code("matmul")
        edges[even[1], even[1]] = _code("mean_rows")
        edges[0, final] = 0
        edges[even[1], final] = _code("matmul")
    elif wanted == "sequence" and len(even) > 3 and rng.random() < 0.5:  # y = (x W) (x W')^T x
        query, key = sorted(even[1:3])
        edges[:, final] = 0
        edges[0, query] = edges[odd[0], query] = edges[0, key] = edges[odd[1], key] = _code("matmul")
        edges[key, key] = _code("transpose")
        value = even[3]
        edges[0, value] = edges[odd[-1], value] = _code("matmul")
        edges[[query, key, value], final] = _code("matmul")
    elif wanted == "matrices" and (len(even) < 5 or rng.random() < 0.3):  # y = x x(t-1)^T W
        edges[0, even[1]] = _code("recursion")
        edges[even[1], even[1]] = _code("transpose")
        edges[even[1], final] = _code("matmul")
    elif wanted == "matrices":  # s = s(t-1) + (x W)^T x(t-1); y = x s W
        total, previous = even[1:3]
        key, query = sorted(even[3:5])
        edges[0, key] = edges[odd[1], key] = _code("matmul")
        edges[key, key] = _code("transpose")
        edges[0, query] = _code("recursion")
        edges[key, total] = edges[query, total] = _code("matmul")
        edges[total, previous] = _code("recursion")
        edges[previous, total] = _code("add")
        edges[total, final] = _code("matmul")
    return edges


def _mutate(
    edges: np.ndarray, rng: np.random.Generator, num_combining: int, num_transforming: int
) -> np.ndarray:
    """Sets one or two random edges."""
    edges = edges.copy()
    num_nodes = edges.shape[0]
    for _ in range(1 + (rng.random() < 0.3)):
        target = rng.choice(np.arange(2, num_nodes, 2))
        choice = rng.random()
        present = np.flatnonzero(edges[:, target] * (np.arange(num_nodes) != target))
        if choice < 0.2:
            edges[target, target] = rng.integers(num_transforming)
        elif choice < 0.5 and len(present):
            source = rng.choice(present)
            edges[source, target] = 0 if rng.random() < 0.7 else rng.integers(num_combining)
        else:
            source = rng.choice(np.delete(np.arange(num_nodes), target))
            edges[source, target] = rng.integers(num_combining)
    return edges


def walk(
    wanted: str, num_nodes: int, widths: Widths, rng: np.random.Generator, extended: bool, thin: int = 3
) -> Iterator[tuple[Drawn, list[Drawn]]]:
    """Walks over networks of a kind for ever.

    Yields:
      After every `thin` accepted changes the network at hand, and what was refused since.
    """
    num_codes = (len(COMBINING), len(TRANSFORMING)) if extended else (5, 5)
    edges = _start(wanted, num_nodes, rng, extended)
    network = analyse(edges, **widths._asdict())
    refused: list[Drawn] = []
    accepted = 0
    while True:
        proposal = _mutate(edges, rng, *num_codes)
        found = analyse(proposal, **widths._asdict())
        if found.reason != 0:
            refused.append(Drawn(proposal, found))
        elif kind(found) == wanted:
            # Prefer to grow: a walk without preference stays among the smallest networks.
            grows = len(found.live) - len(network.live)
            if grows < 0 and rng.random() > 0.5**-grows:
                continue
            edges, network = proposal, found
            accepted += 1
            if accepted % thin == 0:
                yield Drawn(edges, network), refused
                refused = []


def sparse(num_nodes: int, rng: np.random.Generator, extended: bool) -> np.ndarray:
    """Draws each edge independently, most of them none."""
    num_combining, num_transforming = (len(COMBINING), len(TRANSFORMING)) if extended else (5, 5)
    share = rng.choice([0.5, 1.0, 2.0, 3.0]) / num_nodes
    edges = rng.integers(1, num_combining, (num_nodes, num_nodes)) * (
        rng.random((num_nodes, num_nodes)) < share
    )
    np.fill_diagonal(edges, rng.integers(0, num_transforming, num_nodes))
    edges[:, (np.arange(num_nodes) == 0) | (np.arange(num_nodes) % 2 == 1)] = 0
    return edges.astype(np.int8)


def draw(
    seed: int,
    num_valid: int,
    num_invalid: int,
    num_nodes: int,
    widths: Widths,
    extended: bool,
    kinds: tuple[str, ...] = KINDS,
) -> list[Drawn]:
    """Draws graphs: valid ones spread over `kinds`, invalid ones as evenly over reasons as can be.

    Deterministic in its arguments. Valid graphs come first, and are of at least 5 nodes.
    """
    rng = np.random.default_rng([seed, num_nodes])
    valid: list[Drawn] = []
    invalid: dict[int, list[Drawn]] = {reason: [] for reason in range(1, len(REASONS))}
    walk_length = 20
    while len(valid) < num_valid:
        for wanted in kinds:
            for found, refused in islice(walk(wanted, num_nodes, widths, rng, extended), walk_length):
                valid.append(found)
                for near in refused:
                    invalid[near.network.reason].append(near)
    for _ in range(num_invalid // 2):
        edges = sparse(num_nodes, rng, extended)
        far = Drawn(edges, analyse(edges, **widths._asdict()))
        if far.network.reason != 0:
            invalid[far.network.reason].append(far)
    valid = [valid[i] for i in rng.permutation(len(valid))[:num_valid]]
    shuffled = [[group[i] for i in rng.permutation(len(group))] for group in invalid.values()]
    by_turns = [found for turn in zip_longest(*shuffled) for found in turn if found is not None]
    return valid + by_turns[:num_invalid]


class Setting(NamedTuple):
    """A population of tests: graphs of several sizes, padded to one, constructed for the same widths."""

    name: str
    sizes: tuple[int, ...]  # nodes of the graphs; the largest is that of the population
    widths: Widths
    extended: bool
    kinds: tuple[str, ...] = KINDS


SETTINGS = (
    Setting("paper", (5, 8, 12), Widths(3, 2, 4, "none", None), False),
    Setting("extended", (7, 10, 12), Widths(3, 2, 4, "linear", 5), True),
    Setting("in_is_hidden", (6, 12), Widths(4, 2, 4, "linear", None), True),
    Setting("in_is_out_is_time", (9, 12), Widths(3, 3, 5, "none", 3), True),
    Setting("hidden_is_time", (6, 9), Widths(2, 1, 5, "none", 5), True),
    Setting("ones", (5, 8), Widths(1, 1, 1, "none", 4), True, ("rows", "sequence")),
    Setting("larger", (12, 16), Widths(7, 1, 6, "linear", None), False),
)


class Population(NamedTuple):
    """Graphs of a setting; valid ones first."""

    setting: Setting
    drawn: list[Drawn]
    edges: np.ndarray  # [B, M, M] int8
    reasons: np.ndarray  # [B] int32

    @property
    def num_valid(self) -> int:
        return int(np.sum(self.reasons == 0))


@cache
def population(name: str, num_valid: int = 300, num_invalid: int = 200) -> Population:
    """Draws the population of a setting; the same in every call."""
    setting = next(setting for setting in SETTINGS if setting.name == name)
    drawn: list[Drawn] = []
    num_nodes = max(setting.sizes)
    for place, size in enumerate(setting.sizes):
        first, last = place / len(setting.sizes), (place + 1) / len(setting.sizes)
        share = [int(last * num) - int(first * num) for num in (num_valid, num_invalid)]
        kinds = tuple(k for k in setting.kinds if k != "matrices" or size > 6)
        seed = SETTINGS.index(setting)
        drawn += draw(seed, share[0], share[1], size, setting.widths, setting.extended, kinds)
    drawn = [
        _padded(found, num_nodes) for found in sorted(drawn, key=lambda found: found.network.reason != 0)
    ]
    reasons = np.array([found.network.reason for found in drawn], np.int32)
    return Population(setting, drawn, np.stack([found.edges for found in drawn]), reasons)


def _padded(found: Drawn, num_nodes: int) -> Drawn:
    extra = num_nodes - len(found.edges)
    return found._replace(edges=np.pad(found.edges, ((0, extra), (0, extra))))


@cache
def construct_all(name: str) -> Program:
    """Constructs a population in one compiled call; the batch of programs on the host."""
    drawn = population(name)
    return jax.device_get(constructor(drawn.setting.widths, batched=True)(drawn.edges))


@cache
def constructor(widths: Widths, max_instructions: int | None = None, batched: bool = False) -> Any:
    """Returns the compiled constructor of `[M, M]` edges, or of `[B, M, M]`."""

    def run(edges: jax.Array) -> Program:
        return construct(ComputationGraph(edges), **widths._asdict(), max_instructions=max_instructions)

    return jax.jit(jax.vmap(run) if batched else run, compiler_options=QUICK_TO_COMPILE)


def dead_edges(edges: np.ndarray, widths: dict, rng: np.random.Generator, attempts: int = 20) -> np.ndarray:
    """Adds edges that are no part of the network, by the reference's judgement."""
    network = analyse(edges, **widths)
    for _ in range(attempts):
        larger = edges.copy()
        source, target = rng.integers(len(edges)), rng.choice(np.arange(2, len(edges), 2))
        if source != target and edges[source, target]:
            continue
        larger[source, target] = rng.integers(5)
        if source == target and target in network.live:
            continue
        found = analyse(larger, **widths)
        same = found.nodes == network.nodes and found.live == network.live and found.reason == network.reason
        if same and (network.nodes or found == network):
            edges = larger
    return edges


@cache
def golden() -> tuple[list[dict], np.ndarray]:
    """Returns the 64 golden graphs: their records, and `[64, M, M]` padded edges."""
    records = json.loads((Path(__file__).parent.parent / "golden" / "graphs64.json").read_text())
    num_nodes = max(record["num_nodes"] for record in records)
    edges = np.zeros((len(records), num_nodes, num_nodes), np.int8)
    for place, record in enumerate(records):
        graph = from_edges(record["num_nodes"], [tuple(edge) for edge in record["edges"]])
        edges[place, : graph.num_nodes, : graph.num_nodes] = graph.edges
    return records, edges
