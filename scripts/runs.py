r"""Lists the run folders below a folder, or compares some of them: results, and what differs in the configs.

  python scripts/runs.py
  python scripts/runs.py --runs=runs/five --sort=best --csv=five.csv
  python scripts/runs.py --compare=small,wide

Status: running; finished (a limit of its config is reached, or its goal); stopped, so that calling
scripts/search.py again goes on with it; damaged, and why. --compare takes names as they are listed, or
folders, which stand for all searches in them. --json and --csv write what is shown, numbers as they are.
Folders of other scripts are named below the table. The same in a notebook:
elenas_jax.analysis.list_runs, select_runs and compare_runs.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text
from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis import compare_runs, list_runs, select_runs
from elenas_jax.analysis.comparison import comparison_table
from elenas_jax.analysis.runs import DAMAGED, SEARCH, SORTS, runs_table
from elenas_jax.analysis.tables import Table, to_text
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.run_dir import RunError, write_atomically, write_json

_RUNS = flags.DEFINE_string("runs", "runs", "Folder that is searched for run folders, to any depth.")
_SORT = flags.DEFINE_enum("sort", "date", list(SORTS), "Best score, newest or most evaluations first.")
_COMPARE = flags.DEFINE_list("compare", [], "Names of searches to compare, two at least.")
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file.")
_CSV = flags.DEFINE_string("csv", None, "Also write the rows to this file.")

_CELL = 50  # most characters in a line of a cell


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV; columns are all keys there are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def show(table: Table) -> None:
    """Prints a table of many columns: on a terminal long cells are folded, and none is cut."""
    if not table.rows or not sys.stdout.isatty():
        print(to_text(table))
        return
    drawn = rich.table.Table(
        title=table.title, title_justify="left", box=rich.box.SIMPLE, collapse_padding=True
    )
    for name in table.columns:
        justify = "right" if name in table.numeric else "left"
        drawn.add_column(name, justify=justify, max_width=_CELL, overflow="fold")
    for cells in table.rows:
        drawn.add_row(*(rich.text.Text(cell) for cell in cells))
    console = rich.console.Console()
    wide = console.options.update(max_width=_CELL * len(table.columns))
    console.width = max(console.width, console.measure(drawn, options=wide).maximum)
    console.print(drawn)


def show_runs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the searches, what is wrong with damaged folders, and what else there is."""
    searches = [row for row in rows if row["kind"] == SEARCH]
    show(runs_table(searches))
    for row in rows:
        if row["status"] == DAMAGED:
            print(f"damaged: {row['name']}: {row['problem']}")
    others = [f"{row['name']} ({row['kind']})" for row in rows if row["kind"] != SEARCH]
    if others:
        print(f"Folders of other kinds: {', '.join(others)}")


def main(_: list[str]) -> int | None:
    try:
        for flag in (_JSON, _CSV):
            if flag.value and not Path(flag.value).resolve().parent.is_dir():
                raise RunError(f"--{flag.name}={flag.value}: there is no such folder.")
        rows = list_runs(_RUNS.value, _SORT.value)
        if _COMPARE.value:
            rows = compare_runs(select_runs(rows, _COMPARE.value))
            show(comparison_table(rows))
        else:
            show_runs(rows)
        if _JSON.value:
            write_json(Path(_JSON.value), rows)
        if _CSV.value:
            write_atomically(Path(_CSV.value), to_csv(rows))
    except RunError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
