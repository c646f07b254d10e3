"""Evaluates populations of different graphs in few compiled programs.

Which executor takes what, and what it compiles, says `executors`. What is trained is the canonical
representative of a candidate, from keys that depend on the representative and the run alone, so that a
score does not depend on a candidate's place or on the generation; nor, unless it is batched, on the
chunk or the number of devices. What is batched has the sizes of chunks in its cache keys.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Cache, MemoryCache
from elenas_jax.evaluation.executors import AUTO, BATCHED, EXECUTORS, choose_executor
from elenas_jax.evaluation.trainer import Candidate, Trainer
from elenas_jax.graphs import ComputationGraph, canonical_bytes, canonical_graph, canonical_hash
from elenas_jax.types import NOT_EVALUATED, OK, OUT_OF_MEMORY, Evaluation, Task

# Part of cache keys. Raise it when a change gives the same settings other scores.
EVALUATION_FORMAT = 4

# Kinds of programs that executors are chosen for: (name, layout, whether it loops over time).
_KINDS = (
    ("rows with a loop", "row", True),
    ("rows without a loop", "row", False),
    ("matrices", "matrix", True),
)


class Evaluator(NamedTuple):
    """Judges candidates; see `make_population_evaluator`."""

    evaluate: Callable[..., Evaluation]
    cache_key: Callable[[bytes, int, int], bytes]
    task_names: tuple[str, ...]
    plan: dict[str, Any]
    prepare: Callable[[], None] = lambda: None  # loads what is slow to load; raises ValueError if it cannot
    close: Callable[[], None] = lambda: None
    seconds: Callable[[], dict[str, float]] = dict  # spent so far, by what it was spent on


def make_population_evaluator(
    tasks: Sequence[Task],
    *,
    run_key: jax.Array,
    steps: Sequence[int],
    head: str = "linear",
    hidden_features: int = 64,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    budgets: Sequence[float] = (1.0,),
    candidates_per_device: int = 8,
    num_devices: int = 0,
    executor: str = AUTO,
    memory_gib: float = 0.0,
    max_parameters: int = 0,
    cache: Cache | None = None,
) -> Evaluator:
    """Makes an evaluator of computation graphs on a ladder of tasks.

    Args:
      tasks: in the order of the ladder; a candidate stops at the first threshold it misses.
      run_key: key of the run; data and weights follow from it.
      steps: training steps of each task at a budget of 1.
      head, hidden_features: as of `construct`.
      batch_size: examples a step; validation takes whole batches of them.
      learning_rate: of Adam.
      budgets: multiples of `steps` that a proposal may ask for, by index.
      candidates_per_device: candidates that go through the ladder together on a device, and as many more
        that are compiled meanwhile.
      num_devices: local devices to use, 0 for all.
      memory_gib: that trainings may use, of all devices together; 0 is four fifths of what there is.
        Fewer candidates go side by side where it does not suffice; one that does not fit alone is
        recorded as out of memory.
      executor: one of `EXECUTORS`; "auto" chooses by program and steps, see `choose_executor`.
      max_parameters: candidates with more on any of the tasks are not trained; 0 is no limit.
      cache: of what was trained before; None keeps one as long as the evaluator lives.

    Returns:
      `evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None)` takes a batch of
      graphs, `[B]` indices of budgets, the replicate of data and weights, one or `[B]`, `[B]` booleans
      (False rows are skipped), and a function told (trained, to train) as chunks end.

    Raises:
      ValueError: for numbers out of range.
    """
    tasks, steps, budgets = tuple(tasks), tuple(steps), tuple(budgets)
    _check(tasks, steps, budgets, batch_size, learning_rate, candidates_per_device)
    if executor not in EXECUTORS:
        raise ValueError(f"executor is {executor!r}; allowed are {', '.join(map(repr, EXECUTORS))}.")
    if memory_gib < 0:
        raise ValueError(f"memory_gib is {memory_gib}; it must be positive, or 0 for most of what there is.")
    devices = parallel.count_devices(num_devices)
    memory = parallel.memory_limit(memory_gib, devices)
    known = MemoryCache() if cache is None else cache
    trainer = Trainer(
        tasks,
        run_key,
        head,
        hidden_features,
        batch_size,
        learning_rate,
        candidates_per_device,
        devices,
        executor,
        memory,
        max_parameters,
    )
    executors = [
        [
            {
                kind: choose_executor(executor, layout, loops, _scaled(count, budget))
                for kind, layout, loops in _KINDS
            }
            for budget in budgets
        ]
        for count in steps
    ]
    # Sizes of a chunk decide the last bits of what is batched.
    batched = any(BATCHED in names.values() for by_budget in executors for names in by_budget)
    settings = {
        "format": EVALUATION_FORMAT,
        "run_key": np.asarray(jax.random.key_data(run_key)).tolist(),
        "tasks": [{k: v for k, v in task._asdict().items() if k != "sample"} for task in tasks],
        "steps": steps,
        "budgets": budgets,
        "head": head,
        "hidden_features": hidden_features,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "executors": executors,
        **({"chunk": [devices, candidates_per_device, memory_gib]} if batched else {}),
    }
    encoded_settings = json.dumps(settings, sort_keys=True).encode()

    def cache_key(canonical: bytes, budget: int, replicate: int) -> bytes:
        """Everything that a score depends on, as bytes."""
        return b"|".join(
            (canonical, str(int(budget)).encode(), str(int(replicate)).encode(), encoded_settings)
        )

    def evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None) -> Evaluation:
        edges = np.asarray(candidates.edges)
        num = len(edges)
        budget = np.broadcast_to(np.asarray(budget, np.int32), (num,))
        replicate = np.broadcast_to(np.asarray(replicate, np.int32), (num,))
        if budget.min(initial=0) < 0 or budget.max(initial=0) >= len(budgets):
            raise ValueError(
                f"budget holds {budget.min()} to {budget.max()}; allowed are 0 to {len(budgets) - 1}."
            )
        asked = np.ones(num, bool) if valid_candidates is None else np.asarray(valid_candidates, bool)
        status = np.where(asked, trainer.status(edges), NOT_EVALUATED)
        chosen = np.flatnonzero(status == OK)
        graphs = {place: ComputationGraph(edges[place]) for place in chosen}
        keys = {
            place: cache_key(canonical_bytes(graph, head), budget[place], replicate[place])
            for place, graph in graphs.items()
        }
        records = known.get(list(dict.fromkeys(keys.values())))
        missing = {}
        for place in chosen:
            if keys[place] not in records and keys[place] not in missing:
                graph = graphs[place]
                missing[keys[place]] = Candidate(
                    canonical_graph(graph, head),
                    canonical_hash(graph, head),
                    keys[place],
                    int(budget[place]),
                    int(replicate[place]),
                )
        done = 0

        def steps_of(budget: int) -> tuple[int, ...]:
            return tuple(_scaled(count, budgets[budget]) for count in steps)

        for chunk in trainer.chunks(list(missing.values()), steps_of):
            scaled = [steps_of(one.budget) for one in chunk]
            found = trainer.train(chunk, scaled)
            # Another machine, or another number of devices, may have the memory.
            known.put(
                [
                    (one.key, one.hash, record)
                    for one, record in zip(chunk, found, strict=True)
                    if record.status != OUT_OF_MEMORY
                ]
            )
            records |= {one.key: record for one, record in zip(chunk, found, strict=True)}
            done += len(chunk)
            if on_chunk is not None:
                on_chunk(done, len(missing))
        return gather(num, len(tasks), status, keys, records)

    plan = {
        "devices": parallel.describe_devices(devices),
        "num_devices": devices,
        "candidates_per_chunk": devices * candidates_per_device,
        "executors": _describe(tasks, executors),
        "memory_limit_gib": round(devices * memory / 2**30, 3),
    }
    return Evaluator(evaluate, cache_key, tuple(task.name for task in tasks), plan)


def evaluate_seeds(evaluator: Evaluator, candidates: ComputationGraph, seeds: Sequence[int]) -> Evaluation:
    """Trains each of `[B]` candidates with several seeds; those that are fused, side by side.

    Args:
      evaluator: its first budget is taken.
      candidates: edges `[B, M, M]`.
      seeds: replicates of data and weights, S of them.

    Returns:
      Rows `[S, B, ...]`.
    """
    edges = np.asarray(candidates.edges)
    # Seeds of a candidate follow each other: what is compiled for one serves the next.
    repeated = ComputationGraph(np.repeat(edges, len(seeds), axis=0))
    found = evaluator.evaluate(repeated, 0, np.tile(np.asarray(seeds), len(edges)))
    return Evaluation(
        *(np.swapaxes(leaf.reshape(len(edges), len(seeds), *leaf.shape[1:]), 0, 1) for leaf in found)
    )


def _scaled(count: int, budget: float) -> int:
    return max(1, round(count * budget))


def _check(tasks, steps, budgets, batch_size, learning_rate, candidates_per_device) -> None:
    if not tasks or len(tasks) != len(steps):
        raise ValueError(
            f"There are {len(tasks)} tasks and {len(steps)} numbers of steps; as many of both are needed."
        )
    counts = {"batch_size": batch_size, "candidates_per_device": candidates_per_device}
    counts |= {f"steps of {task.name}": count for task, count in zip(tasks, steps, strict=True)}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1.")
    for task in tasks:
        if task.valid_samples < batch_size:
            raise ValueError(
                f"valid_samples of {task.name} is {task.valid_samples}; batch_size is {batch_size}."
            )
    if not budgets or min(budgets) <= 0 or learning_rate <= 0:
        raise ValueError(f"budgets {budgets} and learning_rate {learning_rate} must be positive.")


def _describe(tasks: tuple[Task, ...], executors: list[list[dict[str, str]]]) -> str:
    """Says in a line which executor takes what, of each task and, where they differ, of each budget."""
    parts = []
    for task, by_budget in zip(tasks, executors, strict=True):
        rungs = []
        for names in by_budget:
            rungs.append(names["rows with a loop"])
            others = [kind for kind in names if names[kind] != names["rows with a loop"]]
            if others:
                rungs[-1] += f", {names[others[0]]} for {' and '.join(others)}"
        parts.append(f"{task.name} {' / '.join(rungs if len(set(rungs)) > 1 else rungs[:1])}")
    return "; ".join(parts)


def gather(num: int, num_tasks: int, status, keys, records) -> Evaluation:
    """Spreads records over the places that share them."""
    evaluation = Evaluation(
        score=np.zeros(num, np.float32),
        metrics=np.full((num, num_tasks), np.nan, np.float32),
        status=np.array(status, np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )
    for place, key in keys.items():
        for name, value in records[key]._asdict().items():
            getattr(evaluation, name)[place] = value
    return evaluation
