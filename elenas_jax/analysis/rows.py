"""Breaks a long drawing into rows, as text into lines: where one edge alone goes on to what follows.

An edge is such a place if, without it, nothing connects what reads the input and what gives the output.
Owns graphs only; knows nothing of positions or SVG.
"""

import itertools
from collections.abc import Callable, Sequence

Edge = tuple[int, int]


def break_rows(
    num_nodes: int,
    edges: Sequence[Edge],
    first: int,
    last: int,
    width: Callable[[Sequence[int]], float],
    most_width: float,
) -> list[list[int]]:
    """Returns the nodes of each row, in the order in which data flows through them.

    Args:
      num_nodes: of the graph.
      edges: `(source, target)`.
      first: the node of the input.
      last: the node of the output.
      width: of a part of a row, from its nodes.
      most_width: of a row, unless what cannot be broken is wider.
    """
    rows: list[list[int]] = []
    filled = 0.0
    for part in series_parts(num_nodes, edges, first, last):
        filled += width(part)
        if rows and filled <= most_width:
            rows[-1] += part
        else:
            rows.append(part)
            filled = width(part)
    return rows


def series_parts(num_nodes: int, edges: Sequence[Edge], first: int, last: int) -> list[list[int]]:
    """Returns the nodes between one breaking edge and the next, from the input to the output.

    What is not connected to either is in the first part.
    """
    path = _path(num_nodes, edges, first, last)
    if path is None:
        return [list(range(num_nodes))]
    bridges = _bridges(num_nodes, edges)
    cuts = [number for number, forward in path if number in bridges and forward]
    neighbours: list[list[int]] = [[] for _ in range(num_nodes)]
    for number, (source, target) in enumerate(edges):
        if number not in cuts:
            neighbours[source].append(target)
            neighbours[target].append(source)
    parts: list[list[int]] = []
    left = set(range(num_nodes))
    for start in [first, *(edges[number][1] for number in cuts)]:
        stack, part = [start], {start}
        while stack:
            new = set(neighbours[stack.pop()]) - part
            part |= new
            stack += new
        parts.append(sorted(part))
        left -= part
    parts[0] = sorted({*parts[0], *left})
    return parts


def _path(num_nodes: int, edges: Sequence[Edge], first: int, last: int) -> list[tuple[int, bool]] | None:
    """Returns the edges of a way between two nodes, and whether each is followed forwards."""
    leaving: list[list[tuple[int, int, bool]]] = [[] for _ in range(num_nodes)]
    for number, (source, target) in enumerate(edges):
        leaving[source].append((target, number, True))
        leaving[target].append((source, number, False))
    came: dict[int, tuple[int, int, bool] | None] = {first: None}
    stack = [first]
    while stack:
        node = stack.pop()
        for other, number, forward in leaving[node]:
            if other not in came:
                came[other] = (node, number, forward)
                stack.append(other)
    if last not in came:
        return None
    path = []
    step = came[last]
    while step is not None:
        node, number, forward = step
        path.append((number, forward))
        step = came[node]
    return path[::-1]


def _bridges(num_nodes: int, edges: Sequence[Edge]) -> set[int]:
    """Returns the edges without which more parts of the graph are unconnected (Tarjan, 1974)."""
    incident: list[list[tuple[int, int]]] = [[] for _ in range(num_nodes)]
    for number, (source, target) in enumerate(edges):
        incident[source].append((target, number))
        incident[target].append((source, number))
    order, low = [-1] * num_nodes, [0] * num_nodes
    counter, bridges = itertools.count(), set()
    for root in range(num_nodes):
        if order[root] >= 0:
            continue
        order[root] = low[root] = next(counter)
        stack = [(root, -1, iter(incident[root]))]
        while stack:
            node, entered, others = stack[-1]
            for other, number in others:
                if number == entered:
                    continue
                if order[other] < 0:
                    order[other] = low[other] = next(counter)
                    stack.append((other, number, iter(incident[other])))
                    break
                low[node] = min(low[node], order[other])
            else:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    low[above] = min(low[above], low[node])
                    if low[node] > order[above]:
                        bridges.add(entered)
    return bridges
