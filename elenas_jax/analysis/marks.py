"""The marks that drawings of blocks are made of, as pieces of SVG text.

Text is measured from above: boxes are wide enough in whatever font a reader has.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from elenas_jax.analysis.layout import Box

INK, FAINT, PAPER = "#26292e", "#5f6670", "#ffffff"
LONGEST_LABEL = 22
MOST_BEHIND = 2  # boxes that show behind one that stands for copies
DASHES = ' stroke-dasharray="5 3.5"'
# How a symbol is written: the text, its size, how far below the middle of the line it stands.
SYMBOLS = {"*": ("*", 15.0, 7.4), "-": ("\u2212", 9.5, 3.3)}

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z|#[0-9a-fA-F]{3}\Z|[a-zA-Z]{3,24}\Z")
_SIX_DIGITS = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\Z")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Node(NamedTuple):
    kind: str  # "input", "initial" or "intermediate"
    label: str
    name: str  # in equations; may be empty
    operation: str
    colour: str
    is_output: bool
    note: str = ""  # written small in place of the name
    about: str = ""  # what a tooltip says of it in place of its operation
    copies: int = 1  # that the node stands for


class Edge(NamedTuple):
    source: int  # places in the list of nodes
    target: int
    operation: str
    symbol: str
    colour: str
    delayed: bool


# Text and colours -----------------------------------------------------------------------------


def text_width(text: str, size: float) -> float:
    """Returns at least the width of `text` in any of the fonts that may be chosen."""
    total = 0.0
    for letter in text:
        if letter in "iljI.,:;'|!":
            total += 0.40
        elif letter in 'ftr()[]-/ "':
            total += 0.48
        elif letter in "mwMW@%" or ord(letter) > 0x2E7F:
            total += 1.05
        elif letter.isupper() or letter in "+=<>~#&" or ord(letter) > 0x7F:
            total += 0.85
        else:
            total += 0.66
    return total * size


OUTPUT_WIDTH = text_width("output", 11) + 10  # of the word at the arrow that leaves a block


def short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "\u2026"


def clean(text: str) -> str:
    """Returns `text` as XML may hold it."""
    return escape(_NOT_XML.sub("\ufffd", text))


def safe_colour(value: object) -> str:
    """Returns `value` if it is a colour, else a grey: it goes into an attribute as it is."""
    return str(value) if _COLOUR.match(str(value)) else "#bbbbbb"


def darker(colour: str, by: float = 0.58) -> str:
    match = _SIX_DIGITS.match(colour)
    if match is None:
        return FAINT
    return "#" + "".join(f"{int(int(part, 16) * by):02x}" for part in match.groups())


def text(
    x: float, y: float, words: str, size: float, colour: str = INK, anchor: str = "middle", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{weight} text-anchor="{anchor}" '
        f'fill="{colour}">{clean(words)}</text>'
    )


def rectangle(box: Box, radius: float, fill: str, stroke: str, stroke_width: float) -> str:
    return (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="{stroke_width:g}"/>'
    )


# Nodes ----------------------------------------------------------------------------------------


def called(node: Node) -> str:
    """Returns what a tooltip calls a node."""
    return node.name or node.label or node.operation or node.kind


def captions(node: Node) -> tuple[str, str]:
    """Returns what is written large in a box, and small below it."""
    shows_operation = node.kind == "intermediate" and node.operation not in ("", "identity")
    large = node.operation if shows_operation and node.operation not in node.label else node.label
    below = node.name or node.label
    if node.note:
        return short(large or below), short(node.note)
    if not large or below == large:
        return short(below), ""
    return short(large), short(below)


def box_width(node: Node) -> float:
    large, below = captions(node)
    return max(36.0, text_width(large, 13) + 16, text_width(below, 10) + 14)


def draw_node(node: Node, box: Box, is_small: bool) -> str:
    large, below = captions(node)
    is_initial = node.kind == "initial"
    radius = min(box.height / 2, 18) if node.kind == "input" else 4 if is_initial else 8
    stroke = INK if node.is_output or node.kind == "input" else FAINT if is_initial else darker(node.colour)
    about = node.about or (node.kind if node.kind != "intermediate" else node.operation or "identity")
    about = f"{called(node)}: {about}{' (output)' if node.is_output else ''}"
    size = 11 if is_small else 12 if is_initial else 13
    middle_x, middle_y = box.x + box.width / 2, box.y + box.height / 2
    colour, behind = PAPER if is_initial else node.colour, min(node.copies - 1, MOST_BEHIND)
    marks = [
        rectangle(Box(box.x + 3 * step, box.y - 3 * step, *box[2:]), radius, colour, stroke, 0.8)
        for step in range(behind, 0, -1)
    ]
    marks.append(rectangle(box, radius, colour, stroke, 2.6 if node.is_output else 1.2))
    if large:
        marks.append(text(middle_x, middle_y + (-1 if below else size * 0.36), large, size))
    if below:
        marks.append(text(middle_x, middle_y + 12, below, 10, colour="#3c4148"))
    return f'<g class="node"><title>{clean(about)}</title>{"".join(marks)}</g>'


# Edges ----------------------------------------------------------------------------------------


def badge(x: float, y: float, edge: Edge) -> str:
    """Draws the symbol of an edge's operation: a letter in a disc, a word in a rounded box."""
    if not edge.symbol:
        return ""
    is_letter = len(edge.symbol) == 1
    symbol, size, below = SYMBOLS.get(edge.symbol, (edge.symbol, *((9.5, 3.3) if is_letter else (8.0, 2.8))))
    width = 12.0 if is_letter else text_width(symbol, size) + 2
    disc = rectangle(Box(x - width / 2, y - 6, width, 12), 6, PAPER, edge.colour, 0.9)
    return disc + text(x, y + below, symbol, size, colour=edge.colour, bold=True)


