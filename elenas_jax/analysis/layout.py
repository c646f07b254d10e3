"""Layered layout of a directed graph, left to right: where boxes stand and how edges run.

Owns geometry only; knows nothing of colours or SVG. Layers and the order inside them come from
`layering`. Heights are found by isotonic regression, then by moving one node or one long edge at a
time to the median of what it is tied to, which leaves most edges straight. Edges cross a layer at
a place of their own, so no edge runs through a box.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from elenas_jax.analysis.layering import assign_layers, reduce_crossings, split_long_edges, turned_round

PORT_GAP = 16.0  # between edge ends on one side of a box
STUB = 24.0  # straight part of an edge at a box, room for arrow head and symbol
BOX_GAP = 20.0  # between boxes of a layer
LANE_GAP = 13.0  # between edges that pass a layer


class Size(NamedTuple):
    """What a node needs: its box, and room around it for what is attached to it."""

    width: float
    height: float
    above: float = 0.0
    below: float = 0.0
    room: float = 0.0  # width of what is attached, if wider than the box


class Box(NamedTuple):
    """A rectangle; `x`, `y` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Layout(NamedTuple):
    """Where everything is.

    A route is a list of points: straight from the first to the second, curved to the third,
    straight to the fourth, and so on; always an even number of points, from source to target.
    """

    boxes: tuple[Box, ...]  # a box per node
    routes: tuple[tuple[tuple[float, float], ...], ...]  # a route per edge; empty for a loop
    layers: tuple[int, ...]  # a layer per node
    width: float
    height: float


def layered_layout(
    sizes: Sequence[Size],
    edges: Sequence[tuple[int, int]],
    delayed: Sequence[bool],
    first: Sequence[int] = (),
    last: Sequence[int] = (),
) -> Layout:
    """Lays out a graph of `len(sizes)` nodes.

    Args:
      sizes: what each node needs; boxes grow in height where many edges end.
      edges: `(source, target)`; several between one pair are kept apart; loops get no route.
      delayed: per edge, whether it reads a previous step: turned round before any other.
      first: nodes that stand in the first layer if nothing precedes them.
      last: nodes that stand in the last layer if nothing follows them.
    """
    if not sizes:
        return Layout((), (), (), 0.0, 0.0)
    arcs = turned_round(len(sizes), edges, delayed)
    layer = assign_layers(len(sizes), arcs, first, last)
    chains, layer, segments = split_long_edges(arcs, layer)
    order = reduce_crossings(layer, segments)
    placed = _Places(sizes, layer, segments, order, [0.2 if late else 1.0 for late in delayed])
    placed.spread()
    placed.straighten(chains)
    return placed.layout(edges, arcs, chains)


