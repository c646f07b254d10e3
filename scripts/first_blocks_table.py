r"""Puts searches for a first block over a bar into tables: when each found it, and LSTM-class blocks.

  python scripts/first_blocks_table.py
  python scripts/first_blocks_table.py --results=results/first_blocks.json \
      --class_results=results/lstm_class.json

Reads the run folders that scripts/first_block.py writes, finished or not; needs no computation. To be called
on the machine that searched, whose processor the results name.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from rich.console import Console
from rich.table import Table

from elenas_jax.analysis.first_blocks import class_table, load_searches, searches_table
from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.evaluation import parallel
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.session import one_line_errors

_RUNS = flags.DEFINE_string("runs", "runs/first_block", "Folder of run folders named BAR_SEED.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")
_CLASS = flags.DEFINE_string("class_results", None, "The same of the table of LSTM-class blocks.")

_NOTE = """From nothing, no pre-training. Each is `python scripts/first_block.py --bar=BAR --seed=SEED`;
seconds are all there are, compiling and trainings of further seeds and of the LSTM included.
Bars: thresholds of Aichberger and Klambauer (2023), with and without a linear head; the LSTM on
near misses, less 0.01, at half its parameters. "None in" is of a search that has found nothing
in that time, whether it has ended or not."""
_CLASS_NOTE = "Near misses, mean ± standard deviation over the same ten seeds of data and weights."


def show(
    title: str, columns: list[str], rows: list[list[Any]], note: str, to: str | None, console: Console
) -> None:
    """Prints a table, and writes it where `to` says so."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console.print(table)
    if to:
        result = make_result(
            title=title,
            columns=columns,
            rows=rows,
            note=note,
            cores=parallel.usable_cores(),
            devices=parallel.describe_devices(1),
        )
        write_result(Path(to), result)


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        searches = load_searches(Path(_RUNS.value))
        show("First block over a bar", *searches_table(searches), _NOTE, _RESULTS.value, console)
        if _CLASS.value or any(one.found and one.reference for one in searches):
            columns, rows, equations = class_table(searches)
            show("LSTM-class blocks", columns, rows, f"{_CLASS_NOTE} {equations}", _CLASS.value, console)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
