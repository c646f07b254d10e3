"""Draws a block as an SVG picture, from the labelled graph that a run folder stores.

Boxes are coloured by operation, edges by how they combine, with the operation's symbol at the
arrow head. Edges that read the previous step are dashed and point backwards. A parameter with one
reader hangs on that reader as a small box.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from elenas_jax.analysis import marks
from elenas_jax.analysis.layout import Box, Layout, Size, layered_layout
from elenas_jax.analysis.marks import Edge, Node

FONT = "Helvetica, Arial, 'Segoe UI', 'DejaVu Sans', sans-serif"
MARGIN = 18.0
MOST_HANGING = 4  # parameters below a box, and as many above
HANGING_HEIGHT, HANGING_GAP, HANGING_SPACE = 19.0, 30.0, 8.0
LOOP_HEIGHT = 24.0
PREVIOUS = "t\u22121"  # on a box that holds the value of the previous step and has no label
LEGEND_LINE, LEGEND_WIDTH = 20.0, 640.0


class Drawing(NamedTuple):
    """What is to be drawn, checked."""

    nodes: list[Node]
    edges: list[Edge]
    legend: list[tuple[str, str]]  # label, colour


class Hanging(NamedTuple):
    """A parameter that hangs on its only reader; places of nodes and edges."""

    node: int
    edge: int
    reader: int
    is_above: bool


class Placed(NamedTuple):
    boxes: list[Box]  # a box per node, hanging ones too
    layout: Layout
    routed: list[int]  # the edges that the layout's first routes belong to; the others lead out of the block


def draw_block(drawing: Mapping[str, Any], title: str = "") -> str:
    """Returns the text of an SVG file that shows the block.

    Args:
      drawing: `{"nodes": [...], "edges": [...], "legend": [...]}` as `SearchSpace.drawing` makes it. A
        node may have a "name" besides its label: what equations call it.
      title: written above the picture; may be empty.

    Raises:
      ValueError: if `drawing` is not of that form.
    """
    block = read_drawing(drawing)
    hanging = _choose_hanging(block)
    boxes, layout, routed = _place(block, hanging)
    lines = [marks.draw_output(route) for route in layout.routes[len(routed) :]]
    for number, route in zip(routed, layout.routes):
        edge = block.edges[number]
        about = _about(block, edge)
        if edge.source == edge.target:
            lines.append(marks.draw_loop(boxes[edge.source], edge, about))
        else:
            lines.append(marks.draw_route(route, edge, about))
    for item in hanging:
        edge = block.edges[item.edge]
        lines.append(marks.draw_hanging_edge(boxes[item.node], boxes[item.reader], edge, _about(block, edge)))
    small = {item.node for item in hanging}
    right = layout.width
    for place, (node, box) in enumerate(zip(block.nodes, boxes, strict=True)):
        lines.append(marks.draw_node(node, box, place in small))
    top = -MARGIN
    if title:
        top -= 26
        lines.append(marks.text(0, -MARGIN + 4, title, 14, anchor="start", bold=True))
        right = max(right, marks.text_width(title, 14))
    legend, end, bottom = _legend(block, max(right, LEGEND_WIDTH), layout.height + 26)
    width, height = max(right, end) + 2 * MARGIN, bottom - top + 10
    view = f"{-MARGIN:.1f} {top:.1f} {width:.1f} {height:.1f}"
    paper = marks.rectangle(Box(-MARGIN, top, width, height), 0, marks.PAPER, "none", 0)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="{view}" role="img" font-family={quoteattr(FONT)}>',
            f"<title>{marks.clean(title or 'a block as a graph')}</title>",
            paper,
            *lines,
            *legend,
            "</svg>",
            "",
        ]
    )


def read_drawing(drawing: Mapping[str, Any]) -> Drawing:
    """Returns the drawing with edges that name nodes by their place; ValueError for another form."""
    try:
        rows = list(drawing["nodes"])
        places = {row["id"]: place for place, row in enumerate(rows)}
        nodes = [
            Node(
                str(row["kind"]),
                str(row["label"]),
                str(row.get("name", "")),
                str(row["operation"]),
                marks.safe_colour(row["colour"]),
                bool(row["is_output"]),
            )
            for row in rows
        ]
        edges = [
            Edge(
                places[row["source"]],
                places[row["target"]],
                str(row["operation"]),
                str(row["symbol"]),
                marks.safe_colour(row["colour"]),
                bool(row["delayed"]),
            )
            for row in drawing["edges"]
        ]
        legend = [(str(row["label"]), marks.safe_colour(row["colour"])) for row in drawing.get("legend", ())]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The drawing of a block is not of the expected form: {error!r}.") from error
    if len(places) != len(nodes):
        raise ValueError("The drawing of a block names a node twice.")
    for place, node in enumerate(nodes):
        entering = [edge.delayed for edge in edges if edge.target == place]
        if not node.label and node.operation in ("", "identity") and entering and all(entering):
            nodes[place] = node._replace(label=PREVIOUS)
    return Drawing(nodes, edges, legend)


def _about(block: Drawing, edge: Edge) -> str:
    when = " (value of the previous step)" if edge.delayed else ""
    source, target = (marks.called(block.nodes[place]) for place in (edge.source, edge.target))
    return f"{source} \u2192 {target}: {edge.operation}{when}"


def _choose_hanging(block: Drawing) -> list[Hanging]:
    """Returns the parameters that one node reads, up to as many as there is room for at a box."""
    leaving: dict[int, list[int]] = {}
    for number, edge in enumerate(block.edges):
        leaving.setdefault(edge.source, []).append(number)
    entered = {edge.target for edge in block.edges}
    hanging: list[Hanging] = []
    taken: dict[int, int] = {}
    for place, node in enumerate(block.nodes):
        numbers = leaving.get(place, [])
        if node.kind != "initial" or node.is_output or place in entered or len(numbers) != 1:
            continue
        edge = block.edges[numbers[0]]
        count = taken.get(edge.target, 0)
        if edge.delayed or block.nodes[edge.target].kind == "initial" or count == 2 * MOST_HANGING:
            continue
        taken[edge.target] = count + 1
        hanging.append(Hanging(place, numbers[0], edge.target, count >= MOST_HANGING))
    return hanging


def _place(block: Drawing, hanging: Sequence[Hanging]) -> Placed:
    """Lays out all nodes but the hanging ones, with room for those, and then puts them there."""
    nodes, edges = block.nodes, block.edges
    rows: dict[tuple[int, bool], list[int]] = {}
    for item in hanging:
        rows.setdefault((item.reader, item.is_above), []).append(item.node)
    hung = {item.node for item in hanging}
    kept = [place for place in range(len(nodes)) if place not in hung]
    number = {place: i for i, place in enumerate(kept)}
    routed = [i for i, edge in enumerate(edges) if edge.source in number]
    looped = {edge.source for edge in edges if edge.source == edge.target}
    small = [max(26.0, marks.text_width(marks.short(node.label), 11) + 10) for node in nodes]

    def is_output(place: int) -> bool:
        return nodes[place].is_output

    def row_width(row: Sequence[int]) -> float:
        return sum(small[place] for place in row) + HANGING_SPACE * (len(row) - 1)

    def size(place: int) -> Size:
        width, room = marks.box_width(nodes[place]), {True: 0.0, False: 0.0}
        attached = 0.0
        for is_above in room:
            if row := rows.get((place, is_above)):
                room[is_above] = HANGING_GAP + HANGING_HEIGHT
                attached = max(attached, row_width(row))
                # As wide as the row's middles are apart, so that all ways to the box are vertical.
                width = max(width, row_width(row) - (small[row[0]] + small[row[-1]]) / 2 + 20)
        above = max(room[True], LOOP_HEIGHT if place in looped else 0.0)
        return Size(width, 26.0 if nodes[place].kind == "initial" else 36.0, above, room[False], attached)

    # What leaves the block is laid out as an edge to a place of its own, so that nothing crosses it.
    leaving = [(number[place], len(kept) + i) for i, place in enumerate(filter(is_output, kept))]
    layout = layered_layout(
        [size(place) for place in kept] + [Size(marks.OUTPUT_WIDTH, 14.0)] * len(leaving),
        [(number[edges[i].source], number[edges[i].target]) for i in routed] + leaving,
        [edges[i].delayed for i in routed] + [False] * len(leaving),
        first=[number[i] for i in kept if nodes[i].kind == "input"],
        last=[place for _, place in leaving],
    )
    boxes = [layout.boxes[number[i]] if i in number else Box(0, 0, 0, 0) for i in range(len(nodes))]
    for (reader, is_above), row in rows.items():
        box = boxes[reader]
        x = box.x + (box.width - row_width(row)) / 2
        y = box.y - HANGING_GAP - HANGING_HEIGHT if is_above else box.y + box.height + HANGING_GAP
        for place in row:
            boxes[place] = Box(x, y, small[place], HANGING_HEIGHT)
            x += small[place] + HANGING_SPACE
    return Placed(boxes, layout, routed)


def _legend(block: Drawing, width: float, y: float) -> tuple[list[str], float, float]:
    """Returns the entries, and how far to the right and down they reach.

    Only what the picture shows is listed, edges before nodes.
    """
    by_name = {edge.operation: edge for edge in block.edges}
    by_colour = {edge.colour: edge for edge in block.edges}
    node_colours = {node.colour for node in block.nodes if node.kind == "intermediate"}
    entries: list[tuple[str, str, Edge | None]] = []
    for label, colour in block.legend:
        edge = by_name.get(label) or by_colour.get(colour)
        if edge is not None or colour in node_colours:
            entries.append((label, colour, edge))
    entries.sort(key=lambda entry: entry[2] is None)
    if any(node.kind == "initial" for node in block.nodes):
        entries.append(("parameter", marks.PAPER, None))
    lines, x, end = [], 0.0, 0.0
    for label, colour, edge in entries:
        if edge is None:
            stroke = marks.FAINT if colour == marks.PAPER else marks.darker(colour)
        elif edge.delayed and "previous" not in label:
            label += " (previous step)"
        need = 34 + marks.text_width(label, 11)
        if x > 0 and x + need > width:
            x, y = 0.0, y + LEGEND_LINE
        if edge is None:
            mark = marks.rectangle(Box(x + 3, y - 7, 22, 14), 4, colour, stroke, 1)
        else:
            dashes = marks.DASHES if edge.delayed else ""
            line = f'<path d="M{x:.1f},{y:.1f} h28" stroke="{colour}" stroke-width="2"{dashes} fill="none"/>'
            mark = line + marks.badge(x + 14, y, edge)
        words = marks.text(x + 34, y + 4, label, 11, colour=marks.FAINT, anchor="start")
        lines.append(f'<g class="legend">{mark}{words}</g>')
        end = max(end, x + need)
        x += need + 12
    return lines, end, y + (LEGEND_LINE if entries else 0)
