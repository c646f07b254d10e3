"""Tables of a run: its summary, its best blocks, why candidates were invalid or failed.

A `Table` is text in rows; `to_text`, `to_html` and `show` render it.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import rich.console
import rich.table
import rich.text

from elenas_jax.analysis.load import Run

HASH_LENGTH = 8  # shown of a hash; enough to find the row in the archive


class Table(NamedTuple):
    """Cells are text; columns whose name is in `numeric` are right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: frozenset[str] = frozenset()


def best_blocks(runs: Sequence[Run], num: int = 10) -> list[dict]:
    """Returns the best blocks over all runs as records: rank, seed, hash, score, text, drawing, ..."""
    tagged = [(run, record) for run in runs for record in run.best]
    tagged.sort(key=lambda pair: -pair[1]["score"])  # stable: equal scores by seed, then first met
    blocks = []
    for rank, (run, record) in enumerate(tagged[:num], start=1):
        stored = run.blocks.get(record["hash"], {"text": None, "drawing": None})
        blocks.append({"rank": rank, "seed": run.seed, **record, **stored})
    return blocks


def best_blocks_table(runs: Sequence[Run], num: int = 10) -> Table:
    """Best blocks with score, metric per task and size; equations are apart, they take lines."""
    tasks = task_names(runs)
    several = len(runs) > 1
    columns = [
        "rank",
        *(["seed"] if several else []),
        "hash",
        "score",
        *tasks,
        "parameters",
        "flops",
        "generation",
    ]
    rows = []
    for block in best_blocks(runs, num):
        cells = [str(block["rank"]), *([str(block["seed"])] if several else [])]
        cells += [block["hash"][:HASH_LENGTH], number(block["score"])]
        cells += [number(block["metrics"].get(task), 3) for task in tasks]
        cells += [count(block["parameters"]), count(block["flops"]), str(block["generation"])]
        rows.append(tuple(cells))
    return Table("Best blocks", tuple(columns), rows, frozenset(columns) - {"hash"})


def count_statuses(runs: Sequence[Run]) -> list[dict]:
    """Returns how often each status occurred: status, status_text, count, share; by status."""
    counts: dict[tuple[int, str], int] = {}
    for run in runs:
        for row in run.statuses:
            key = (row["status"], row["status_text"])
            counts[key] = counts.get(key, 0) + row["count"]
    total = sum(counts.values())
    return [
        {"status": status, "status_text": text, "count": num, "share": num / total}
        for (status, text), num in sorted(counts.items())
    ]


def reasons_table(runs: Sequence[Run]) -> Table:
    """What became of the candidates: valid, invalid by reason, failed by kind."""
    records = count_statuses(runs)
    rows = []
    for label, of in (
        ("valid", [row for row in records if row["status"] == 0]),
        ("invalid", [row for row in records if 0 < row["status"] < 100]),
        ("failed", [row for row in records if row["status"] >= 100]),
    ):
        for row in sorted(of, key=lambda row: -row["count"]):
            text = row["status_text"].removeprefix("invalid: ")
            rows.append(
                (label, "" if label == "valid" else text, count(row["count"]), f"{100 * row['share']:.2f}")
            )
    return Table(
        "What became of the candidates", ("kind", "reason", "count", "%"), rows, frozenset(("count", "%"))
    )


def summary_table(runs: Sequence[Run]) -> Table:
    """One line per run: how far it came and what it found."""
    columns = (
        "seed",
        "generations",
        "draws",
        "valid",
        "valid %",
        "evaluations",
        "different valid",
        "best score",
        "time",
    )
    rows = []
    for run in runs:
        draws = sum(row["proposals"] for row in run.scores)
        valid = sum(row["valid"] for row in run.scores)
        rows.append(
            (
                "-" if run.seed is None else str(run.seed),
                count(len(run.scores)),
                count(draws),
                count(valid),
                f"{100 * valid / draws:.1f}" if draws else "-",
                count(len(run.evaluation_scores)),
                count(run.num_valid_blocks),
                number(run.best[0]["score"]) if run.best else "-",
                duration(seconds(run)),
            )
        )
    return Table("Runs", columns, rows, frozenset(columns))


def task_names(runs: Sequence[Run]) -> list[str]:
    """Returns the tasks of all runs, each once."""
    return list(dict.fromkeys(itertools.chain.from_iterable(run.task_names for run in runs)))


# Cells ----------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def seconds(run: Run) -> float:
    """Returns the time all generations of a run took, from its metrics."""
    return sum(row.get("seconds") or 0.0 for row in run.generations)


def duration(total: float) -> str:
    """Returns seconds as a person reads them: 41 s, 3 min 20 s, 2 h 05 min."""
    whole = round(total)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# Rendering ------------------------------------------------------------------------------------


def to_text(table: Table) -> str:
    """Returns the table as aligned plain lines."""
    if not table.rows:
        return f"{table.title}: none"
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]

    def row(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if name in table.numeric else cell.ljust(width)
            for name, cell, width in zip(table.columns, cells, widths)
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join(
        [table.title, row(table.columns), "  ".join("-" * width for width in widths), *map(row, table.rows)]
    )


def to_html(table: Table) -> str:
    """Returns the table as an HTML element, without its title."""
    if not table.rows:
        return '<p class="none">None.</p>'

    def row(cells: Sequence[str], tag: str) -> str:
        marked = (
            f'<{tag} class="number">{escape(cell)}</{tag}>'
            if name in table.numeric
            else f"<{tag}>{escape(cell)}</{tag}>"
            for name, cell in zip(table.columns, cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f"<table>\n<thead>{row(table.columns, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def show(table: Table) -> None:
    """Prints the table: with rich on a terminal, as plain lines elsewhere."""
    if not table.rows or not sys.stdout.isatty():
        print(to_text(table))
        return
    drawn = rich.table.Table(title=table.title, title_justify="left")
    for name in table.columns:
        drawn.add_column(name, justify="right" if name in table.numeric else "left")
    for cells in table.rows:
        drawn.add_row(*(rich.text.Text(cell) for cell in cells))
    rich.console.Console().print(drawn)
