"""The part of a report about blocks: score against parameters, the table of the best, a card each."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elenas_jax.analysis import tables
from elenas_jax.analysis.charts import Frame, point_chart
from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.page import Cell, Column, figure, section, sortable_table, text
from elenas_jax.analysis.pareto import pareto_front, thin

MOST_POINTS = 3000  # of the plot of score against parameters
TABLE_ROWS = 20
_LINES, _LETTERS = 8, 90  # of the equations that a pointer shows

_WIDTH = re.compile(r' width="([0-9.]+)"')  # of a drawing

Record = Mapping[str, Any]


def trade_off(blocks: Sequence[Record], task_names: Sequence[str], num_cards: int) -> tuple[str, dict]:
    """Returns the section with the plot of score against parameters, and its data for the script.

    Args:
      blocks: all different valid candidates, best first, as `tables.best_blocks` makes them.
      task_names: the order of metrics in the data.
      num_cards: how many of the blocks have a card, the others of the table are linked there.
    """
    blocks = [block for block in blocks if math.isfinite(block["score"])]
    parameters = np.array([block["parameters"] for block in blocks], np.float64)
    scores = np.array([block["score"] for block in blocks], np.float64)
    front = pareto_front(parameters, scores)
    is_best = np.arange(len(blocks)) < max(TABLE_ROWS, num_cards)
    shown = thin(front | is_best, MOST_POINTS)
    chart = point_chart(
        parameters[shown],
        scores[shown],
        front[shown],
        [_link(blocks[i], num_cards) for i in shown],
        "parameters",
        "score",
        Frame(width=640, height=380),
    )
    note = f"Each point is one of {len(blocks):,} different valid candidates"
    if len(shown) < len(blocks):
        note += f" ({len(shown):,} of them are drawn: the front, the best, the others thinned evenly)"
    note += (
        ". The line is the Pareto front: nothing of that size or smaller scores higher. "
        "Point at a candidate for its numbers and equations; a click on one of the best leads to it."
    )
    on_front = [blocks[i] for i in np.flatnonzero(front)]
    legend = (("on-front", "on the front"), ("off-front", "other candidates"))
    body = figure("trade_off", "All candidates", chart.svg, legend if len(blocks) else ())
    body = f'<div class="wide-and-narrow">{body}{_front_card(on_front, num_cards)}</div>'
    points = [_point(blocks[i], task_names) for i in shown]
    return section("trade-off", "Score against parameters", body, text(note) if blocks else ""), {
        "tasks": list(task_names),
        "points": points,
    }


def best_blocks(blocks: Sequence[Record], task_names: Sequence[str], num_cards: int, several: bool) -> str:
    """Returns the section with the table of the best blocks and the cards of the first of them."""
    if not blocks:
        return section("blocks", "Best blocks", '<p class="card none">None.</p>')
    rows = blocks[: max(TABLE_ROWS, num_cards)]
    search = (
        '<input type="search" id="search" aria-controls="best" '
        'placeholder="Filter: hash, operation, ..." aria-label="Filter the table"/>'
    )
    note = f"The best {len(rows)} of {len(blocks):,}" if len(blocks) > len(rows) else f"All {len(rows)}"
    table = (
        f'<div class="card"><div class="table-head"><span class="note">{note}. A click on a head sorts.'
        f"</span>{search}</div>{_table(rows, task_names, num_cards, several)}</div>"
    )
    cards = "\n".join(_card(block, rows, several) for block in blocks[:num_cards])
    return section("blocks", "Best blocks", f"{table}\n{cards}")


def _link(block: Record, num_cards: int) -> str:
    rank = block["rank"]
    if rank <= num_cards:
        return f"#block-{rank}"
    return f"#best-{rank}" if rank <= TABLE_ROWS else ""


def _point(block: Record, task_names: Sequence[str]) -> list[Any]:
    """Returns hash, score, parameters, FLOPs, generation, seed, metrics, equations; see report.js."""
    lines = (block["text"] or "").splitlines()
    short = [line if len(line) <= _LETTERS else line[: _LETTERS - 1] + "\u2026" for line in lines[:_LINES]]
    if len(lines) > _LINES:
        short.append(f"\u2026 {len(lines) - _LINES} more")
    return [
        block["hash"][: tables.HASH_LENGTH],
        tables.number(block["score"]),
        tables.count(block["parameters"]),
        tables.count(block["flops"]),
        block["generation"],
        block["seed"],
        [tables.number(block["metrics"].get(name), 3) for name in task_names],
        "\n".join(short),
    ]


def _front_card(blocks: Sequence[Record], num_cards: int) -> str:
    if not blocks:
        return ""
    rows = []
    for block in sorted(blocks, key=lambda block: block["rank"]):
        name, link = text(block["hash"][: tables.HASH_LENGTH]), _link(block, num_cards)
        name = f'<a href="{link}"><code>{name}</code></a>' if link else f"<code>{name}</code>"
        rows.append(
            f'<tr><td class="number">{tables.count(block["parameters"])}</td>'
            f'<td class="number">{tables.number(block["score"])}</td><td class="words">{name}</td></tr>'
        )
    return (
        '<div class="card"><b class="caption">The front</b><div class="scroll tall"><table><thead><tr>'
        '<th class="number">parameters</th><th class="number">score</th><th class="words">block</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _bar(value: float | None, largest: float) -> float | None:
    return None if value is None or largest <= 0 else value / largest


def _largest(rows: Sequence[Record], task: str) -> float:
    """Returns what a full bar of a metric stands for: 1 or the largest value; 0 where one is negative."""
    values = [row["metrics"].get(task) for row in rows]
    finite = [value for value in values if value is not None]
    return max([1.0, *finite]) if all(value >= 0 for value in finite) else 0.0


def _table(rows: Sequence[Record], task_names: Sequence[str], num_cards: int, several: bool) -> str:
    largest = {task: _largest(rows, task) for task in task_names}
    best = max((row["score"] for row in rows if math.isfinite(row["score"])), default=0.0)
    columns = [Column("rank"), Column("block", False), Column("score")]
    columns += [Column(task) for task in task_names] + [Column("parameters"), Column("FLOPs")]
    columns += (
        [Column("generation")] + ([Column("seed")] if several else []) + [Column("output", False, "code")]
    )
    table = []
    for row in rows:
        rank, name = row["rank"], row["hash"][: tables.HASH_LENGTH]
        cells = [
            Cell(str(rank), rank),
            Cell(name, name, link=f"block-{rank}" if rank <= num_cards else ""),
            Cell(tables.number(row["score"]), row["score"], _bar(row["score"], best)),
        ]
        for task in task_names:
            value = row["metrics"].get(task)
            cells.append(Cell(tables.number(value, 3), value, _bar(value, largest[task])))
        cells += [Cell(tables.count(row[name]), row[name]) for name in ("parameters", "flops")]
        cells.append(Cell(str(row["generation"]), row["generation"]))
        cells += [Cell("-" if row["seed"] is None else str(row["seed"]), row["seed"])] if several else []
        last = (row["text"] or "-").splitlines()[-1:]
        cells.append(Cell(*last, *last))
        table.append(cells)
    return sortable_table("best", columns, table, [row["text"] or "" for row in rows])


def _picture(svg: str) -> str:
    """Returns a drawing that fits the page, but is no smaller than can be read: then it scrolls."""
    found = _WIDTH.search(svg)
    width = float(found[1]) if found else 0.0  # a drawing of another version may not say it
    return f'<div class="scroll drawing"><div style="min-width:{0.7 * width:.0f}px">{svg}</div></div>'


def _card(block: Record, rows: Sequence[Record], several: bool) -> str:
    facts = [("score", tables.number(block["score"])), ("parameters", tables.count(block["parameters"]))]
    facts += [("FLOPs", tables.count(block["flops"])), ("generation", str(block["generation"]))]
    facts += [("seed", str(block["seed"]))] if several else []
    facts += [("replicates", str(block["replicates"]))] if block["replicates"] > 1 else []
    meters = []
    for task, value in block["metrics"].items():
        share = _bar(value, _largest(rows, task))
        tint = "" if share is None else f' style="--bar:{100 * min(share, 1.0):.1f}%"'
        meters.append(
            f'<div class="meter"><span>{text(task)}</span><i{tint}></i><b>{tables.number(value, 3)}</b></div>'
        )
    if block["drawing"] is None:
        picture = '<p class="none">No drawing is stored for this block.</p>'
    else:
        picture = _picture(draw_block(block["drawing"]))
        if "tree" in block["drawing"]:
            tree = _picture(draw_block(block["drawing"]["tree"]))
            picture += f"\n<details><summary>How it was derived</summary>{tree}</details>"
    shown = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    equations = f"<pre>{text(block['text'])}</pre>" if block["text"] else ""
    return (
        f'<article class="card block" id="block-{block["rank"]}">\n'
        f'<header><span class="rank">{block["rank"]}</span>'
        f"<h3>Block <code>{text(block['hash'][: tables.HASH_LENGTH])}</code></h3><dl>{shown}</dl></header>\n"
        f'{picture}\n<div class="detail">{equations}<div class="meters">{"".join(meters)}</div></div>\n'
        "</article>"
    )
