r"""Lists run folders below a folder, or compares searches: results, and what differs in the configs.

  python scripts/runs.py
  python scripts/runs.py --runs=runs/five --sort=best --csv=five.csv
  python scripts/runs.py --compare=small,wide

Searches stand in one table, blocks of scripts/retrain.py in another; folders of other scripts are named
below. Status: running; finished (a limit of its config is reached, or its goal; or all seeds are tested);
stopped, so that calling its script again goes on with it; damaged, and why. --compare takes names as they
are listed, or paths; a folder stands for all searches in it. --json and --csv write a row per folder,
whose "kind" is search, retrain or another, numbers as they are; with --compare a row per search.
The same in a notebook: elenas_jax.analysis.list_runs, select_runs and compare_runs.
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
from elenas_jax.analysis.retrained import retrained_table
from elenas_jax.analysis.runs import DAMAGED, RETRAIN, SEARCH, SORTS, runs_table
from elenas_jax.analysis.tables import Table, to_text
from elenas_jax.experiment.flags import check_writable, parse_flags, print_any_name
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError, write_atomically, write_json

_RUNS = flags.DEFINE_string("runs", "runs", "Folder that is searched for run folders, to any depth.")
_SORT = flags.DEFINE_enum("sort", "date", list(SORTS), "Best score, newest or most evaluations first.")
_COMPARE = flags.DEFINE_list("compare", [], "Names or paths of searches to compare, two at least.")
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file: a list of objects.")
_CSV = flags.DEFINE_string("csv", None, "Also write the rows to this file: a column per key.")

_CELL = 50  # most characters in a line of a cell


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV; columns are all keys there are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="replace").decode()  # names may hold bytes that are no text


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
    """Prints the searches, retrained blocks, what is wrong with damaged folders, and what else there is."""
    searches, retrained = ([row for row in rows if row["kind"] == kind] for kind in (SEARCH, RETRAIN))
    show(runs_table(searches))
    if retrained:
        print()
        show(retrained_table(retrained))
    for row in rows:
        if row["status"] == DAMAGED:
            print(f"damaged: {row['name']}: {row['problem']}")
    others = [f"{row['name']} ({row['kind']})" for row in rows if row["kind"] not in (SEARCH, RETRAIN)]
    if others:
        print(f"Folders of other kinds: {', '.join(others)}")


def main(_: list[str]) -> int | None:
    print_any_name()
    try:
        for flag in (_JSON, _CSV):
            check_writable(flag.name, flag.value)
        rows = list_runs(_RUNS.value, _SORT.value)
        if _COMPARE.value:
            rows = compare_runs(select_runs(rows, _COMPARE.value))
            show(comparison_table(rows))
        else:
            show_runs(rows)
        if _JSON.value is not None:
            write_json(Path(_JSON.value), rows)
        if _CSV.value is not None:
            write_atomically(Path(_CSV.value), to_csv(rows))
    except (ConfigError, RunError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
