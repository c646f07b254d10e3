"""Drawings of blocks as PNG pictures: the marks of `marks`, drawn anew with the plotting library.

Reads rectangles, paths and text of one colour, which is what `draw.draw_block` writes; no other SVG.
"""

import io
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

DPI = 72.0  # one unit of a drawing is a point
MOST_PIXELS = 2**15  # of a side, as the library's canvas allows 2**16
_TOKEN = re.compile(r"[A-Za-z]|-?\d+(?:\.\d+)?")
_NUMBERS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "Q": 4, "Z": 0}
_CODES: dict[str, list[Any]] = {
    "M": [Path.MOVETO],
    "L": [Path.LINETO],
    "C": [Path.CURVE4] * 3,
    "Q": [Path.CURVE3] * 2,
}


def draw_png(svg: str, scale: float = 2.0) -> bytes:
    """Returns a drawing as the bytes of a PNG file.

    Args:
      svg: what `draw_block` returned.
      scale: pixels for a unit of the drawing; less for one that would be too large.

    Raises:
      ValueError: for other SVG.
    """
    root = ElementTree.fromstring(svg)
    try:
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        scale = min(scale, MOST_PIXELS / max(width, height))
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI * scale)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(left, left + width), ylim=(top + height, top))
        axes.set_axis_off()
        for order, element in enumerate(root.iter()):
            _draw(axes, element, order)
    except (KeyError, ValueError) as error:
        raise ValueError(f"The drawing cannot be made a PNG picture: {error!r}.") from error
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI * scale, metadata={"Software": None})
    return buffer.getvalue()


def write_png(path: pathlib.Path, svg: str) -> None:
    """Writes a drawing as a PNG file; a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(draw_png(svg))
    os.replace(draft, path)


def _draw(axes, element: ElementTree.Element, order: int) -> None:
    kind, given = element.tag.rpartition("}")[2], element.attrib
    if kind == "text":
        axes.text(
            float(given["x"]),
            float(given["y"]),
            (element.text or "").replace("$", r"\$"),
            size=float(given["font-size"]) * 0.94,  # the library's font is wider than those of browsers
            color=given["fill"],
            weight=given.get("font-weight", "normal"),
            ha={"middle": "center", "start": "left", "end": "right"}[given["text-anchor"]],
            va="baseline",
            zorder=order,
        )
        return
    if kind not in ("rect", "path"):
        return
    style: dict[str, Any] = {
        "facecolor": given.get("fill", "black"),
        "edgecolor": given.get("stroke", "none"),
        "linewidth": float(given.get("stroke-width", 1)),
        "zorder": order,
    }
    if "stroke-dasharray" in given:
        style["linestyle"] = (0, tuple(float(part) for part in given["stroke-dasharray"].split()))
    if kind == "path":
        axes.add_patch(PathPatch(parse_path(given["d"]), capstyle="butt", **style))
        return
    x, y, width, height = (float(given[name]) for name in ("x", "y", "width", "height"))
    radius = min(float(given.get("rx", 0)), width / 2, height / 2)
    box = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=box, mutation_aspect=1, **style))


def parse_path(text: str) -> Path:
    """Returns a path of lines and curves; small letters are relative to the point before.

    Raises:
      ValueError: for other commands.
    """
    tokens = _TOKEN.findall(text)
    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    start = at = (0.0, 0.0)
    place, command = 0, ""
    while place < len(tokens):
        if tokens[place].isalpha():
            command = tokens[place]
            place += 1
        kind = command.upper()
        if kind not in _NUMBERS:
            raise ValueError(f"{command!r} is no command of a path that is known here.")
        numbers = [float(token) for token in tokens[place : place + _NUMBERS[kind]]]
        place += _NUMBERS[kind]
        base = at if command.islower() else (0.0, 0.0)
        if kind == "Z":
            points.append(start)
            codes.append(Path.CLOSEPOLY)
            at = start
            continue
        if kind == "H":
            new = [(base[0] + numbers[0], at[1])]
        elif kind == "V":
            new = [(at[0], base[1] + numbers[0])]
        else:
            new = [(base[0] + x, base[1] + y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
        points += new
        codes += _CODES.get(kind, _CODES["L"])
        at = new[-1]
        start = at if kind == "M" else start
    return Path(points, codes)
