r"""Trains blocks on the search's own tasks at length 32 and measures them on longer sequences.

  python scripts/longer_sequences.py --blocks=lstm,elena2 --runs=3 --results=results/longer_sequences.json
  python scripts/longer_sequences.py --blocks=found.json --tasks=adding --lengths=32,64 --runs=1

A block is one of the known ones, or a JSON file with a graph, such as scripts/first_block.py writes. It is
trained once a run (near misses, one epoch of the paper's samples unless --steps says otherwise, width 64,
linear head, batches of 32, Adam 1e-3) and measured on test data of every length. Length 32 is the task as
it was trained on; longer strings of the grammars all have as many symbols as the length says.

What was trained is kept in --run_dir and not trained again: killed or stopped, it goes on when called
again, also with more blocks, tasks or runs.
"""

import shlex
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Record
from elenas_jax.experiment.blocks import described_blocks, read_blocks
from elenas_jax.experiment.build import build_sequence_tasks, training_steps
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, parse_lengths
from elenas_jax.experiment.kept import kept_trainings
from elenas_jax.experiment.longer import LongerTrial, Setting, longer_tasks, measure_all
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.ranking import percent
from elenas_jax.experiment.run_dir import plain
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare, stopping
from elenas_jax.graphs import REASONS
from elenas_jax.types import OK, explain_status

_BLOCKS = flags.DEFINE_list("blocks", ["lstm", "elena1", "elena2"], "Known blocks, or JSON files.")
_TASKS = flags.DEFINE_list("tasks", ["reber", "embedded_reber", "adding"], "Tasks of the search.")
_LENGTHS = flags.DEFINE_list(
    "lengths", ["32", "64", "128"], "Lengths to measure on; the first is trained on."
)
_RUNS = flags.DEFINE_integer("runs", 3, "Runs of each block on each task.", lower_bound=1)
_STEPS = flags.DEFINE_integer(
    "steps", None, "Training steps of 32 samples; one epoch by default.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of all runs.", lower_bound=0, upper_bound=2**32 - 1)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/longer_sequences", "Folder where trainings are kept.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table as a result to this file.")
_PLANNED_RUNS = 3
_NOTE = (
    "Accuracy in percent on test data by the length of sequences, after training at length {first} alone; "
    "mean ± standard deviation over runs, each with its own data and initial weights; '-' where the trained "
    "network has parameters of another shape at that length. Near misses; width 64, linear head, {steps}, "
    "batches of 32, Adam 1e-3. At length {first} the grammars' strings are those of training, of at most "
    "{first} symbols and mostly far shorter; longer ones have as many symbols as the length says."
)


def resolve(tasks: list[str], length: int) -> dict:
    """Returns the config of the trainings."""
    grammars = ("reber", "embedded_reber")
    sections = {
        name: {"length": length, "steps": _STEPS.value}
        | ({"negatives": "near_miss"} if name in grammars else {})
        for name in tasks
    }
    return check_config({"seed": _SEED.value, "ladder": tuple(tasks), "tasks": sections})


def make_trials(blocks: dict, config: dict, lengths: list[int]) -> dict[tuple[str, str], LongerTrial]:
    """Returns what is to be trained, by block and task."""
    tasks, settings = build_sequence_tasks(config), config["evaluator"]
    steps = training_steps(config, tasks)
    return {
        (name, task.name): LongerTrial(
            graph,
            task,
            longer_tasks(task, lengths),
            Setting(
                jax.random.key(config["seed"]),
                count,
                settings["head"],
                settings["hidden_features"],
                settings["batch_size"],
                settings["learning_rate"],
            ),
        )
        for name, graph in blocks.items()
        for task, count in zip(tasks, steps, strict=True)
    }


def rows_of(trials: dict, found: dict[tuple[int, int], Record], num_lengths: int, console: Console) -> list:
    """Returns rows of the table, and says which blocks failed."""
    rows = []
    for place, (block, task) in enumerate(trials):
        records = [found[key] for key in sorted(found) if key[0] == place]
        bad = next((record.status for record in records if record.status != OK), OK)
        if bad != OK:
            console.print(f"{block} on {task}: {explain_status(bad, REASONS)}")
        values = np.array([record.metrics for record in records]).reshape(len(records), num_lengths)
        # A length that the network does not fit is missing in all runs, and no failure.
        cells = [
            None if not len(column) or (bad == OK and np.isnan(column).all()) else percent(column)
            for column in values.T
        ]
        rows.append([block, task, records[0].parameters if records else None, *cells])
    return rows


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        blocks, lengths = read_blocks(_BLOCKS.value), parse_lengths(_LENGTHS.value)
        num_runs = _RUNS.value
        config = resolve(_TASKS.value, lengths[0])
        prepare(config, console)
        trials = make_trials(blocks, config, lengths)
        names, started, total = list(trials), time.perf_counter(), len(trials) * num_runs
        ended: list[int] = []

        def show_training(place: int, run: int, record: Record) -> bool:
            ended.append(place)
            gone = time.perf_counter() - started
            block, task = names[place]
            said = ", ".join(f"{n}: {100 * a:.1f}" for n, a in zip(lengths, record.metrics, strict=True))
            console.print(
                f"{block} on {task}, run {run + 1}/{num_runs}: {said} | "
                f"{len(ended)} of at most {total} trainings, {duration(gone)}",
                soft_wrap=True,
            )
            return not stop_requested()

        def stop_asked() -> None:
            console.print("stopping after the trainings in flight; Ctrl-C again to stop at once")

        kept = {"seed": config["seed"], "evaluator": config["evaluator"]}
        devices = parallel.count_devices()
        with (
            kept_trainings(Path(_RUN_DIR.value), kept, ("evaluator.num_devices",), ["accuracies"]) as cache,
            stopping(stop_asked) as stop_requested,
        ):
            found = measure_all(list(trials.values()), num_runs, devices, cache, show_training)
        there = min(sum(key[0] == place for key in found) for place in range(len(trials)))
        columns = ["block", "task", "parameters", *map(str, lengths)]
        rows = rows_of(trials, found, len(lengths), console)
        steps = f"{_STEPS.value:,} steps" if _STEPS.value else "one epoch of the paper's numbers of samples"
        note = _NOTE.format(first=lengths[0], steps=steps)
        table = Table(
            title=f"Longer sequences; {there} of {num_runs} runs", caption=note, caption_justify="left"
        )
        for column in columns:
            table.add_column(column, justify="left" if column in ("block", "task") else "right")
        for row in rows:
            table.add_row(*("-" if cell is None else str(cell) for cell in row))
        console.print(table)
        if _RESULTS.value and there:
            result = make_result(
                title=f"Longer sequences than those trained on (length {lengths[0]})",
                columns=columns,
                rows=rows,
                note=note,
                cores=parallel.usable_cores(),
                devices=parallel.describe_devices(devices),
                seeds={"there": there, "planned": max(_PLANNED_RUNS, num_runs)},
                config=plain(
                    kept | {"tasks": config["tasks"], "lengths": lengths, "blocks": described_blocks(blocks)}
                ),
            )
            write_result(Path(_RESULTS.value), result)
        if there < num_runs:
            command = shlex.join([Path(sys.executable).name, *sys.argv])
            console.print(f"Stopped; what was trained is kept. To go on: {command}", soft_wrap=True)
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
