"""`elenas_jax.evaluate`: graphs in, records for a data frame out."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.population import evaluate_seeds, make_population_evaluator
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.graphs import KNOWN_BLOCKS, REASONS, ComputationGraph, canonical_hash
from elenas_jax.tasks import make_sequence_task
from elenas_jax.types import OK, Task, explain_status


def evaluate(
    graphs: Sequence[ComputationGraph | str] | ComputationGraph,
    task: str | Task = "reber",
    steps: int = 625,
    seeds: int = 3,
    *,
    head: str = "linear",
    hidden_features: int = 64,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    num_devices: int = 0,
) -> list[dict[str, Any]]:
    """Trains graphs side by side and returns a record each, ready for a data frame.

    Args:
      graphs: a list of graphs or names of known blocks, one graph, or a batch of graphs.
      task: a task, or its name.
      steps: training steps of `batch_size` examples.
      seeds: replicates, each with its own data and weights.
      head, hidden_features: as of `construct`.
      batch_size, learning_rate: of Adam.
      seed: of the run, from which all keys follow.
      num_devices: local devices to use, 0 for all.

    Returns:
      Dicts in the order of `graphs`: name (of a known block, else ""), hash, status (in words), score,
      metric (means over seeds), metric_std, metrics (one a seed), parameters, flops (forward, an
      example), steps. A graph that is invalid or fails has NaN for what is missing.

    Raises:
      ValueError: for no graphs, an unknown name, or a number out of range.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1.")
    names, listed = _list_graphs(graphs)
    parallel.configure_devices(num_devices)
    task = make_sequence_task(task) if isinstance(task, str) else task
    evaluator = make_population_evaluator(
        [task],
        run_key=jax.random.key(seed),
        steps=[steps],
        head=head,
        hidden_features=hidden_features,
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_devices=num_devices,
    )
    batch = ComputationGraph(stack_graphs(listed))
    found = evaluate_seeds(evaluator, batch, range(seeds))
    records = []
    for place, graph in enumerate(listed):
        statuses = found.status[:, place].tolist()
        # The first thing that went wrong with any seed, or ok.
        status = next((each for each in statuses if each != OK), OK)
        metrics = [float(metric) for metric in found.metrics[:, place, 0]]
        records.append(
            {
                "name": names[place],
                "hash": canonical_hash(graph, head),
                "status": explain_status(status, REASONS),
                "score": float(np.mean(found.score[:, place])),
                "metric": float(np.mean(metrics)),
                "metric_std": float(np.std(metrics)),
                "metrics": metrics,
                "parameters": int(found.parameters[0, place]),
                "flops": float(found.flops[0, place]),
                "steps": int(found.train_steps[0, place]),
            }
        )
    return records


def _list_graphs(graphs) -> tuple[list[str], list[ComputationGraph]]:
    if isinstance(graphs, ComputationGraph):
        edges = np.asarray(graphs.edges)
        graphs = [graphs] if edges.ndim == 2 else [ComputationGraph(one) for one in edges]
    elif isinstance(graphs, str):
        graphs = [graphs]
    if not graphs:
        raise ValueError("There are no graphs to evaluate.")
    names, listed = [], []
    for graph in graphs:
        if isinstance(graph, str):
            if graph not in KNOWN_BLOCKS:
                raise ValueError(f"Unknown block {graph!r}; known are {', '.join(KNOWN_BLOCKS)}.")
            names.append(graph)
            listed.append(KNOWN_BLOCKS[graph])
        else:
            names.append("")
            listed.append(graph)
    return names, listed