class _Places:
    """Heights of nodes and passing places while they are being found."""

    def __init__(
        self,
        sizes: Sequence[Size],
        layer: Sequence[int],
        segments: Sequence[tuple[int, int, int]],
        order: list[list[int]],
        strength: Sequence[float],
    ):
        self.sizes, self.layer, self.segments, self.order = sizes, layer, segments, order
        self.strength = strength  # how much each arc wants to be straight
        self.place = {item: i for items in order for i, item in enumerate(items)}
        num = len(layer)
        # Ends of segments on both sides of an item, from top to bottom.
        self.left: list[list[int]] = [[] for _ in range(num)]
        self.right: list[list[int]] = [[] for _ in range(num)]
        for number, (source, target, _) in enumerate(segments):
            self.right[source].append(number)
            self.left[target].append(number)
        self.offset: dict[tuple[int, bool], float] = {}  # (segment, at its left end) -> from the middle
        for item in range(num):
            self.left[item].sort(key=lambda s: (self.place[segments[s][0]], segments[s][2]))
            self.right[item].sort(key=lambda s: (self.place[segments[s][1]], segments[s][2]))
            for side, ends in ((False, self.left[item]), (True, self.right[item])):
                for i, number in enumerate(ends):
                    self.offset[number, side] = (i - (len(ends) - 1) / 2) * PORT_GAP
        self.height = [
            max(size.height, PORT_GAP * max(len(self.left[i]), len(self.right[i])) + 6)
            for i, size in enumerate(sizes)
        ]
        self.y = [0.0] * num
        for items in order:
            height = 0.0
            for above, item in zip([None, *items], items, strict=False):
                height += 0.0 if above is None else self.gap(above, item)
                self.y[item] = height
            for item in items:
                self.y[item] -= height / 2

    def is_box(self, item: int) -> bool:
        return item < len(self.sizes)

    def above(self, item: int) -> float:
        return self.height[item] / 2 + self.sizes[item].above if self.is_box(item) else 0.0

    def below(self, item: int) -> float:
        return self.height[item] / 2 + self.sizes[item].below if self.is_box(item) else 0.0

    def gap(self, upper: int, lower: int) -> float:
        """Least distance between the middles of two neighbours in a layer."""
        gap = BOX_GAP if self.is_box(upper) and self.is_box(lower) else LANE_GAP
        return self.below(upper) + gap + self.above(lower)

    def wishes(self, item: int, sides: Sequence[bool]) -> list[tuple[float, float]]:
        """Returns `(height, weight)` at which each edge end of the item would be straight."""
        wishes = []
        for side in sides:
            for number in self.right[item] if side else self.left[item]:
                other = self.segments[number][1 if side else 0]
                there = self.y[other] + self.offset[number, not side]
                weight = 1.0 + 3.0 * (not self.is_box(item)) + 3.0 * (not self.is_box(other))
                # Between two ends that want the same, the one that is tied to more decides.
                weight += 0.01 * (len(self.left[other]) + len(self.right[other]))
                wishes.append(
                    (there - self.offset[number, side], weight * self.strength[self.segments[number][2]])
                )
        return wishes

    def spread(self) -> None:
        """Moves whole layers to the least squares of what they are tied to, keeping gaps."""
        for sweep in range(12):
            sides = [(False,), (True,), (False, True)][sweep % 3]
            items_of = self.order if sides[0] is False else self.order[::-1]
            for items in items_of:
                goals, weights = [], []
                for item in items:
                    wishes = self.wishes(item, sides)
                    weight = sum(w for _, w in wishes)
                    goals.append(sum(y * w for y, w in wishes) / weight if wishes else self.y[item])
                    weights.append(weight or 0.1)
                gaps = [self.gap(upper, lower) for upper, lower in itertools.pairwise(items)]
                for item, y in zip(items, _keep_apart(goals, weights, gaps), strict=True):
                    self.y[item] = y

    def free_range(self, item: int) -> tuple[float, float]:
        """Between which heights an item may move while its neighbours stay."""
        items, i = self.order[self.layer[item]], self.place[item]
        low = self.y[items[i - 1]] + self.gap(items[i - 1], item) if i > 0 else float("-inf")
        high = self.y[items[i + 1]] - self.gap(item, items[i + 1]) if i + 1 < len(items) else float("inf")
        return low, high

    def straighten(self, chains: Sequence[Sequence[int]]) -> None:
        """Moves one box, or all passing places of one edge, at a time to the weighted median."""
        units = [[item] for items in self.order for item in items if self.is_box(item)]
        long = [list(chain[1:-1]) for chain in chains if len(chain) > 2]
        for _ in range(8):
            for unit in long + units + units[::-1]:
                inside = set(unit)
                ranges = [self.free_range(item) for item in unit]
                low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
                if low > high + 1e-9:
                    continue
                wishes = []
                for item in unit:
                    wishes += [
                        wish
                        for side in (False, True)
                        for number, wish in zip(
                            self.right[item] if side else self.left[item],
                            self.wishes(item, (side,)),
                            strict=True,
                        )
                        if self.segments[number][1 if side else 0] not in inside
                    ]
                if wishes:
                    y = min(max(_weighted_median(wishes, self.y[unit[0]]), low), high)
                    for item in unit:
                        self.y[item] = y

    def layout(
        self,
        edges: Sequence[tuple[int, int]],
        arcs: Sequence[tuple[int, int]],
        chains: Sequence[Sequence[int]],
    ) -> Layout:
        num = len(self.sizes)
        top = min(self.y[item] - self.above(item) for item in range(len(self.y)))
        height = max(self.y[item] + self.below(item) for item in range(len(self.y))) - top
        y = [value - top for value in self.y]
        rises = [0.0] * len(self.order)
        crowds = [0] * len(self.order)
        for left, right, _ in self.segments:
            rises[self.layer[left]] = max(rises[self.layer[left]], abs(y[left] - y[right]))
            crowds[self.layer[left]] += 1
        # Arrow heads stand on the left of a layer, and on the right where an edge was turned round.
        stubs = [8.0] * len(self.order)
        for edge, arc in zip(edges, arcs, strict=True):
            if edge != arc:
                stubs[self.layer[edge[1]]] = STUB
        lefts, widths, x = [], [], 0.0
        for items, rise, crowd, stub in zip(self.order, rises, crowds, stubs, strict=True):
            width = max(
                max(self.sizes[i].width, self.sizes[i].room) if self.is_box(i) else 0.0 for i in items
            )
            lefts.append(x)
            widths.append(width)
            x += width + stub + STUB + min(18 + 0.2 * rise + 1.5 * crowd, 105)
        total = lefts[-1] + widths[-1]
        boxes = []
        for node, size in enumerate(self.sizes):
            column = self.layer[node]
            boxes.append(
                Box(
                    lefts[column] + (widths[column] - size.width) / 2,
                    y[node] - self.height[node] / 2,
                    size.width,
                    self.height[node],
                )
            )
        pieces: dict[int, list[int]] = {}
        for number, (_, _, of) in enumerate(self.segments):
            pieces.setdefault(of, []).append(number)
        routes = []
        for place, chain in enumerate(chains):
            points: list[tuple[float, float]] = []
            for number in pieces.get(place, []):
                for side, item in ((True, self.segments[number][0]), (False, self.segments[number][1])):
                    column = self.layer[item]
                    end = y[item] + self.offset[number, side]
                    inner = lefts[column] + (widths[column] if side else 0.0)
                    if self.is_box(item):
                        inner = boxes[item].x + (boxes[item].width if side else 0.0)
                    outer = lefts[column] + (widths[column] + stubs[column] if side else -STUB)
                    points += [(inner, end), (outer, end)] if side else [(outer, end), (inner, end)]
            # A passing place is one straight piece from its left to its right side.
            points = [p for i, p in enumerate(points) if not (i % 4 in (0, 3) and 0 < i < len(points) - 1)]
            routes.append(tuple(points if chain[0] == edges[place][0] else points[::-1]))
        return Layout(tuple(boxes), tuple(routes), tuple(self.layer[:num]), total, height)


