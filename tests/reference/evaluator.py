"""What a graph means: a slow, readable NumPy float64 evaluator of the ELENAS specification.

Written from the text of the specification alone, so that it is a second, independent reading of
it. `analyse` says whether a graph is a network and of which shapes; `evaluate` runs it;
`gradients` differentiates it exactly.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tests.reference.tape import Traced, backward

COMBINING = ("none", "matmul", "hadamard", "add", "recursion", "subtract", "max")
TRANSFORMING = (
    *("identity", "sigmoid", "tanh", "relu", "transpose"),
    *("softmax", "one_minus", "negate", "square", "gelu", "layer_norm", "mean_rows"),
)
REASONS = (
    "valid",
    "no path from input",
    "no final node",
    "illegitimate recursion",
    "shapes do not fit",
    "output rows",
    "no parameters",
    "needs a fixed length",
    "too long",  # of a padded program; nothing is too long for the reference
    "too many parameters",  # of a space that has a limit
)
TIME = "time"  # the number of steps, where it is not fixed

Size = int | str
Params = Mapping[Any, Any]


class Node(NamedTuple):
    """An intermediate node: its operands in ascending order of nodes, and its transform."""

    matmul: tuple[int, ...]  # in the order of multiplication
    hadamard: tuple[int, ...]
    add: tuple[int, ...]
    recursion: tuple[int, ...]
    subtract: tuple[int, ...]
    max: tuple[int, ...]
    transform: str


class Network(NamedTuple):
    """What of a graph is the network, or why it is none. Fields after a failed check are empty."""

    reason: int  # place in REASONS
    final: int = -1
    live: frozenset[int] = frozenset()  # the final node and its ancestors
    recurrent: bool = False
    depends_on_input: frozenset[int] = frozenset()  # live nodes with a path from node 0
    order: tuple[int, ...] = ()  # intermediate nodes, sources before targets within the step
    nodes: Mapping[int, Node] = MappingProxyType({})
    head: str = "none"
    values: Mapping[int, tuple[Size, Size]] = MappingProxyType({})  # (rows, columns) of what nodes hand on
    parameters: Mapping[int, tuple[Size, Size]] = MappingProxyType({})  # of initial nodes; no head
    head_shape: tuple[int, int] | None = None

    @property
    def num_parameters(self) -> int:
        sizes = [int(rows) * int(columns) for rows, columns in self.parameters.values()]
        if self.head_shape is not None:
            sizes += [self.head_shape[0] * self.head_shape[1], self.head_shape[1]]
        return sum(sizes)


def is_initial(node: int) -> bool:
    return node % 2 == 1


def is_intermediate(node: int) -> bool:
    return node % 2 == 0 and node > 0


# --- which nodes are the network: rules (a) to (f) ---


def _operands(edges: np.ndarray) -> dict[int, dict[int, str]]:
    """Returns {intermediate node: {source: combining operation}} after rules (a) and (b)."""
    num_nodes = edges.shape[0]
    operands: dict[int, dict[int, str]] = {}
    for target in filter(is_intermediate, range(num_nodes)):
        operands[target] = {}
        for source in range(num_nodes):
            name = COMBINING[edges[source, target]] if source != target else "none"
            if name == "recursion" and is_initial(source):  # (a)
                name = "none"
            if name != "none":
                operands[target][source] = name
    while dead := [node for node in operands if not operands[node]]:  # (b)
        for node in dead:
            del operands[node]
            for sources in operands.values():
                sources.pop(node, None)
    return operands


def _reach(start: int, neighbours: Mapping[int, set[int]]) -> set[int]:
    """Returns the nodes that can be reached from `start` in one step or more."""
    reached: set[int] = set()
    frontier = [start]
    while frontier:
        for node in neighbours.get(frontier.pop(), ()):
            if node not in reached:
                reached.add(node)
                frontier.append(node)
    return reached


def _order_within_step(operands: Mapping[int, Mapping[int, str]]) -> list[int] | None:
    """Sorts nodes so that all but recursion operands come first; None if there is a cycle."""
    waiting = {
        node: {s for s, name in sources.items() if name != "recursion" and is_intermediate(s)}
        for node, sources in operands.items()
    }
    order: list[int] = []
    while waiting:
        ready = [node for node, sources in waiting.items() if not sources]
        if not ready:
            return None
        for node in ready:
            del waiting[node]
        for sources in waiting.values():
            sources.difference_update(ready)
        order += ready
    return order


# --- widths ---


class _Widths:
    """Widths that are united by constraints; each class of equal widths has at most one size."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[Size | None] = []
        self.fit = True

    def new(self, size: Size | None = None) -> int:
        self.parent.append(len(self.parent))
        self.size.append(size)
        return len(self.parent) - 1

    def find(self, width: int) -> int:
        while self.parent[width] != width:
            width = self.parent[width]
        return width

    def unite(self, first: int, second: int) -> None:
        first, second = self.find(first), self.find(second)
        if first == second:
            return
        if self.size[first] is None:
            first, second = second, first
        if self.size[second] not in (None, self.size[first]):
            self.fit = False
        self.parent[second] = first

    def size_of(self, width: int, default: int) -> Size:
        size = self.size[self.find(width)]
        return default if size is None else size


