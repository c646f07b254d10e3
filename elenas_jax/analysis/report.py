"""The report of a run: figures, drawn best blocks and one HTML file that needs nothing else.

`report_search` and `report_blocks` make its parts, `page` puts them into a file.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.analysis import page, report_blocks, report_search, tables
from elenas_jax.analysis.draw import draw_block, read_drawing
from elenas_jax.analysis.load import Run, load_runs
from elenas_jax.analysis.plots import write_figures
from elenas_jax.experiment.run_dir import RunError, run_dir, write_atomically

_ALL = sys.maxsize
_LINKS = (
    ("curves", "Curves"),
    ("trade-off", "Score and size"),
    ("blocks", "Best blocks"),
    ("validity", "Validity"),
    ("diagnostics", "Diagnostics"),
    ("seeds", "Seeds"),
    ("run", "How it was run"),
)


def write_report(path: str | os.PathLike, num_blocks: int = 5) -> Path:
    """Writes figures/ and report.html into a run folder, or the folder of several seeds.

    Args:
      path: the folder of a run, or one that holds `seed_0`, `seed_1`, ...
      num_blocks: how many of the best blocks are drawn.

    Returns:
      The path of report.html.

    Raises:
      RunError: if the folder holds no run, is damaged or cannot be written; one line.
    """
    root = run_dir(path)
    runs = load_runs(path, num_best=_ALL)
    try:
        pictures = _draw_blocks(runs, num_blocks)
        write_figures(runs, root.figures)
        for old in root.figures.glob("block_*.svg"):
            old.unlink()
        for rank, picture in pictures.items():
            write_atomically(root.figures / f"block_{rank}.svg", picture)
        write_atomically(root.report, _page(root.path, runs, num_blocks))
    except OSError as error:
        raise RunError(f"Cannot write the report to {root.path}: {error.strerror or error}.") from error
    return root.report


def print_summary(path: str | os.PathLike, num_blocks: int = 5) -> None:
    """Prints what a run found: setting, runs, what became of the candidates, best blocks, equations."""
    runs = load_runs(path, num_best=max(20, num_blocks))
    print(report_search.subtitle(runs), end="\n\n")
    for table in (
        tables.summary_table(runs),
        tables.reasons_table(runs),
        tables.best_blocks_table(runs, num_blocks),
    ):
        tables.show(table)
        print()
    for block in tables.best_blocks(runs, 1):
        if block["text"]:
            print(f"Equations of block {block['hash'][: tables.HASH_LENGTH]}")
            print("\n".join(f"  {line}" for line in block["text"].splitlines()))


def _draw_blocks(runs: Sequence[Run], num_blocks: int) -> dict[int, str]:
    """Returns the picture of each of the best blocks by its rank."""
    pictures = {}
    for block in tables.best_blocks(runs, num_blocks):
        if block["drawing"] is not None:
            try:
                pictures[block["rank"]] = draw_block(block["drawing"], _title(block, len(runs) > 1))
                if "tree" in block["drawing"]:
                    read_drawing(block["drawing"]["tree"])
            except ValueError as error:
                raise RunError(f"The archive is damaged: block {block['hash']}: {error}") from error
    return pictures


def _title(block: Mapping[str, Any], several: bool) -> str:
    seed = f", seed {block['seed']}" if several else ""
    name = block["hash"][: tables.HASH_LENGTH]
    score, parameters = tables.number(block["score"]), tables.count(block["parameters"])
    return f"{block['rank']}. block {name}: score {score}, {parameters} parameters{seed}"


# The page -------------------------------------------------------------------------------------


def _page(path: Path, runs: Sequence[Run], num_blocks: int) -> str:
    hovers: report_search.Hovers = {}
    blocks = tables.best_blocks(runs, _ALL)
    task_names = tables.task_names(runs)
    several = len(runs) > 1
    trade_off, points = report_blocks.trade_off(blocks, task_names, num_blocks)
    sections = [
        report_search.curves(runs, hovers),
        trade_off,
        report_blocks.best_blocks(blocks, task_names, num_blocks, several),
        report_search.validity(runs, hovers),
        report_search.diagnostics(runs, hovers),
        report_search.seeds(runs),
        report_search.provenance(runs),
    ]
    links = "".join(f'<a href="#{name}">{label}</a>' for name, label in _LINKS if name != "seeds" or several)
    name = page.text(path.name)
    body = "\n".join(
        [
            f'<main>\n<header class="top"><p class="kind">Search report</p><h1>{name}</h1>',
            f'<p class="subtitle">{page.text(report_search.subtitle(runs))}</p></header>',
            f'<nav aria-label="Parts of the report">{links}</nav>',
            report_search.summary(runs),
            *filter(None, sections),
            "</main>",
        ]
    )
    data = {"charts": hovers, "several": several, **points}
    return page.document(f"Search report: {path.name}", body, data)
