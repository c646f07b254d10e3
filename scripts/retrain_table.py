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
from result_table import show_result
from rich.console import Console

from elenas_jax.analysis.retraining import load_results, results_note, results_table
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.session import one_line_errors

_RUNS = flags.DEFINE_string("runs", "runs/retrain", "Folder of run folders of scripts/retrain.py.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        results = load_results(Path(_RUNS.value))
        columns, rows = results_table(results)
        show_result(
            console,
            title=f"Blocks retrained on {', '.join(sorted({each['task']['name'] for each in results}))}",
            columns=columns,
            rows=rows,
            note=results_note(results),
            to=_RESULTS.value,
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