def _edge(
    path: str,
    tip: tuple[float, float],
    towards: tuple[float, float],
    at: tuple[float, float],
    edge: Edge,
    about: str,
) -> str:
    """Draws a path with an arrow head at `tip` that points `towards`, and the symbol `at` its place."""
    (x, y), (dx, dy) = tip, towards
    base_x, base_y = x - 7 * dx, y - 7 * dy
    head = (
        f"M{x:.1f},{y:.1f} L{base_x - 3.6 * dy:.1f},{base_y + 3.6 * dx:.1f} "
        f"L{base_x + 3.6 * dy:.1f},{base_y - 3.6 * dx:.1f} Z"
    )
    dashes = DASHES if edge.delayed else ""
    return (
        f'<g class="edge"><title>{clean(about)}</title>'
        f'<path d="{path}" fill="none" stroke="{edge.colour}" stroke-width="1.5"{dashes}/>'
        f'<path d="{head}" fill="{edge.colour}"/>{badge(*at, edge)}</g>'
    )


def draw_route(route: Sequence[tuple[float, float]], edge: Edge, about: str) -> str:
    """Draws a route of `layered_layout`: straight and curved pieces in turn."""
    direction = _direction(route)
    (x, y), path = route[-1], _route_path(route)
    return _edge(path, (x, y), (direction, 0.0), (x - 14.5 * direction, y), edge, about)


def draw_turn(
    end: Sequence[tuple[float, float]],
    start: Sequence[tuple[float, float]],
    back: tuple[float, float, float],
    edge: Edge,
    about: str,
) -> str:
    """Draws an edge from a row of a drawing to the next one: out on the right, and in on the left.

    Args:
      end: route to the right end of the upper row.
      start: route from the left end of the lower row, to the right.
      back: from where on the right, at which height and to where on the left it runs back.
      edge: what is drawn.
      about: of the tooltip.
    """
    (right, between, left), y, r = back, start[0][1], 8
    path = (
        f"{_route_path(end, to_tip=True)} H{right - r:.1f} q{r},0 {r},{r} V{between - r:.1f} q0,{r} {-r},{r} "
        f"H{left + r:.1f} q{-r},0 {-r},{r} V{y - r:.1f} q0,{r} {r},{r} {_route_path(start).replace('M', 'L')}"
    )
    x, y = start[-1]
    return _edge(path, (x, y), (1.0, 0.0), (x - 14.5, y), edge, about)


def draw_output(route: Sequence[tuple[float, float]]) -> str:
    """Draws a route of `layered_layout` as the arrow that leaves the block, with a word at its end."""
    x, y = route[-1]
    return (
        f'<g class="output"><path d="{_route_path(route)}" stroke="{INK}" stroke-width="2" fill="none"/>'
        f'<path d="M{x:.1f},{y:.1f} l-9,-4.5 v9 Z" fill="{INK}"/>'
        f"{text(x + 6, y + 4, 'output', 11, anchor='start')}</g>"
    )


def _direction(route: Sequence[tuple[float, float]]) -> float:
    return 1.0 if route[1][0] >= route[0][0] else -1.0


def _route_path(route: Sequence[tuple[float, float]], to_tip: bool = False) -> str:
    """Returns the way along a route up to its arrow head, or to its end."""
    x, y = route[0]
    parts = [f"M{x:.1f},{y:.1f}"]
    for place, (x, y) in enumerate(route[1:-1], start=1):
        before_x, before_y = route[place - 1]
        if place % 2 == 1 or abs(y - before_y) < 0.05:
            parts.append(f"L{x:.1f},{y:.1f}")
        else:
            middle = (before_x + x) / 2
            parts.append(f"C{middle:.1f},{before_y:.1f} {middle:.1f},{y:.1f} {x:.1f},{y:.1f}")
    x, y = route[-1]
    parts.append(f"L{x - (0 if to_tip else 6 * _direction(route)):.1f},{y:.1f}")
    return " ".join(parts)


def draw_loop(box: Box, edge: Edge, about: str) -> str:
    """Draws an edge from a node to itself, above its box."""
    x, y, reach = box.x + box.width / 2, box.y, 11.0
    left, right = f"{x - reach:.1f}", f"{x + reach:.1f}"
    path = f"M{left},{y:.1f} C{left},{y - 24:.1f} {right},{y - 24:.1f} {right},{y - 6:.1f}"
    return _edge(path, (x + reach, y), (0.0, 1.0), (x, y - 17), edge, about)


def draw_hanging_edge(box: Box, reader: Box, edge: Edge, about: str) -> str:
    """Draws the short way from a hanging parameter, above or below its reader, to it."""
    down = 1.0 if box.y < reader.y else -1.0
    x = box.x + box.width / 2
    start = box.y + (box.height if down > 0 else 0.0)
    tip = reader.y if down > 0 else reader.y + reader.height
    path = f"M{x:.1f},{start:.1f} L{x:.1f},{tip - 6 * down:.1f}"
    return _edge(path, (x, tip), (0.0, down), (x, start + 9 * down), edge, about)
