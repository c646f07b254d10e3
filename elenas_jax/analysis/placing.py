"""Where the boxes and edges of a drawn block stand: parameters at their readers, long blocks in rows.

Owns what is special to blocks; `layout` places what is left of a row, `rows` says where rows end.
"""

from collections.abc import Sequence
from typing import NamedTuple

from elenas_jax.analysis import marks
from elenas_jax.analysis.layering import assign_layers, turned_round
from elenas_jax.analysis.layout import Box, Layout, Size, layered_layout
from elenas_jax.analysis.marks import Edge, Node
from elenas_jax.analysis.rows import break_rows

MOST_HANGING = 4  # parameters below a box, and as many above
HANGING_HEIGHT, HANGING_GAP, HANGING_SPACE = 19.0, 30.0, 8.0
LOOP_HEIGHT = 24.0
STACK_HEIGHT = 7.0  # of the boxes that show behind one that stands for copies
ROW_WIDTH = 1500.0  # from which on a drawing is broken into rows
ROW_GAP = 46.0  # between rows; edges run back in its middle
ROW_INDENT, TURN = 26.0, 8.0  # room on both sides for edges from row to row, and how far in these turn
LAYER_GAP = 52.0  # between boxes one after the other, roughly

Route = tuple[tuple[float, float], ...]


class Hanging(NamedTuple):
    """A parameter that hangs on its only reader; places of nodes and edges."""

    node: int
    edge: int
    reader: int
    is_above: bool


class Turn(NamedTuple):
    """An edge from one row to the next."""

    edge: int
    end: Route  # to the right end of its row
    start: Route  # from the left end of the next row
    back: tuple[float, float, float]  # from where on the right, at which height, to where on the left


class Placed(NamedTuple):
    """Where everything is."""

    boxes: list[Box]  # a box per node, hanging ones too
    routes: dict[int, Route]  # by edge; of what neither hangs nor turns, empty for a loop
    turns: list[Turn]
    outputs: list[Route]  # out of the block
    width: float
    height: float


def choose_hanging(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Hanging]:
    """Returns the parameters that one node reads, up to as many as there is room for at a box."""
    leaving: dict[int, list[int]] = {}
    for number, edge in enumerate(edges):
        leaving.setdefault(edge.source, []).append(number)
    entered = {edge.target for edge in edges}
    hanging: list[Hanging] = []
    taken: dict[int, int] = {}
    for place, node in enumerate(nodes):
        numbers = leaving.get(place, [])
        if node.kind != "initial" or node.is_output or place in entered or len(numbers) != 1:
            continue
        edge = edges[numbers[0]]
        count = taken.get(edge.target, 0)
        if edge.delayed or nodes[edge.target].kind == "initial" or count == 2 * MOST_HANGING:
            continue
        taken[edge.target] = count + 1
        hanging.append(Hanging(place, numbers[0], edge.target, count >= MOST_HANGING))
    return hanging


def place_block(nodes: Sequence[Node], edges: Sequence[Edge], hanging: Sequence[Hanging]) -> Placed:
    """Lays a block out, in rows if it is long and can be broken."""
    sizes = _sizes(nodes, edges, hanging)
    hung = {item.node for item in hanging}
    kept = [place for place in range(len(nodes)) if place not in hung]
    numbers = [number for number, edge in enumerate(edges) if edge.source not in hung]
    rows = _rows(nodes, edges, sizes, kept, numbers)
    indent = ROW_INDENT if len(rows) > 1 else 0.0
    boxes = [Box(0, 0, 0, 0)] * len(nodes)
    routes: dict[int, Route] = {}
    outputs: list[Route] = []
    turns: list[Turn] = []
    edge_on: tuple[int, Route, float] | None = None  # from the row before: its route, and the row's width
    width = top = 0.0
    for row in rows:
        placed = _place_row(nodes, edges, sizes, row, numbers)
        layout = _moved(placed.layout, indent, top)
        for place, box in zip(row, layout.boxes):
            boxes[place] = box
        routes |= dict(zip(placed.inside, layout.routes))
        others = list(layout.routes[len(placed.inside) :])
        if edge_on is not None:
            edge, end, right = edge_on
            turns.append(Turn(edge, end, others.pop(), (right - TURN, top - ROW_GAP / 2, TURN)))
        edge_on = None
        if placed.leaving is not None:
            edge_on = placed.leaving, others.pop(), layout.width + 2 * indent
        outputs += others
        width = max(width, layout.width + 2 * indent)
        top += layout.height + ROW_GAP
    _place_hanging(boxes, nodes, hanging)
    return Placed(boxes, routes, turns, outputs, width, top - ROW_GAP)


def _small_width(node: Node) -> float:
    return max(26.0, marks.text_width(marks.short(node.label), 11) + 10)


def _row_width(widths: Sequence[float]) -> float:
    return sum(widths) + HANGING_SPACE * (len(widths) - 1)


def _by_reader(hanging: Sequence[Hanging]) -> dict[tuple[int, bool], list[int]]:
    found: dict[tuple[int, bool], list[int]] = {}
    for item in hanging:
        found.setdefault((item.reader, item.is_above), []).append(item.node)
    return found


