r"""A whole search in a few minutes, and what came of it beside known blocks.

  make quickstart
  python scripts/quickstart.py --run_dir=runs/again

Searches with REINFORCE for three minutes (configs/elenas/quickstart.py), then trains Elman, LSTM and
ELENA2 with the same code on the same tasks for as many steps. Interrupted, it goes on when called again.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from configs.elenas import quickstart
from elenas_jax.analysis import write_report
from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.experiment.archive import best_block
from elenas_jax.experiment.build import build_evaluator, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare, run
from elenas_jax.graphs import KNOWN_BLOCKS, REASONS, ComputationGraph, equations, pad_graph
from elenas_jax.types import OK, explain_status

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/quickstart", "Folder of the run; made if need be.")
_BESIDE = ("elman", "lstm", "elena2")


def train_known_blocks(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains the blocks of `_BESIDE` as the search trained its candidates; returns rows of the table."""
    evaluator = build_evaluator(config, build_tasks(config), MemoryCache())
    num_nodes = max(KNOWN_BLOCKS[name].num_nodes for name in _BESIDE)
    graphs = ComputationGraph(np.stack([pad_graph(KNOWN_BLOCKS[name], num_nodes).edges for name in _BESIDE]))
    found = evaluator.evaluate(graphs, np.zeros(len(_BESIDE), np.int32))
    return [
        {
            "name": name,
            "parameters": int(found.parameters[place]),
            "metrics": dict(zip(evaluator.task_names, found.metrics[place].tolist(), strict=True)),
            "score": float(found.score[place]),
            "status": int(found.status[place]),
        }
        for place, name in enumerate(_BESIDE)
    ]


def show(console: Console, found: dict[str, Any] | None, config: dict[str, Any]) -> None:
    """Prints the best found block beside the known ones."""
    rows = train_known_blocks(config)
    if found:
        metrics = {
            name: np.nan if value is None else value for name, value in json.loads(found["metrics"]).items()
        }
        rows.insert(0, {**found, "name": "found", "metrics": metrics})
    table = Table(title="Best found block beside known blocks, each trained once with the same budget")
    for name in ("block", "equations"):
        table.add_column(name, overflow="fold")
    for name in ("parameters", *config["ladder"], "score"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        text = (
            row["text"]
            if "text" in row
            else equations(KNOWN_BLOCKS[row["name"]], config["evaluator"]["head"])
        )
        accuracies = ["-" if np.isnan(value) else f"{value:.3f}" for value in row["metrics"].values()]
        score = f"{row['score']:.4f}" if row["status"] == OK else explain_status(row["status"], REASONS)
        table.add_row(row["name"], text, f"{row['parameters']:,}", *accuracies, score, end_section=True)
    console.print(table)
    console.print("Columns of tasks: accuracy on validation data; '-' where an easier task was missed.")
    console.print("The found block is the best of all that were trained, chosen on this validation data.")


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        config = check_config(quickstart.get_config())
        prepare(config, console)
        if not run(config, _RUN_DIR.value, console=console).why:
            sys.exit(INTERRUPTED)
        console.print("Training known blocks for comparison.")
        show(console, best_block(_RUN_DIR.value), config)
        console.print(f"Report: {write_report(_RUN_DIR.value)}", soft_wrap=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
