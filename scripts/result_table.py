"""What scripts that end with a table do with it: print it, and write it where they are asked to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.evaluation import parallel


def show_result(
    console: Console,
    *,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    note: str,
    to: str | None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Prints a table, "-" for what is missing, and writes it where `to` says so.

    Args:
      console: to print to.
      title, columns, rows, note, config: see `analysis.results.Result`.
      to: a file in the form of results/, or None.

    Raises:
      RunError: if the file cannot be written.
    """
    table = Table(title=title, caption=note, caption_justify="left")
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
            config=config,
        )
        write_result(Path(to), result)
