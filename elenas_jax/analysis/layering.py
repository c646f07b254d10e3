"""Layers of a graph and the order inside them: the first half of a layered layout.

After Sugiyama, Tagawa and Toda (1981). Edges that would close a cycle are turned round, delayed ones
first; nodes get layers by longest path; an edge that crosses layers gets a passing place in each;
crossings are reduced by barycentre sweeps and swaps of neighbours.

An *arc* is an edge that may have been turned round. An *item* is a node or a passing place.
"""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from statistics import fmean

SWEEPS = 16


def turned_round(
    num_nodes: int, edges: Sequence[tuple[int, int]], delayed: Sequence[bool]
) -> list[tuple[int, int]]:
    """Returns an arc per edge such that all arcs but loops form an acyclic graph.

    Delayed edges come last and point backwards where they may: what is remembered is drawn as
    coming back.
    """
    arcs = list(edges)
    after: list[set[int]] = [set() for _ in range(num_nodes)]

    def reaches(start: int, goal: int) -> bool:
        stack, seen = [start], {start}
        while stack:
            node = stack.pop()
            if node == goal:
                return True
            new = after[node] - seen
            seen |= new
            stack += new
        return False

    for place in sorted(range(len(edges)), key=lambda i: bool(delayed[i])):
        source, target = edges[place]
        if source == target:
            continue
        arc = (target, source) if delayed[place] else (source, target)
        if reaches(arc[1], arc[0]):
            arc = (arc[1], arc[0])
        arcs[place] = arc
        after[arc[0]].add(arc[1])
    return arcs


def assign_layers(
    num_nodes: int, arcs: Sequence[tuple[int, int]], first: Sequence[int], last: Sequence[int]
) -> list[int]:
    """Returns a layer per node: longest path, then each node near what it is tied to."""
    before: list[list[int]] = [[] for _ in range(num_nodes)]
    after: list[list[int]] = [[] for _ in range(num_nodes)]
    for source, target in arcs:
        if source != target:
            after[source].append(target)
            before[target].append(source)
    layer = [0] * num_nodes
    for _ in range(num_nodes):  # longest path; at most one round per layer
        changed = False
        for node in range(num_nodes):
            wanted = max((layer[other] + 1 for other in before[node]), default=0)
            changed |= wanted != layer[node]
            layer[node] = wanted
        if not changed:
            break
    end = max(layer)
    pinned = {node for node in first if not before[node]} | {node for node in last if not after[node]}
    for node in last:
        if not after[node]:
            layer[node] = end
    for _ in range(num_nodes):
        changed = False
        for node in range(num_nodes):
            if node in pinned or len(before[node]) >= len(after[node]):
                continue  # more edges out than in: as far right as those allow
            wanted = min(layer[other] for other in after[node]) - 1
            changed |= wanted != layer[node]
            layer[node] = wanted
        if not changed:
            break
    used = {old: new for new, old in enumerate(sorted(set(layer)))}
    return [used[value] for value in layer]


def split_long_edges(
    arcs: Sequence[tuple[int, int]], layer: Sequence[int]
) -> tuple[list[list[int]], list[int], list[tuple[int, int, int]]]:
    """Puts a passing place into each layer that an edge crosses.

    Returns:
      The nodes and places along each arc; layers, of places too; `(left, right, arc)` for each
      piece of an arc between neighbouring layers.
    """
    layer = list(layer)
    chains: list[list[int]] = []
    segments = []
    for number, (source, target) in enumerate(arcs):
        chain = [source]
        if source != target:
            for between in range(layer[source] + 1, layer[target]):
                chain.append(len(layer))
                layer.append(between)
            chain.append(target)
        segments += [(left, right, number) for left, right in itertools.pairwise(chain)]
        chains.append(chain)
    return chains, layer, segments


def _neighbours(
    num: int, segments: Sequence[tuple[int, int, int]]
) -> tuple[list[list[int]], list[list[int]]]:
    left: list[list[int]] = [[] for _ in range(num)]
    right: list[list[int]] = [[] for _ in range(num)]
    for source, target, _ in segments:
        right[source].append(target)
        left[target].append(source)
    return left, right


def reduce_crossings(layer: Sequence[int], segments: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Returns the nodes and places of each layer from top to bottom."""
    left, right = _neighbours(len(layer), segments)
    layers: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    seen: set[int] = set()

    def visit(start: int) -> None:
        stack = [start]
        while stack:
            item = stack.pop()
            if item not in seen:
                seen.add(item)
                layers[layer[item]].append(item)
                stack += reversed(right[item])

    for item in sorted(range(len(layer)), key=lambda i: layer[i]):
        visit(item)

    best, fewest = [list(items) for items in layers], _num_crossings(layers, right)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        numbers = range(1, len(layers)) if forward else range(len(layers) - 2, -1, -1)
        for number in numbers:
            sides = left if forward else right
            place = {item: i for i, item in enumerate(layers[number - 1 if forward else number + 1])}
            own = {item: i for i, item in enumerate(layers[number])}
            scale = len(place) / max(len(own), 1)
            wish = {
                item: fmean(place[other] for other in sides[item]) if sides[item] else own[item] * scale
                for item in layers[number]
            }
            # Ties are turned over in every other pair of sweeps, or two orders could alternate for ever.
            turn = -1 if sweep % 4 >= 2 else 1
            wishes = sorted((wish[item], turn * own[item], item) for item in layers[number])
            layers[number] = [item for _, _, item in wishes]
        _swap_neighbours(layers, left, right)
        crossings = _num_crossings(layers, right)
        if crossings < fewest:
            best, fewest = [list(items) for items in layers], crossings
        if fewest == 0:
            break
    return best


def _num_crossings(layers: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> int:
    total = 0
    for items, following in itertools.pairwise(layers):
        place = {item: i for i, item in enumerate(following)}
        ends: list[int] = []
        for item in items:
            new = sorted(place[other] for other in right[item])
            total += sum(len(ends) - bisect_right(ends, end) for end in new)
            ends = sorted(ends + new)
    return total


def _swap_neighbours(
    layers: Sequence[list[int]], left: Sequence[Sequence[int]], right: Sequence[Sequence[int]]
) -> None:
    """Swaps neighbours inside layers while that removes crossings; changes `layers`."""
    place = {item: i for items in layers for i, item in enumerate(items)}

    def crossings(upper: int, lower: int) -> int:
        return sum(place[a] > place[b] for side in (left, right) for a in side[upper] for b in side[lower])

    for _ in range(4):
        changed = False
        for items in layers:
            for i in range(len(items) - 1):
                upper, lower = items[i], items[i + 1]
                if crossings(upper, lower) > crossings(lower, upper):
                    items[i], items[i + 1] = lower, upper
                    place[upper], place[lower] = i + 1, i
                    changed = True
        if not changed:
            return
