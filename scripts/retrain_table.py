r"""Puts retrained blocks into a table: parameters, validation and test metric, mean and spread over seeds.

  python scripts/retrain_table.py --runs=runs/retrain
  python scripts/retrain_table.py --runs=runs/retrain --results=results/retraining.json

Reads finished run folders of scripts/retrain.py below --runs; needs no computation. To be called on the
machine that trained, whose processor the results name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from rich.console import Console
from rich.table import Table

from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.analysis.retraining import load_results, results_note, results_table
from elenas_jax.evaluation import parallel
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.session import one_line_errors

_RUNS = flags.DEFINE_string("runs", "runs/retrain", "Folder of run folders of scripts/retrain.py.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")
_TITLE = "Blocks retrained on real data"


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        results = load_results(Path(_RUNS.value))
        columns, rows = results_table(results)
        note = results_note(results)
        table = Table(title=_TITLE, caption=note, caption_justify="left")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*map(str, row))
        console.print(table)
        if _RESULTS.value:
            result = make_result(
                title=_TITLE,
                columns=columns,
                rows=rows,
                note=note,
                cores=parallel.usable_cores(),
                devices=parallel.describe_devices(1),
            )
            write_result(Path(_RESULTS.value), result)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
