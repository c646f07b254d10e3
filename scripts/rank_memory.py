r"""Ranks blocks on the memory task, at several lengths and over several runs, beside the paper's figures.

  python scripts/rank_memory.py --blocks=lstm,elena1,elena2 --runs=10 --results=results/memory.json
  python scripts/rank_memory.py --blocks=lstm,found.json --lengths=20,40 --runs=2

A block is one of the known ones, or a JSON file with a graph, such as scripts/first_block.py writes. All
are trained by the evaluator of searches (width 64, linear head, batches of 32, Adam 1e-2) on fresh
samples of elenas_jax/tasks/memory.py; a run is a replicate of data and initial weights. The accuracy is
that on 20,000 samples which no training saw; what first_block.py --bar=memory found was chosen by those of
its own seed, so rank it with another --seed.

What was trained is kept in --run_dir and not trained again: killed or stopped, it goes on when called
again, also with more blocks, runs or lengths. --json writes every accuracy, --results the table for the
README (scripts/render_results.py).
"""

import shlex
import sys
import time
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.evaluation import parallel
from elenas_jax.experiment.blocks import described_blocks, read_blocks
from elenas_jax.experiment.flags import parse_flags, parse_lengths
from elenas_jax.experiment.kept import kept_trainings
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.ranking import MEMORY_STEPS, memory_config, rank, rows_of
from elenas_jax.experiment.run_dir import plain, write_json
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare, stopping
from elenas_jax.graphs import REASONS
from elenas_jax.types import OK, Evaluation, explain_status

_BLOCKS = flags.DEFINE_list("blocks", ["lstm", "elena1", "elena2"], "Known blocks, or JSON files.")
_LENGTHS = flags.DEFINE_list("lengths", ["20", "30", "40", "50", "60", "70", "80"], "Lengths of sequences.")
_RUNS = flags.DEFINE_integer("runs", 10, "Runs of each block at each length.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", MEMORY_STEPS, "Training steps of 32 samples.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all runs.", lower_bound=0, upper_bound=2**32 - 1)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/rank_memory", "Folder where trainings are kept.")
_JSON = flags.DEFINE_string("json", None, "Also write all accuracies to this file.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table as a result to this file.")
_PLANNED_RUNS = 10  # the paper's
_NOTE = (
    "Accuracy in percent on 20,000 samples that no training saw, of seed {seed}; mean ± "
    "standard deviation over runs, each with its own data and initial weights. Protocol of this project: 7 "
    "symbols and one distractor, width 64, linear head, {steps:,} steps of 32 fresh samples, Adam 1e-2, the "
    "same for all blocks; the rate was chosen among five settings of rate, batch and steps by single runs of "
    "the LSTM at length 20, of seed 1, so that it trains at all. Rows marked (paper) are those of Aichberger "
    "and Klambauer (2023), over ten runs; the paper does not state symbols, samples, epochs or rate, so they "
    "show the order of blocks, and digits are not to be compared."
)


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        blocks, lengths, num_runs = read_blocks(_BLOCKS.value), parse_lengths(_LENGTHS.value), _RUNS.value
        configs = [memory_config(length, steps=_STEPS.value, seed=_SEED.value) for length in lengths]
        prepare(configs[0], console)
        settings = {"seed": _SEED.value, "steps": _STEPS.value, "evaluator": configs[0]["evaluator"]}
        num_cells, names, started = num_runs * len(lengths), list(blocks), time.perf_counter()

        def show_cell(run: int, place: int, found: Evaluation) -> bool:
            done, gone = run * len(lengths) + place + 1, time.perf_counter() - started
            said = ", ".join(f"{n} {100 * a:.1f}" for n, a in zip(names, found.metrics[:, 0], strict=True))
            left = f"about {duration(gone / done * (num_cells - done))} left"
            console.print(
                f"run {run + 1}/{num_runs}, length {lengths[place]}: {said} | {left}", soft_wrap=True
            )
            return not stop_requested()

        def stop_asked() -> None:
            console.print("stopping after the trainings in flight; Ctrl-C again to stop at once")

        with (
            kept_trainings(Path(_RUN_DIR.value), settings, ("evaluator.num_devices",), ["memory"]) as cache,
            stopping(stop_asked) as stop_requested,
        ):
            ranking = rank(blocks, configs, num_runs, cache, show_cell)
        there = len(ranking.accuracy)
        columns, rows = ["block", "parameters", *map(str, lengths)], rows_of(ranking, names, lengths)
        title = f"Memory task, accuracy in percent by length; {there} of {num_runs} runs"
        note = _NOTE.format(steps=_STEPS.value, seed=_SEED.value)
        table = Table(title=title, caption=note, caption_justify="left")
        for column in columns:
            table.add_column(column, justify="left" if column == "block" else "right")
        for row in rows:
            table.add_row(*("-" if cell is None else str(cell) for cell in row))
        console.print(table)
        for place, name in enumerate(names):
            for length, status in zip(lengths, ranking.status[place], strict=True):
                if status != OK:
                    console.print(f"{name} at length {length}: {explain_status(int(status), REASONS)}")
        config = settings | {"lengths": lengths, "blocks": described_blocks(blocks)}
        if _JSON.value:
            accuracy = {
                name: {str(length): ranking.accuracy[:, b, k] for k, length in enumerate(lengths)}
                for b, name in enumerate(names)
            }
            parameters = dict(zip(names, ranking.parameters.tolist(), strict=True))
            write_json(Path(_JSON.value), {"config": config, "parameters": parameters, "accuracy": accuracy})
        if _RESULTS.value and there:
            result = make_result(
                title="Memory task: accuracy in percent by length",
                columns=columns,
                rows=rows,
                note=note,
                cores=parallel.usable_cores(),
                devices=parallel.describe_devices(parallel.count_devices()),
                seeds={"there": there, "planned": max(_PLANNED_RUNS, num_runs)},
                config=plain(config),
            )
            write_result(Path(_RESULTS.value), result)
        if there < num_runs:
            command = shlex.join([Path(sys.executable).name, *sys.argv])
            console.print(f"Stopped; what was trained is kept. To go on: {command}", soft_wrap=True)
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
