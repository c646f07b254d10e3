r"""Puts searches for a first block over a bar into tables: when each found it, and LSTM-class blocks.

  python scripts/first_blocks_table.py
  python scripts/first_blocks_table.py --results=results/first_blocks.json \
      --class_results=results/lstm_class.json --memory_results=results/better_than_lstm.json

Reads the run folders that scripts/first_block.py writes, finished or not; needs no computation. To be called
on the machine that searched, whose processor the results name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from result_table import show_result
from rich.console import Console

from elenas_jax.analysis.first_blocks import class_table, load_searches, searches_table
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.session import one_line_errors

_RUNS = flags.DEFINE_string("runs", "runs/first_block", "Folder of run folders named BAR_SEED.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")
_CLASS = {
    "lstm": flags.DEFINE_string("class_results", None, "The same of the table of LSTM-class blocks."),
    "memory": flags.DEFINE_string("memory_results", None, "The same of blocks over the bar of memory."),
}
_CLASS_TITLES = {
    "lstm": "LSTM-class blocks",
    "memory": "Blocks over the bar of memory, beside the LSTM",
}

_NOTE = """From nothing, no pre-training. Each is `python scripts/first_block.py --bar=BAR --seed=SEED`;
seconds are all there are, compiling and trainings of further seeds and of the LSTM included.
Bars: thresholds of Aichberger and Klambauer (2023), with and without a linear head; the LSTM on
near misses, less 0.01, at half its parameters; the LSTM on near misses and, beside the paper's
ELENA2, on memory, at a quarter. "None in" is of a search that has found nothing
in that time, whether it has ended or not. Each row has the commit of its search."""
_CLASS_NOTES = {
    "lstm": "Near misses, mean ± standard deviation over the same ten seeds of data and weights, "
    "by which the block was chosen.",
    "memory": """Near misses, and accuracy on the memory task by length, mean ± standard deviation over the
same ten seeds of data and weights, by which the block was chosen; parameters are those on near misses.""",
}


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        searches = load_searches(Path(_RUNS.value))
        columns, rows = searches_table(searches)
        recipes = {one.bar: one.recipe for one in searches}
        show_result(
            console,
            title="First block over a bar",
            columns=columns,
            rows=rows,
            note=_NOTE,
            to=_RESULTS.value,
            config=recipes,
        )
        for bar, to in _CLASS.items():
            if to.value or any(one.bar == bar and one.found and one.reference for one in searches):
                columns, rows, equations = class_table(searches, bar)
                note = f"{_CLASS_NOTES[bar]} {equations}"
                show_result(
                    console,
                    title=_CLASS_TITLES[bar],
                    columns=columns,
                    rows=rows,
                    note=note,
                    to=to.value,
                    config=recipes[bar],
                )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
