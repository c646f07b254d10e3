"""Candidates that benchmarks train: graphs of a file or drawn ones, their weights, and their data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import evaluation_peers as peers
import jax
import jax.numpy as jnp
import numpy as np
from evaluation_peers import Mistake

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.graphs import REASONS, ComputationGraph, Program, canonical_hash, init_params
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.program import AFTER, LAYOUTS, find_layout, trim
from elenas_jax.spaces.elenas import from_json, make_elenas
from elenas_jax.types import OK

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "graphs64.json"
FEATURES, OUTPUTS, HIDDEN, TIME_STEPS, BATCH = 7, 1, 64, 32, 32
DRAWN_NODES = 12


class Population(NamedTuple):
    """C candidates that are trained; the first of them are what peers are timed on."""

    name: str
    programs: list[Program]  # [C], unbatched, on the host; of equal graphs the same object
    weights: np.ndarray  # [C, ...] key data, from which the parameters are drawn
    timed: dict[tuple, tuple[float, float]]  # what was measured of peers, see `time_peer`


def read_graphs(path: str | Path) -> list[ComputationGraph]:
    """Reads the graphs of a file."""
    try:
        entries = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Mistake(f"{path}: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise Mistake(f"{path}: it must be a list of graphs.")
    graphs, known = [], ("num_nodes", "edges")
    for place, entry in enumerate(entries):
        try:
            is_object = isinstance(entry, dict)
            graphs.append(from_json({k: entry[k] for k in known if k in entry} if is_object else entry))
        except ValueError as error:
            raise Mistake(f"{path}: graph {place}: {error}") from error
    return graphs


def construct_all(graphs: Sequence[ComputationGraph]) -> Program:
    """Constructs a batch of programs on the host, valid or not."""
    batch = ComputationGraph(stack_graphs(graphs))
    widths = dict(in_features=FEATURES, out_features=OUTPUTS, hidden_features=HIDDEN)
    return parallel.on_host(construct_batch(batch, **widths, head="linear", time_steps=TIME_STEPS))


def draw_graphs(count: int, longest: int) -> list[ComputationGraph]:
    """Draws different graphs, values of one row only, of at most `longest` instructions."""
    space = make_elenas(num_nodes=DRAWN_NODES, signatures=((FEATURES, OUTPUTS, TIME_STEPS),))
    sample = jax.jit(jax.vmap(space.sample))
    found: dict[str, ComputationGraph] = {}
    for number in range(100):
        edges = np.asarray(sample(jax.random.split(jax.random.key(number), 512)).edges)
        program = construct_all([ComputationGraph(each) for each in edges])
        fits = (program.status == OK) & (find_layout(program) == LAYOUTS.index("row"))
        for each in edges[fits & (program.phase_ends[:, AFTER] <= longest)]:
            found.setdefault(canonical_hash(ComputationGraph(each)), ComputationGraph(each))
        if len(found) >= count:
            return list(found.values())[:count]
    raise Mistake(f"The sampler found only {len(found)} different graphs.")


def make_population(name: str, graphs: Sequence[ComputationGraph], count: int) -> Population:
    """Gives candidate c a graph, in turn, and weights that follow from c."""
    batch = construct_all(graphs)
    for place, status in enumerate(batch.status):
        if status != OK:
            raise Mistake(f"Graph {place} is not a valid network: {REASONS[status]}.")
    batch = trim(batch, int(batch.phase_ends[:, AFTER].max()))
    programs, drawn_from = [_take(batch, place) for place in range(len(graphs))], []
    for first in range(0, count, len(graphs)):
        keys = jax.vmap(lambda c: jax.random.fold_in(jax.random.key(1), c))(first + np.arange(len(graphs)))
        drawn_from.append(np.asarray(jax.random.key_data(keys)))
    chosen = [programs[c % len(graphs)] for c in range(count)]
    return Population(name, chosen, np.concatenate(drawn_from)[:count], {})


def draw_params(population: Population, place: int) -> dict:
    """Returns the packed parameters that a candidate starts with."""
    program = population.programs[place]
    params = parallel.on_host(init_params(jax.random.wrap_key_data(population.weights[place]), program))
    return params | {"rows": params["rows"][: int(program.parameter_rows.sum())]}


def make_data(num_batches: int) -> peers.Data:
    """Returns `[G, N, T, F]` inputs and `[G, N, O]` targets; batch g does not depend on G."""
    keys = jax.vmap(lambda g: jax.random.fold_in(jax.random.key(2), g))(jnp.arange(num_batches))
    inputs = jax.vmap(lambda key: jax.random.normal(key, (BATCH, TIME_STEPS, FEATURES)))(keys)
    draw = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(BATCH, OUTPUTS)))
    return np.asarray(inputs), np.asarray(draw(keys), np.float32)


def _take(batch: Any, place: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[place], batch)