def analyse(
    edges: Any,
    *,
    in_features: int,
    out_features: int,
    hidden_features: int = 64,
    head: str = "none",
    time_steps: int | None = None,
) -> Network:
    """Decides what of a graph is the network and whether it is one.

    Args:
      edges: `[M, M]` codes, `edges[source, target]`; the diagonal holds transforms.
      in_features: columns of the input.
      out_features: columns of the output.
      hidden_features: size of every width that nothing ties down.
      head: "none" or "linear".
      time_steps: rows of the input of a network without recursion, where that is fixed.
    """
    edges = np.asarray(edges)
    operands = _operands(edges)
    readers: dict[int, set[int]] = {}  # over all edges, recursion included
    for target, sources in operands.items():
        for source in sources:
            readers.setdefault(source, set()).add(target)

    depends_on_input = _reach(0, readers)
    if not depends_on_input:
        return Network(1)

    # (c), (d)
    feeds = {s for sources in operands.values() for s, name in sources.items() if name != "recursion"}
    candidates = depends_on_input - feeds
    if not candidates:
        return Network(2)
    ancestors = {node: _reach(node, {n: set(s) for n, s in operands.items()}) - {node} for node in candidates}
    final = max(candidates, key=lambda node: (len(ancestors[node]), node))
    # (e)
    live = ancestors[final] | {final}
    operands = {node: sources for node, sources in operands.items() if node in live}
    recurrent = any("recursion" in sources.values() for sources in operands.values())
    found = Network(0, final, frozenset(live), recurrent, frozenset(depends_on_input & live), head=head)

    order = _order_within_step(operands)
    if order is None:
        return found._replace(reason=3)

    nodes = {}
    for node, sources in operands.items():
        groups = {name: tuple(sorted(s for s in sources if sources[s] == name)) for name in COMBINING[1:]}
        groups["matmul"] = tuple(
            sorted(groups["matmul"], key=lambda s: (s != 0 and s not in depends_on_input, s))
        )
        transform = TRANSFORMING[edges[node, node]]
        if node == final and head == "none" and transform in ("sigmoid", "tanh", "relu"):
            transform = "identity"
        nodes[node] = Node(**groups, transform=transform)

    time: Size = TIME if time_steps is None else time_steps
    widths = _Widths()
    one = widths.new(1)
    shape = {0: (one if recurrent else widths.new(time), widths.new(in_features))}
    before_transform = {}
    for node in sorted(live - {0}):
        shape[node] = before_transform[node] = (widths.new(), widths.new())
        if is_initial(node):
            continue
        if nodes[node].transform == "transpose":
            shape[node] = shape[node][::-1]
        elif nodes[node].transform == "mean_rows":
            shape[node] = (one, shape[node][1])

    for node, parts in nodes.items():
        rows, columns = before_transform[node]
        for left, right in zip(parts.matmul, parts.matmul[1:], strict=False):
            widths.unite(shape[left][1], shape[right][0])
        if parts.matmul:
            widths.unite(rows, shape[parts.matmul[0]][0])
            widths.unite(columns, shape[parts.matmul[-1]][1])
        elementwise = parts.hadamard + parts.add + parts.recursion + parts.subtract + parts.max
        for operand in elementwise:
            # A parameter has one row and broadcasts over those of the node, data do not.
            widths.unite(shape[operand][0], one if is_initial(operand) else rows)
            widths.unite(shape[operand][1], columns)
        if not parts.matmul and all(map(is_initial, elementwise)):
            widths.unite(rows, one)
    widths.unite(shape[final][1], widths.new(out_features if head == "none" else hidden_features))

    found = found._replace(order=tuple(order), nodes=nodes)
    if not widths.fit:
        return found._replace(reason=4)
    sizes = {
        node: (widths.size_of(rows, hidden_features), widths.size_of(columns, hidden_features))
        for node, (rows, columns) in shape.items()
    }
    parameters = {node: sizes[node] for node in sorted(live) if is_initial(node)}
    found = found._replace(
        values={n: sizes[n] for n in sorted(live | {0}) if not is_initial(n)},
        parameters=parameters,
        head_shape=(hidden_features, out_features) if head == "linear" else None,
    )
    if sizes[final][0] != 1 and (recurrent or sizes[final][0] != time):
        return found._replace(reason=5)
    if not parameters:
        return found._replace(reason=6)
    if any(TIME in size for size in parameters.values()):
        return found._replace(reason=7)
    return found


# --- values ---


def _sigmoid(x: Any) -> Any:
    return 0.5 * (np.tanh(0.5 * x) + 1.0)


def _softmax(x: Any) -> Any:
    largest = getattr(x, "value", x).max(axis=-1, keepdims=True)  # a constant shift changes nothing
    weights = np.exp(x - largest)
    return weights / weights.sum(axis=-1, keepdims=True)


