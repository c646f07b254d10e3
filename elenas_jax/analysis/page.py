"""Web pages that need nothing else: style, script and data are in the file, and so are the pictures.

Whatever comes from a run passes `text` or `data_script` on its way into a page. Pages are written so
that an XML parser reads them too.
"""

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

_ASSETS = Path(__file__).parent / "assets"


class Cell(NamedTuple):
    """A cell of a table that can be sorted."""

    text: str
    value: float | str | None = None  # what it is sorted by; None, or not finite, comes last
    bar: float | None = None  # share of the cell that is tinted, 0 to 1
    link: str = ""  # id on the page


class Column(NamedTuple):
    name: str
    is_numeric: bool = True
    css: str = ""


def text(value: Any) -> str:
    """Returns `value` as text of a page or of an attribute, without what XML cannot hold."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(value)))


def data_script(data: Any) -> str:
    """Returns plain data as a script element named `report-data` that no text inside can end.

    Raises:
      ValueError: if a number is not finite.
    """
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII, so no separators of lines
    for letter in "<>&":
        packed = packed.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="report-data">{packed}</script>'


def section(name: str, title: str, body: str, note: str = "") -> str:
    """Returns a part of the page with the id `name`; `body` and `note` are HTML."""
    about = f'<p class="note">{note}</p>' if note else ""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{about}{body}\n</section>'


def figure(name: str, title: str, svg: str, legend: Sequence[tuple[str, str]] = (), note: str = "") -> str:
    """Returns a chart in a card; `legend`: (class, label), `name` as in the data of the script."""
    keys = "".join(f'<li><i class="key {css}"></i>{text(label)}</li>' for css, label in legend)
    keys = f'<ul class="legend">{keys}</ul>' if keys else ""
    about = f'<span class="note">{text(note)}</span>' if note else ""
    return (
        f'<figure class="card chart" data-chart="{text(name)}"><figcaption><b>{text(title)}</b>{about}'
        f"</figcaption>{keys}{svg}</figure>"
    )


def sortable_table(
    name: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], found_by: Sequence[str] = ()
) -> str:
    """Returns a table that is sorted by a click on a head.

    Args:
      name: its id; rows are named `name`-1, `name`-2, ...
      columns: the first is what the rows are sorted by at first, upwards.
      rows: a cell per column.
      found_by: per row, further text that a search looks at; may be empty.
    """
    heads = []
    for place, column in enumerate(columns):
        kind = "number" if column.is_numeric else "words"
        order = ' aria-sort="ascending"' if place == 0 else ""
        button = f'<button type="button">{text(column.name)}</button>'
        heads.append(f'<th scope="col" class="{kind} {column.css}"{order}>{button}</th>')
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(_cell(column, cell) for column, cell in zip(columns, row, strict=True))
        words = f' data-words="{text(" ".join(found_by[place].split()))}"' if found_by else ""
        lines.append(f'<tr id="{name}-{place + 1}"{words}>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table id="{name}" class="sortable">\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cell(column: Column, cell: Cell) -> str:
    css = f"{'number' if column.is_numeric else 'words'} {column.css}".strip()
    value = cell.value
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    key = "" if value is None else f' data-value="{text(value)}"'
    tint = "" if cell.bar is None else f' style="--bar:{100 * min(max(cell.bar, 0.0), 1.0):.1f}%"'
    css += "" if cell.bar is None else " bar"
    words = f'<a href="#{text(cell.link)}">{text(cell.text)}</a>' if cell.link else text(cell.text)
    return f'<td class="{css}"{key}{tint}>{words}</td>'


def document(title: str, body: str, data: Any) -> str:
    """Returns a whole page.

    Args:
      title: of the window, plain text.
      body: HTML.
      data: plain data for the script (assets/report.js).
    """
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = (_ASSETS / "report.js").read_text(encoding="utf-8")
    # The marks of CDATA are comments to HTML and let XML read the script as text.
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{text(title)}</title>
<link rel="icon" href="data:,"/>
<style>
{style}</style>
</head>
<body>
{body}
<div id="tip" hidden="hidden"></div>
{data_script(data)}
<script>//<![CDATA[
{script}//]]></script>
</body>
</html>
"""
    # Names of files may hold bytes that are no text.
    return page.encode("utf-8", "replace").decode("utf-8")
