"""The loop: ask, evaluate, tell, again and again, so that a kill at any moment changes nothing.

At the end of a generation are written, in this order: its rows in the archive (one transaction),
its line in metrics.jsonl, its checkpoint. The checkpoint decides: a run goes on at the newest one,
rows and lines of later generations are dropped, and the generation in flight is asked for again.
Its keys follow from its number, so the proposal of the same version is the same, and what was already
trained comes from the archive. Where a run ends follows from what is in the metrics, minutes included.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation.population import Evaluator
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import NUM_BEST, Archive, Block, Row
from elenas_jax.experiment.best_first import Ranked
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.strategies.rollouts import Rollout
from elenas_jax.types import OK, Evaluation, Proposal, PyTree, SearchSpace, Strategy, explain_status

INIT = 2**32 - 1  # folded into the run's key for the strategy's start; no generation has this number
_REPLICATE = 0  # a search trains each candidate once; more seeds are for `retrain`


class Experiment(NamedTuple):
    """All that a config describes, as objects (made by `build`)."""

    config: dict[str, Any]
    space: SearchSpace
    strategy: Strategy
    evaluator: Evaluator
    run_key: jax.Array


class Outcome(NamedTuple):
    """How a call of `search` ended."""

    num_generations: int  # of the run, all sessions together
    why: str  # the limit that was reached, in words; "" if somebody stopped it


class Interrupted(KeyboardInterrupt):
    """Raised between two chunks of trainings after somebody asked the run to stop."""


def generation_keys(run_key: jax.Array, generation: int) -> tuple[jax.Array, jax.Array]:
    """Returns the `[]` key for asking and the `[]` key for telling."""
    key_ask, key_tell = jax.random.split(jax.random.fold_in(run_key, generation))
    return key_ask, key_tell


def limit_reached(rows: list[dict[str, Any]], limits: Mapping[str, float]) -> str:
    """Returns in words which limit the generations so far have reached, "" if none.

    Args:
      rows: of metrics.jsonl, from generation 0 on.
      limits: `generations`, `evaluations`, `minutes`; 0 is no limit.
    """
    gone = {
        "generations": len(rows),
        "evaluations": rows[-1]["total_evaluations"] if rows else 0,
        "minutes": sum(row["seconds"] for row in rows) / 60,
    }
    reached = [f"{limits[name]:g} {name}" for name in gone if limits[name] and gone[name] >= limits[name]]
    return " and ".join(reached)


def restore(
    experiment: Experiment, run: files.RunDir, archive: Archive, checkpoints: Checkpoints
) -> tuple[PyTree, list[dict[str, Any]]]:
    """Returns the strategy's state and the lines of metrics where the newest checkpoint left them.

    What later generations had written is dropped; their trainings stay in the archive.

    Raises:
      RunError: if something is damaged.
    """
    state = experiment.strategy.init(jax.random.fold_in(experiment.run_key, INIT))
    step = checkpoints.newest()
    if step is not None:
        state = checkpoints.restore(step, state)
    rows = files.keep_metrics(run, step or 0)
    archive.cut_back(step or 0)
    return state, rows


def search(
    experiment: Experiment,
    run: files.RunDir,
    archive: Archive,
    checkpoints: Checkpoints,
    state: PyTree,
    rows: list[dict[str, Any]],
    *,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
    on_generation: Callable[[dict[str, Any]], None] = lambda row: None,
    stop_requested: Callable[[], bool] = lambda: False,
    until: Callable[[list[Row]], str] = lambda candidates: "",
) -> Outcome:
    """Runs generations until a limit of the config is reached, a goal is, or somebody stops the run.

    Args:
      experiment: what to do.
      run: where to; locked by the caller.
      archive: open.
      checkpoints: of this run.
      state, rows: from `restore`.
      on_chunk: gets (trained, to train) of the generation in flight after each chunk.
      on_generation: gets each generation's line of metrics.
      stop_requested: asked after each chunk and generation.
      until: gets the candidates of a generation when all of it is saved; what it says other than "" is the
        goal that ends the run.
    """
    rows = list(rows)

    def check_stop(done: int, total: int) -> None:
        on_chunk(done, total)
        if stop_requested():
            raise Interrupted

    while not (why := limit_reached(rows, experiment.config)):
        if stop_requested():
            return Outcome(len(rows), "")
        try:
            row, state, candidates = _one_generation(experiment, archive, state, rows, check_stop)
        except Interrupted:
            return Outcome(len(rows), "")
        files.append_metrics(run, row)
        rows.append(row)
        state = checkpoints.save(len(rows), state)
        on_generation(row)
        if reached := until(candidates):
            return Outcome(len(rows), reached)
    return Outcome(len(rows), why)


def _one_generation(
    experiment: Experiment,
    archive: Archive,
    state: PyTree,
    rows: list[dict[str, Any]],
    on_chunk: Callable[[int, int], None],
) -> tuple[dict[str, Any], PyTree, list[Row]]:
    """Asks, evaluates, tells and archives; returns the line of metrics, the state after and candidates."""
    strategy, evaluator, generation = experiment.strategy, experiment.evaluator, len(rows)
    key_ask, key_tell = generation_keys(experiment.run_key, generation)
    started = time.perf_counter()
    proposal, asked = strategy.ask(key_ask, state)
    proposal = proposal._replace(
        budget=np.asarray(proposal.budget), valid_candidates=np.asarray(proposal.valid_candidates)
    )
    jax.block_until_ready(proposal.candidates)
    asked_at = time.perf_counter()
    archive.generation = generation
    before = evaluator.seconds()
    evaluation = evaluator.evaluate(
        proposal.candidates,
        proposal.budget,
        _REPLICATE,
        valid_candidates=proposal.valid_candidates,
        on_chunk=on_chunk,
    )
    evaluated_at = time.perf_counter()
    told = jax.block_until_ready(strategy.tell(key_tell, asked, proposal, evaluation))
    told_at = time.perf_counter()
    candidates, blocks = _rows(experiment, archive, generation, proposal, evaluation)
    archive.end_generation(candidates, blocks)
    best = archive.best()
    scores = [row.score for row in candidates if row.status == OK and row.score is not None]
    is_valid = [not row.status_text.startswith("invalid") for row in candidates]
    previous = rows[-1] if rows else {"total_draws": 0}
    diagnostics = {key: float(value) for key, value in strategy.diagnostics(told).items()}
    row = {
        "generation": generation,
        "proposals": len(candidates),
        "valid": sum(is_valid),
        "unique": len({row.hash for row, valid in zip(candidates, is_valid, strict=True) if valid}),
        "new_evaluations": sum(row.is_new for row in candidates),
        "total_evaluations": archive.num_evaluations(generation + 1),
        "total_draws": previous["total_draws"] + len(candidates),
        "best_score": best[0][0] if best else None,
        "best_hash": best[0][3] if best else None,
        "mean_score": float(np.mean(scores)) if scores else None,
        "statuses": dict(sorted(Counter(row.status_text for row in candidates).items())),
        "strategy": diagnostics,
        "policy_steps": _policy_steps(asked),
        "seconds_evaluating": evaluated_at - asked_at,
        "seconds_evaluator": {
            name: seconds - before.get(name, 0.0) for name, seconds in evaluator.seconds().items()
        },
        "seconds_strategy": asked_at - started + told_at - evaluated_at,
        "seconds": time.perf_counter() - started,
    }
    return row, told, candidates


def _policy_steps(asked: PyTree) -> int:
    """Returns how many actions a policy took: its episodes wait in the state as `pending`."""
    pending = getattr(asked, "pending", None)
    return int(pending.actions.size) if isinstance(pending, Rollout) else 0


def _rows(
    experiment: Experiment, archive: Archive, generation: int, proposal: Proposal, evaluation: Evaluation
) -> tuple[list[Row], list[Block]]:
    """Returns a generation's rows of the archive, and blocks for those that are now among the best."""
    space, evaluator = experiment.space, experiment.evaluator
    host = jax.tree.map(np.asarray, proposal.candidates)
    places: list[int] = np.flatnonzero(proposal.valid_candidates).tolist()
    candidates = {place: jax.tree.map(lambda leaf, place=place: leaf[place], host) for place in places}
    forms = {place: space.canonical(candidate) for place, candidate in candidates.items()}
    keys = {
        place: evaluator.cache_key(forms[place], int(proposal.budget[place]), _REPLICATE) for place in places
    }
    trained_in = archive.trained_in(list(dict.fromkeys(keys.values())))
    met: set[bytes] = set()
    rows = []
    for place, key in keys.items():
        status = int(evaluation.status[place])
        metrics = {
            name: files.plain(float(value))
            for name, value in zip(evaluator.task_names, evaluation.metrics[place], strict=True)
        }
        rows.append(
            Row(
                generation=generation,
                place=int(place),
                hash=hashlib.blake2b(forms[place], digest_size=16).hexdigest(),
                is_new=int(key not in met and trained_in.get(key) == generation),
                status=status,
                status_text=explain_status(status, space.reasons),
                budget=int(proposal.budget[place]),
                replicate=_REPLICATE,
                score=files.plain(float(evaluation.score[place])),
                parameters=int(evaluation.parameters[place]),
                flops=files.plain(float(evaluation.flops[place])),
                train_steps=int(evaluation.train_steps[place]),
                seconds=files.plain(float(evaluation.seconds[place])),
                metrics=json.dumps(metrics),
                candidate=json.dumps(space.to_json(candidates[place])),
            )
        )
        met.add(key)
    first = {row.hash: row for row in reversed(rows)}
    new = _best_hashes(archive, rows) & first.keys() - archive.known_blocks()
    blocks = []
    for digest in sorted(new):
        candidate = candidates[first[digest].place]
        drawing = json.dumps(space.drawing(candidate))
        blocks.append(Block(digest, space.describe(candidate), drawing, first[digest].candidate))
    return rows, blocks


def _best_hashes(archive: Archive, rows: list[Row]) -> set[str]:
    """Returns which candidates are the best `NUM_BEST` of the run when `rows` are added to it."""
    scored = [
        Ranked(row.score, row.generation, row.place, row.hash, row.parameters)
        for row in rows
        if row.status == OK and row.score is not None
    ]
    ranked = sorted([*archive.best(), *scored], key=lambda each: (-each.score, each.generation, each.place))
    return set(list(dict.fromkeys(each.hash for each in ranked))[:NUM_BEST])
