"""Blocks on the memory task, several runs at several lengths, beside the figures of the paper.

Aichberger and Klambauer (2023) give lengths and runs, no number of symbols, samples or steps. The task
is that of `tasks/memory.py`. Rate and steps are this project's, the same for every block, and were chosen
so that the LSTM trains at all at length 20. Single runs of it, seed 1, at rate, batch and steps: 1e-3, 32
and 6,250 at chance for 4,000 steps, then 28% right; 3e-3, 32 and 3,000 at chance; 3e-3, 128 and 1,562 at
chance; 1e-2, 128 and 1,562 72%; 1e-2, 32 and 2,000, taken here, 100%. A table should use another seed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.evaluation.cache import Cache
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.experiment.build import build_evaluator, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.graphs import ComputationGraph
from elenas_jax.types import Evaluation

LEARNING_RATE = 1e-2
MEMORY_STEPS = 2000
# Test accuracy in percent over ten runs: Aichberger and Klambauer (2023), the memory task.
PAPER_LENGTHS = (20, 30, 40, 50, 60, 70, 80)
PAPER = {
    "LSTM": "73.1 ± 20.2, 49.2 ± 25.4, 24.1 ± 11.4, 20.1 ± 6.6, 26.8 ± 24.0, 24.2 ± 26.9, 40.6 ± 40.2",
    "ELENA1": "57.1 ± 1.0, 57.1 ± 0.5, 56.9 ± 0.7, 57.2 ± 0.9, 56.9 ± 0.9, 57.0 ± 0.7, 56.7 ± 2.2",
    "ELENA2": "99.8 ± 0.1, 98.8 ± 0.4, 96.3 ± 1.0, 90.6 ± 3.4, 89.4 ± 3.1, 83.1 ± 4.2, 74.0 ± 7.2",
}


def paper_means(block: str) -> dict[int, float]:
    """Returns the paper's means for one of its blocks, in percent by length."""
    return {
        length: float(text.split()[0])
        for length, text in zip(PAPER_LENGTHS, PAPER[block].split(", "), strict=True)
    }


class Ranking(NamedTuple):
    """R runs of B blocks at L lengths."""

    accuracy: np.ndarray  # [R, B, L], NaN where a training failed or the graph is invalid
    status: np.ndarray  # [B, L] int32, the largest over the runs: ok where all were
    parameters: np.ndarray  # [B] int32


def memory_config(length: int, *, steps: int, seed: int) -> dict[str, Any]:
    """Returns the resolved config of a training at one length.

    Raises:
      ConfigError: for a length or a number of steps out of range.
    """
    task = {"length": length, "steps": steps}
    return check_config(
        {
            "seed": seed,
            "ladder": ("memory",),
            "tasks": {"memory": task},
            "evaluator": {"learning_rate": LEARNING_RATE},
        }
    )


def rank(
    blocks: Mapping[str, ComputationGraph],
    configs: Sequence[Mapping[str, Any]],
    num_runs: int,
    cache: Cache,
    on_cell: Callable[[int, int, Evaluation], bool],
) -> Ranking:
    """Trains every block at every length, run after run; replicates of data and weights are the runs.

    Args:
      blocks: by name.
      configs: one a length, see `memory_config`.
      num_runs: most runs.
      cache: of trainings, asked first.
      on_cell: told the run, the place of the length and what came out; False stops.

    Returns:
      The runs that are whole.
    """
    graphs = ComputationGraph(stack_graphs(list(blocks.values())))
    runs: list[list[Evaluation]] = []
    for run in range(num_runs):
        found: list[Evaluation] = []
        for place, config in enumerate(configs):
            # One evaluator a time: each keeps the data of its task.
            evaluator = build_evaluator(config, build_tasks(config), cache)
            found.append(evaluator.evaluate(graphs, 0, replicate=run))
            if not on_cell(run, place, found[-1]):
                break
        if len(found) < len(configs):
            break
        runs.append(found)
    shape = (len(runs), len(configs), len(blocks))
    accuracy = np.array([[one.metrics[:, 0] for one in found] for found in runs]).reshape(shape)
    status = np.array([[one.status for one in found] for found in runs], np.int32).reshape(shape)
    parameters = runs[0][0].parameters if runs else np.zeros(len(blocks), np.int32)
    return Ranking(
        np.swapaxes(accuracy, 1, 2), status.max(axis=0, initial=0).T, np.asarray(parameters, np.int32)
    )


def rows_of(ranking: Ranking, names: Sequence[str], lengths: Sequence[int]) -> list[list[Any]]:
    """Returns rows of a table: name, parameters, a cell a length; then the paper's, which say so.

    Blocks stand in the order of their mean over runs and lengths.
    """
    means = np.nan_to_num(ranking.accuracy).mean(axis=(0, 2))
    rows: list[list[Any]] = []
    for block in np.argsort(-means, kind="stable"):
        cells = [percent(ranking.accuracy[:, block, place]) for place in range(len(lengths))]
        rows.append([names[block], int(ranking.parameters[block]) or None, *cells])
    for name, text in PAPER.items():
        by_length = dict(zip(PAPER_LENGTHS, text.split(", "), strict=True))
        rows.append([f"{name} (paper)", None, *(by_length.get(length) for length in lengths)])
    return rows


def percent(values: np.ndarray) -> str:
    """Returns mean ± standard deviation of `[R]` accuracies in percent; says how many runs failed."""
    values = np.asarray(values, np.float64)
    failed = int(np.isnan(values).sum())
    if failed:
        return f"failed {failed}/{len(values)}"
    mean, spread = 100 * values.mean(), 100 * values.std()
    return f"{mean:.1f} ± {spread:.1f}" if len(values) > 1 else f"{mean:.1f}"
