"""Replays searches against a table, without run folders: hundreds in a minute.

A replay asks, looks up and tells with the keys that a run of the same seed would have, and meets the
same blocks where its replicate is that of runs, the first. The table's space is so small that every
graph of it is judged beforehand, so that neither drawing nor looking up constructs anything; where a
strategy's `tell` can be traced, many generations are one compiled scan. The search with seed s sees
replicate s modulo their number: the luck of a training is part of what seeds spread over.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation.tabular import Table, table_record
from elenas_jax.experiment.build import (
    build_sequence_tasks,
    build_space,
    build_strategy,
    load_matching_table,
    training_steps,
)
from elenas_jax.experiment.loop import INIT, generation_keys
from elenas_jax.spaces.elenas_enumeration import number_graphs, tabulate_graphs
from elenas_jax.spaces.elenas_sampling import make_choices
from elenas_jax.types import NOT_EVALUATED, OK, Evaluation, PyTree, SearchSpace, Strategy

GENERATIONS = 16  # between two returns to the host
MOST_DRAWS = 300  # for each evaluation wanted, before a search is taken to have no more to find
_DTYPES = (np.float32, np.float32, np.int32, np.int32, np.float32, np.int32, np.float32)  # of Evaluation
_MISSING = np.iinfo(np.int32).min


class Ground(NamedTuple):
    """What searches are replayed on. G graphs, N blocks, R replicates, D tasks."""

    table: Table
    space: SearchSpace  # with statuses looked up
    number: Callable  # graph -> [] int32, jittable
    rows: np.ndarray  # [G] int32 the block's row in the table, minus the status of what is none
    evaluations: Evaluation  # leaves [R, N, ...]


class Curves(NamedTuple):
    """What replays found; S seeds, n distinct evaluations each."""

    best: np.ndarray  # [S, n] float32, best score so far
    rows: np.ndarray  # [S, n] int32, the block evaluated, a row of the table
    draws: np.ndarray  # [S, n] int64, candidates so far that were asked for, as the rows of a run are


def make_ground(config: Mapping[str, Any]) -> Ground:
    """Tabulates the space of a resolved config with `evaluator.table`.

    Raises:
      ConfigError: if the table does not fit.
    """
    tasks, table = build_sequence_tasks(config), load_matching_table(config)
    steps = training_steps(config, tasks)
    choices = make_choices(config["space"]["num_nodes"], config["space"]["operations"])
    places, forms = tabulate_graphs(build_space(config, tasks), choices)
    digests = [hashlib.blake2b(form, digest_size=16).hexdigest() for form in forms]
    row_of = np.array([table.places.get(digest, _MISSING) for digest in digests], np.int32)
    # Place 0 is a block, so a status, which is at least 1, is below it.
    rows = np.where(places >= 0, row_of[np.maximum(places, 0)], places).astype(np.int32)
    number, _ = number_graphs(choices)

    def status(graph) -> jax.Array:
        return jnp.maximum(-jnp.asarray(places)[number(graph)], OK)

    records = [
        [table_record(table, place, replicate, tasks, steps) for place in range(len(table.places))]
        for replicate in range(table.num_replicates)
    ]
    columns = {
        name: np.array([[getattr(record, name) for record in each] for each in records], dtype)
        for name, dtype in zip(Evaluation._fields, _DTYPES, strict=True)
    }
    return Ground(table, build_space(config, tasks, status), number, rows, Evaluation(**columns))


def replay(
    strategy: Callable[[SearchSpace], Strategy] | Mapping[str, Any],
    ground: Ground,
    seeds: Sequence[int],
    num_evaluations: int,
) -> Curves:
    """Runs a search for each seed until it has evaluated so many distinct blocks.

    Args:
      strategy: what makes it on a space, or a resolved config that names it.
      ground: from `make_ground`.
      seeds: of the runs.
      num_evaluations: of each.

    Raises:
      ValueError: if a search draws `MOST_DRAWS` times as many candidates without meeting so many blocks,
        or meets one that is not in the table.
    """
    if isinstance(strategy, Mapping):
        made = build_strategy(strategy, ground.space)
    else:
        made = strategy(ground.space)
    advance = _make_advance(made, ground)
    # Compiled code leaves Python alone, so threads use all cores; a seed is one thread's from start to end.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda seed: _replay_one(made, advance, ground, seed, num_evaluations), seeds))
    return Curves(*(np.stack(each) for each in zip(*found, strict=True)))


def summarise(curves: Curves, ground: Ground, seeds: Sequence[int], mark: int) -> dict[str, Any]:
    """Returns what S searches have after `mark` evaluations.

    Regret is against the best score of the table on the replicate that a search saw; rank is that of the
    block it would hand over, by its mean score over all replicates, 1 being the best.
    """
    scores = np.asarray(ground.evaluations.score, np.float64)
    replicates = np.array(seeds) % len(scores)
    seen = scores[replicates[:, None], curves.rows[:, :mark]]
    chosen = curves.rows[np.arange(len(seen)), seen.argmax(axis=1)]
    means = scores.mean(axis=0)
    best = curves.best[:, mark - 1].astype(np.float64)
    return {
        "evaluations": mark,
        "best": best.tolist(),
        "mean": float(best.mean()),
        "regret": float((scores.max(axis=1)[replicates] - best).mean()),
        "rank": float((1 + (means > means[chosen][:, None]).sum(axis=1)).mean()),
        "draws": float(curves.draws[:, mark - 1].mean()),
    }


def _replay_one(strategy: Strategy, advance: Callable, ground: Ground, seed: int, num: int) -> Curves:
    run_key = jax.random.key(seed)
    replicate = seed % ground.table.num_replicates
    scores = np.asarray(ground.evaluations.score[replicate])
    state = strategy.init(jax.random.fold_in(run_key, INIT))
    met: dict[int, int] = {}  # row of the table -> draws when it was met
    generation = draws = proposals = 0
    while len(met) < num:
        state, proposed = advance(run_key, state, generation, replicate)
        for row in np.asarray(proposed).ravel().tolist():
            if row == _MISSING:
                raise ValueError(f"A block that was drawn is not in table {ground.table.name}.")
            draws += row != -NOT_EVALUATED
            if row >= 0 and row not in met and len(met) < num:
                met[row] = draws
        proposals += proposed.size
        generation += len(proposed)
        if proposals > MOST_DRAWS * num and len(met) < num:
            raise ValueError(f"Seed {seed} met {len(met)} blocks in {proposals:,} draws; {num} were wanted.")
    rows = np.array(list(met), np.int32)
    return Curves(np.maximum.accumulate(scores[rows]), rows, np.array(list(met.values()), np.int64))


def _make_advance(strategy: Strategy, ground: Ground) -> Callable:
    """Returns `advance(run_key, state, generation, replicate) -> state, [GENERATIONS, B] rows`.

    A row is that of the table, minus the status of what is no block, minus NOT_EVALUATED of what was not
    asked for.
    """
    rows, evaluations = jnp.asarray(ground.rows), jax.tree.map(jnp.asarray, ground.evaluations)

    def look_up(proposal, replicate) -> tuple[jax.Array, Evaluation]:
        row = rows[jax.vmap(ground.number)(proposal.candidates)]
        asked = proposal.valid_candidates
        is_block, place = asked & (row >= 0), jnp.maximum(row, 0)
        found = jax.tree.map(lambda leaf: leaf[replicate, place], evaluations)
        blank = jax.tree.map(jnp.zeros_like, found)
        blank = blank._replace(
            metrics=jnp.full_like(found.metrics, jnp.nan), status=jnp.where(asked, -row, NOT_EVALUATED)
        )
        evaluation = jax.tree.map(
            lambda ours, none: jnp.where(is_block.reshape(-1, *(1,) * (ours.ndim - 1)), ours, none),
            found,
            blank,
        )
        return jnp.where(asked, row, -NOT_EVALUATED), evaluation

    def one(run_key, state, generation, replicate, look) -> tuple[PyTree, jax.Array]:
        key_ask, key_tell = generation_keys(run_key, generation)
        proposal, asked = strategy.ask(key_ask, state)
        row, evaluation = look(proposal, replicate)
        return strategy.tell(key_tell, asked, proposal, evaluation), row

    @jax.jit
    def scanned(run_key, state, generation, replicate):
        return jax.lax.scan(
            lambda state, place: one(run_key, state, generation + place, replicate, look_up),
            state,
            jnp.arange(GENERATIONS),
        )

    compiled = jax.jit(look_up)

    def looped(run_key, state, generation, replicate):
        proposed = []
        for place in range(GENERATIONS):
            state, row = one(
                run_key,
                state,
                generation + place,
                replicate,
                lambda *given: jax.tree.map(np.asarray, compiled(*given)),
            )
            proposed.append(row)
        return state, np.stack(proposed)

    key = jax.random.key(0)
    try:
        jax.eval_shape(scanned, key, jax.eval_shape(strategy.init, key), 0, 0)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return looped  # its `tell` works on the host
    return scanned
