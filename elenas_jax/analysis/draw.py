"""Draws a block as an SVG picture, from the labelled graph that a run folder stores.

Boxes are coloured by operation, edges by how they combine, with the operation's symbol at the
arrow head. Edges that read the previous step are dashed and point backwards. A parameter with one
reader hangs on that reader as a small box; a box that stands for copies is a stack. Long blocks are
broken into rows, see `placing`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from elenas_jax.analysis import marks
from elenas_jax.analysis.layout import Box
from elenas_jax.analysis.marks import Edge, Node
from elenas_jax.analysis.placing import choose_hanging, place_block

FONT = "Helvetica, Arial, 'Segoe UI', 'DejaVu Sans', sans-serif"
MARGIN = 18.0
PREVIOUS = "t\u22121"  # on a box that holds the value of the previous step and has no label
LEGEND_LINE, LEGEND_WIDTH = 20.0, 640.0


class Drawing(NamedTuple):
    """What is to be drawn, checked."""

    nodes: list[Node]
    edges: list[Edge]
    legend: list[tuple[str, str]]  # label, colour


def draw_block(drawing: Mapping[str, Any], title: str = "") -> str:
    """Returns the text of an SVG file that shows the block.

    Args:
      drawing: `{"nodes": [...], "edges": [...], "legend": [...]}` as `SearchSpace.drawing` makes it. A
        node may have a "name" besides its label: what equations call it; a "note", which is written small
        in place of the name; "about", what a tooltip says of it; "copies" that it stands for. An edge's
        "operation" and "symbol" may be empty.
      title: written above the picture; may be empty.

    Raises:
      ValueError: if `drawing` is not of that form.
    """
    block = read_drawing(drawing)
    hanging = choose_hanging(block.nodes, block.edges)
    placed = place_block(block.nodes, block.edges, hanging)
    boxes = placed.boxes
    lines = [marks.draw_output(route) for route in placed.outputs]
    for number, route in placed.routes.items():
        edge = block.edges[number]
        about = _about(block, edge)
        if edge.source == edge.target:
            lines.append(marks.draw_loop(boxes[edge.source], edge, about))
        else:
            lines.append(marks.draw_route(route, edge, about))
    for turn in placed.turns:
        edge = block.edges[turn.edge]
        lines.append(marks.draw_turn(turn.end, turn.start, turn.back, edge, _about(block, edge)))
    for item in hanging:
        edge = block.edges[item.edge]
        lines.append(marks.draw_hanging_edge(boxes[item.node], boxes[item.reader], edge, _about(block, edge)))
    small = {item.node for item in hanging}
    right = placed.width
    for place, (node, box) in enumerate(zip(block.nodes, boxes, strict=True)):
        lines.append(marks.draw_node(node, box, place in small))
    top = -MARGIN
    if title:
        top -= 26
        lines.append(marks.text(0, -MARGIN + 4, title, 14, anchor="start", bold=True))
        right = max(right, marks.text_width(title, 14))
    legend, end, bottom = _legend(block, max(right, LEGEND_WIDTH), placed.height + 26)
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
                str(row.get("note", "")),
                str(row.get("about", "")),
                int(row.get("copies", 1)),
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"The drawing of a block is not of the expected form: {error!r}.") from error
    if len(places) != len(nodes):
        raise ValueError("The drawing of a block names a node twice.")
    for place, node in enumerate(nodes):
        entering = [edge.delayed for edge in edges if edge.target == place]
        if not node.label and node.operation in ("", "identity") and entering and all(entering):
            nodes[place] = node._replace(label=PREVIOUS)
    return Drawing(nodes, edges, legend)


def _about(block: Drawing, edge: Edge) -> str:
    what = f": {edge.operation}" if edge.operation else ""
    when = " (value of the previous step)" if edge.delayed else ""
    source, target = (marks.called(block.nodes[place]) for place in (edge.source, edge.target))
    return f"{source} \u2192 {target}{what}{when}"


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