def _gelu(x: Any) -> Any:
    """Gaussian error linear units in the tanh form (Hendrycks and Gimpel, 2016)."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def _layer_norm(x: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-6)


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "transpose": lambda x: x.swapaxes(-1, -2),
    "softmax": _softmax,
    "one_minus": lambda x: 1.0 - x,
    "negate": lambda x: -x,
    "square": lambda x: x * x,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "mean_rows": lambda x: x.mean(axis=-2, keepdims=True),
}


def _node_value(node: Node, value: Mapping[int, Any], previous: Mapping[int, Any]) -> Any:
    """Value of a node: transform(max((matmuls) * (hadamards) + adds + previous - subtracts, maxes))."""
    result: Any = None
    for operand in node.matmul:
        result = value[operand] if result is None else result @ value[operand]
    for operand in node.hadamard:
        result = value[operand] if result is None else result * value[operand]
    for added in [value[s] for s in node.add] + [previous[s] for s in node.recursion]:
        result = added if result is None else result + added
    for operand in node.subtract:
        result = -value[operand] if result is None else result - value[operand]
    for operand in node.max:
        result = value[operand] if result is None else np.maximum(result, value[operand])
    return TRANSFORMS[node.transform](result)


def _step(network: Network, params: Params, x: Any, previous: Mapping[int, Any]) -> dict[int, Any]:
    """Returns the values of all nodes for one input: a step, or a whole sequence."""
    value = {0: x} | {node: params[node] for node in network.parameters}
    for node in network.order:
        value[node] = _node_value(network.nodes[node], value, previous)
    return value


def _head(network: Network, params: Params, value: Any) -> Any:
    return value @ params["head/kernel"] + params["head/bias"] if network.head == "linear" else value


def recursion_sources(network: Network) -> list[int]:
    """Returns the nodes whose previous value is read."""
    return sorted({source for node in network.nodes.values() for source in node.recursion})


def _run(network: Network, params: Params, inputs: Any, carry: Mapping[int, Any] | None) -> tuple[list, dict]:
    """Returns the outputs step by step and the carry; without recursion one output of all rows."""
    assert network.reason == 0, REASONS[network.reason]
    if not network.recurrent:
        value = _step(network, params, inputs, {})
        return [_head(network, params, value[network.final])], {}
    num_examples, num_steps = inputs.shape[:2]
    sources = recursion_sources(network)
    if carry is None:
        carry = {node: np.zeros((num_examples, *network.values[node])) for node in sources}
    outputs = []
    for step in range(num_steps):
        value = _step(network, params, inputs[:, step : step + 1], carry)
        outputs.append(_head(network, params, value[network.final]))
        carry = {node: value[node] for node in sources}
    return outputs, dict(carry)


def evaluate(
    network: Network, params: Params, inputs: np.ndarray, carry: Mapping[int, np.ndarray] | None = None
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Runs a valid network.

    Args:
      network: from `analyse`.
      params: {initial node: array}, with a linear head also "head/kernel" and "head/bias".
      inputs: `[N, T, in]`.
      carry: {node: `[N, rows, columns]`} previous values; zeros if None.

    Returns:
      `[N, T, out]` for a recurrent network, `[N, rows, out]` otherwise; and the last values of
      the nodes that are read by recursion.
    """
    outputs, carry = _run(network, params, inputs, carry)
    return np.concatenate(outputs, axis=1), carry


def gradients(
    network: Network, params: Params, inputs: np.ndarray, cotangent: np.ndarray
) -> tuple[dict[Any, np.ndarray], np.ndarray, float]:
    """Differentiates the sum of `outputs * cotangent`.

    Returns:
      Gradients of the parameters, `[N, T, in]` gradient of the inputs, and how far the nearest
      relu or max was from its kink (near one, a gradient in other precision may differ).
    """
    traced_params = {name: Traced(value) for name, value in params.items()}
    traced_inputs = Traced(inputs)
    outputs, _ = _run(network, traced_params, traced_inputs, None)
    parts = np.split(cotangent, len(outputs), axis=1)
    # The first steps of a delay line are plain zeros.
    traced = [pair for pair in zip(outputs, parts, strict=True) if isinstance(pair[0], Traced)]
    gradient = backward(traced)
    kink = min(output.kink for output, _ in traced)
    return {name: gradient(value) for name, value in traced_params.items()}, gradient(traced_inputs), kink


def draw_params(network: Network, rng: np.random.Generator, scale: float = 0.5) -> dict[Any, np.ndarray]:
    """Draws parameters of a valid network from N(0, scale^2), the head's bias too."""
    shapes: dict[Any, tuple] = dict(network.parameters)
    if network.head_shape is not None:
        shapes |= {"head/kernel": network.head_shape, "head/bias": network.head_shape[1:]}
    return {name: rng.normal(0.0, scale, shape) for name, shape in shapes.items()}