def _keep_apart(goals: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Returns heights nearest to `goals` in weighted squares that keep `gaps`, in order.

    Isotonic regression by pooling neighbours that are in each other's way.
    """
    starts = [0.0]
    for gap in gaps:
        starts.append(starts[-1] + gap)
    pools: list[list[float]] = []  # mean, weight, count
    for goal, weight, start in zip(goals, weights, starts, strict=True):
        pools.append([goal - start, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, weight_, count = pools.pop()
            last = pools[-1]
            last[0] = (last[0] * last[1] + mean * weight_) / (last[1] + weight_)
            last[1] += weight_
            last[2] += count
    means = [mean for mean, _, count in pools for _ in range(int(count))]
    return [mean + start for mean, start in zip(means, starts, strict=True)]


def _weighted_median(wishes: Sequence[tuple[float, float]], current: float) -> float:
    """Returns the height at which half the weight lies above; nearest to `current` if an interval."""
    ordered = sorted(wishes)
    half = sum(weight for _, weight in ordered) / 2
    total = 0.0
    for i, (height, weight) in enumerate(ordered):
        total += weight
        if total > half + 1e-9:
            return height
        if abs(total - half) <= 1e-9 and i + 1 < len(ordered):
            following = ordered[i + 1][0]
            return height if abs(current - height) <= abs(current - following) else following
    return ordered[-1][0]
