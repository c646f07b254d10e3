"""A canonical order for the nodes of a small graph with coloured nodes and coloured edges.

Knows nothing of operations: a graph is a matrix of colours. The order is found by individualisation
and refinement (McKay and Piperno, 2014, "Practical graph isomorphism, II"): colours of nodes are
refined by the colours around them; while nodes share a colour, one of them after the other is
given a colour of its own; of all orders reached in this way the one with the smallest matrix wins.
Automorphisms found on the way, and nodes that are plainly interchangeable, cut the search short.

Colours are 64-bit hashes of what a node sees. They do not depend on the given order of the nodes,
and a collision only makes the refinement weaker: the result compares whole matrices.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OUTGOING = np.uint64(0xD6E8FEB86659FD93)


def canonical_order(matrix: np.ndarray) -> np.ndarray:
    """Returns an order of the nodes that depends on the graph only up to renaming.

    Args:
      matrix: `[n, n]` non-negative integers below 2**32; the diagonal holds the colours of nodes,
        `matrix[source, target]` those of edges (0: no edge).

    Returns:
      `[n]` int64 `order`, such that `matrix[order][:, order]` is the same array for all graphs that
      are equal up to renaming, and differs for all others.
    """
    search = _Search(np.ascontiguousarray(matrix, "<u4"))
    return search.run()


def _mix(values: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit numbers, one to one (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class _Search:
    """The search tree of one graph; a node of the tree is a tuple of individualised graph nodes."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self.num_nodes = matrix.shape[0]
        wide = matrix.astype(np.uint64)
        incoming = np.where(wide > 0, _mix(wide * _GOLDEN), np.uint64(0))
        outgoing = np.where(wide > 0, _mix(wide * _OUTGOING), np.uint64(0))
        weights = incoming.T + outgoing
        np.fill_diagonal(weights, _GOLDEN)
        self.weights = weights  # [n, n], what a node hears from the colour of another
        self.generators: list[list[int]] = []  # automorphisms, as the image of each node
        self.best_path: tuple[int, ...] = ()
        self.best_trace: tuple[bytes, ...] = ()  # sorted colours on the way to the best leaf
        self.best_matrix = b""
        self.best_order = np.arange(self.num_nodes)

    def run(self) -> np.ndarray:
        colours = self.refine(_mix(np.diagonal(self.matrix).astype(np.uint64) + _OUTGOING))
        if len(set(colours.tolist())) < self.num_nodes:
            colours = self.refine(self.order_twins(colours))
        self.visit(colours, (), (), is_better=True)
        return self.best_order

    def refine(self, colours: np.ndarray) -> np.ndarray:
        """Lets nodes hear their neighbours' colours until no more nodes are told apart."""
        count = len(set(colours.tolist()))
        while count < self.num_nodes:
            colours = _mix(self.weights @ colours)
            previous, count = count, len(set(colours.tolist()))
            if count <= previous:
                break
        return colours

    def order_twins(self, colours: np.ndarray) -> np.ndarray:
        """Numbers nodes that have the same edges to and from the same nodes, and alike to each other.

        Swapping two of them is an automorphism, so any order of them is as good as any other.
        """
        edges = self.matrix.copy()
        np.fill_diagonal(edges, 0)
        for between in np.unique(edges[edges == edges.T]):
            # Rows of twins only agree if their diagonal holds what is between them.
            np.fill_diagonal(edges, between)
            both_ways = np.concatenate([edges, edges.T], axis=1)
            met: dict[tuple[int, bytes], int] = {}
            numbered = np.zeros(self.num_nodes, np.uint64)
            for node, colour in enumerate(colours.tolist()):
                key = (colour, both_ways[node].tobytes())
                numbered[node] = met[key] = met.get(key, -1) + 1
            colours = _mix(colours + numbered * _GOLDEN)
        return colours

    def visit(
        self, colours: np.ndarray, path: tuple[int, ...], trace: tuple[bytes, ...], is_better: bool
    ) -> int:
        """Searches below one node of the tree.

        Args:
          colours: `[n]` refined colours.
          path: the nodes individualised so far.
          trace: sorted colours of each step of the path.
          is_better: whether the trace is already smaller than the best one; otherwise it is equal so far.

        Returns:
          The depth at which to go on: smaller than the depth of this node if an automorphism shows
          that everything up to there was seen before.
        """
        cell = _target_cell(colours)
        if not cell:
            return self.visit_leaf(colours, path, trace, is_better)
        depth = len(path)
        explored: list[int] = []
        covered: set[int] = set()  # by automorphisms, from what is explored
        num_used = 0  # generators that `covered` knows of
        first_colours = colours
        for node in cell:
            if len(self.generators) > num_used:
                covered, num_used = self.orbit(explored, path), len(self.generators)
            if node in covered:
                continue
            marked = colours.copy()
            marked[node : node + 1] = _mix(marked[node : node + 1] + _OUTGOING)
            marked = self.refine(marked)
            # An automorphism can often be read off the refined colours, without going down to a leaf.
            if not explored:
                first_colours = marked
            elif self.add_automorphism(first_colours, marked):
                covered, num_used = self.orbit(explored, path), len(self.generators)
                if node in covered:
                    continue
            explored.append(node)
            covered = self.orbit(explored, path)
            seen = np.sort(marked).tobytes()
            if not is_better and seen > self.best_trace[depth]:
                continue
            child_is_better = is_better or seen < self.best_trace[depth]
            back_to = self.visit(marked, (*path, node), (*trace, seen), child_is_better)
            is_better = False  # the best leaf so far now has the trace of this node
            if back_to < depth:
                return back_to
        return depth

    def visit_leaf(
        self, colours: np.ndarray, path: tuple[int, ...], trace: tuple[bytes, ...], is_better: bool
    ) -> int:
        """Compares one complete order with the best one; returns the depth at which to go on."""
        order = np.argsort(colours, kind="stable")
        relabelled = self.matrix[order[:, None], order].tobytes()
        if is_better or relabelled < self.best_matrix:
            self.best_path, self.best_trace = path, trace
            self.best_matrix, self.best_order = relabelled, order
        elif relabelled == self.best_matrix:
            image = dict(zip(self.best_order.tolist(), order.tolist()))
            self.generators.append([image[node] for node in range(self.num_nodes)])
            depth = 0
            while path[depth] == self.best_path[depth]:
                depth += 1
            if tuple(image[node] for node in self.best_path[: depth + 1]) == path[: depth + 1]:
                return depth
        return len(path)

    def add_automorphism(self, colours_a: np.ndarray, colours_b: np.ndarray) -> bool:
        """Tries the map that leaves nodes of unchanged colour alone and sends others to their colour."""
        moved = np.flatnonzero(colours_a != colours_b)
        order_a = np.argsort(colours_a[moved], kind="stable")
        order_b = np.argsort(colours_b[moved], kind="stable")
        image = np.arange(self.num_nodes)
        image[moved[order_a]] = moved[order_b]
        if not np.array_equal(self.matrix[image[:, None], image], self.matrix):
            return False
        self.generators.append(image.tolist())
        return True

    def orbit(self, nodes: list[int], path: tuple[int, ...]) -> set[int]:
        """Returns what automorphisms that fix all of `path` make of `nodes`."""
        images = [image for image in self.generators if all(image[node] == node for node in path)]
        reached, waiting = set(nodes), list(nodes)
        while waiting:
            node = waiting.pop()
            for image in images:
                if image[node] not in reached:
                    reached.add(image[node])
                    waiting.append(image[node])
        return reached


def _target_cell(colours: np.ndarray) -> list[int]:
    """Returns the nodes of the largest colour class if it has more than one node, else nothing."""
    classes: dict[int, list[int]] = {}
    for node, colour in enumerate(colours.tolist()):
        classes.setdefault(colour, []).append(node)
    # Large classes split best: in a plane, points in general position fix more than points of a line.
    largest = min((-len(nodes), colour) for colour, nodes in classes.items())
    return classes[largest[1]] if largest[0] < -1 else []