def _sizes(nodes: Sequence[Node], edges: Sequence[Edge], hanging: Sequence[Hanging]) -> list[Size]:
    """Returns what each node needs, with room for the parameters that hang on it."""
    attached = _by_reader(hanging)
    looped = {edge.source for edge in edges if edge.source == edge.target}

    def size(place: int) -> Size:
        node = nodes[place]
        width, room = marks.box_width(node), {True: 0.0, False: 0.0}
        widest = 0.0
        for is_above in room:
            if row := attached.get((place, is_above)):
                widths = [_small_width(nodes[each]) for each in row]
                room[is_above] = HANGING_GAP + HANGING_HEIGHT
                widest = max(widest, _row_width(widths))
                # As wide as the row's middles are apart, so that all ways to the box are vertical.
                width = max(width, _row_width(widths) - (widths[0] + widths[-1]) / 2 + 20)
        above = max(room[True], LOOP_HEIGHT * (place in looped), STACK_HEIGHT * (node.copies > 1))
        return Size(width, 26.0 if node.kind == "initial" else 36.0, above, room[False], widest)

    return [size(place) for place in range(len(nodes))]


def _rows(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    sizes: Sequence[Size],
    kept: Sequence[int],
    numbers: Sequence[int],
) -> list[list[int]]:
    """Returns the nodes of each row; one row unless there is one input, one output and much between.

    `kept` and `numbers` are nodes and edges but those that hang.
    """
    inputs = [place for place in kept if nodes[place].kind == "input"]
    outputs = [place for place in kept if nodes[place].is_output]
    if len(inputs) != 1 or len(outputs) != 1:
        return [list(kept)]
    number = {place: i for i, place in enumerate(kept)}
    pairs = [(number[edges[i].source], number[edges[i].target]) for i in numbers]
    delayed = [edges[i].delayed for i in numbers]

    def width(part: Sequence[int]) -> float:
        own = {place: i for i, place in enumerate(part)}
        inside = [i for i, (source, target) in enumerate(pairs) if source in own and target in own]
        arcs = turned_round(
            len(part), [(own[pairs[i][0]], own[pairs[i][1]]) for i in inside], [delayed[i] for i in inside]
        )
        layers: dict[int, float] = {}
        for place, layer in zip(part, assign_layers(len(part), arcs, (), ())):
            size = sizes[kept[place]]
            layers[layer] = max(layers.get(layer, 0.0), size.width, size.room)
        return sum(layers.values()) + LAYER_GAP * len(layers)

    rows = break_rows(len(kept), pairs, number[inputs[0]], number[outputs[0]], width, ROW_WIDTH)
    return [[kept[place] for place in row] for row in rows]


class _Row(NamedTuple):
    """A row laid out by itself."""

    layout: Layout  # routes are those of edges inside, of outputs, to the next row, from the row before
    inside: list[int]  # edges
    leaving: int | None


def _place_row(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    sizes: Sequence[Size],
    row: Sequence[int],
    numbers: Sequence[int],
) -> _Row:
    """Lays a row out. What enters or leaves it is an edge at a place of its own, which nothing crosses."""
    number = {place: i for i, place in enumerate(row)}
    inside = [i for i in numbers if edges[i].source in number and edges[i].target in number]
    leaving = next((i for i in numbers if edges[i].source in number and edges[i].target not in number), None)
    entering = next((i for i in numbers if edges[i].target in number and edges[i].source not in number), None)
    own = [sizes[place] for place in row]
    pairs = [(number[edges[i].source], number[edges[i].target]) for i in inside]
    first = [number[place] for place in row if nodes[place].kind == "input"]
    last = []
    for place in row:
        if nodes[place].is_output:
            pairs.append((number[place], len(own)))
            last.append(len(own))
            own.append(Size(marks.OUTPUT_WIDTH, 14.0))
    if leaving is not None:
        pairs.append((number[edges[leaving].source], len(own)))
        last.append(len(own))
        own.append(Size(1.0, 14.0))
    if entering is not None:
        pairs.append((len(own), number[edges[entering].target]))
        first.append(len(own))
        own.append(Size(1.0, 14.0))
    late = [edges[i].delayed for i in inside] + [False] * (len(pairs) - len(inside))
    layout = layered_layout(own, pairs, late, first=first, last=last)
    return _Row(layout, inside, leaving)


def _moved(layout: Layout, x: float, y: float) -> Layout:
    return layout._replace(
        boxes=tuple(box._replace(x=box.x + x, y=box.y + y) for box in layout.boxes),
        routes=tuple(tuple((a + x, b + y) for a, b in route) for route in layout.routes),
    )


def _place_hanging(boxes: list[Box], nodes: Sequence[Node], hanging: Sequence[Hanging]) -> None:
    """Puts parameters at the boxes of their readers; changes `boxes`."""
    for (reader, is_above), row in _by_reader(hanging).items():
        box = boxes[reader]
        widths = [_small_width(nodes[place]) for place in row]
        x = box.x + (box.width - _row_width(widths)) / 2
        y = box.y - HANGING_GAP - HANGING_HEIGHT if is_above else box.y + box.height + HANGING_GAP
        for place, width in zip(row, widths):
            boxes[place] = Box(x, y, width, HANGING_HEIGHT)
            x += width + HANGING_SPACE
