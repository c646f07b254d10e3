"""Networks as named statements: what equations and exported source have in common.

A network is read from its graph on the host. Nodes that only hand on another value (`h(t-1)`,
say) are written as that value, and small nodes that are read once are written where they are
read; every other node is one statement with a name.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.graphs.computation import MATMUL, ComputationGraph, pad_graph
from elenas_jax.graphs.liveness import NO_PARAMETERS, VALID, Liveness, explain, liveness
from elenas_jax.graphs.program import HEADS
from elenas_jax.ops import COMBINING, TRANSFORMING, TRANSFORMING_BY_NAME, Combining, Transforming

MAX_INLINED_OPERANDS = 3  # larger nodes get a statement of their own

# How tightly an expression holds together, loosest first.
SUM, PRODUCT, CHAIN, ATOM = range(4)
OPERATORS = {"@": CHAIN, "*": PRODUCT, "+": SUM, "-": SUM}


class Text(NamedTuple):
    """An expression as text."""

    text: str
    level: int = ATOM


class Value(NamedTuple):
    """The value of a node, `delay` steps ago."""

    node: int
    delay: int = 0


class Operand(NamedTuple):
    """A value and the combining operation that takes it."""

    row: Combining
    value: Value


class Reading(NamedTuple):
    """A network, read from its graph."""

    final: int
    recurrent: bool
    depends_on_input: frozenset[int]
    transforms: dict[int, Transforming]  # of intermediate nodes of the network
    edges: dict[int, list[tuple[Combining, int]]]  # operands as they stand in the graph, in order
    operands: dict[int, list[Operand]]  # the same without nodes that only hand on a value
    named: tuple[int, ...]  # nodes that are statements, in order; the final node is the last
    parameters: dict[int, bool]  # initial nodes of the network; True where a product reads it


class Form(NamedTuple):
    """How an operation is written."""

    text: str  # format of `{x}`, and of `{y}` if it takes two operands
    level: int = ATOM  # of the whole
    encloses: bool = True  # operands stand between brackets or commas and need none of their own


class Notation(NamedTuple):
    """How expressions are written."""

    operator: Callable[[str], str]  # symbol of an infix operation -> text between operands
    combine: Callable[[Combining], Form]  # of a combining operation that is no operator
    transform: Callable[[Transforming], Form]
    delayed: Callable[[str, int], str]  # name, steps -> text


def call(function: str, *operands: str) -> Form:
    """Returns the form `function({x}, {y})` of these operands."""
    function = function.replace("{", "{{").replace("}", "}}")
    return Form(f"{function}({', '.join(f'{{{operand}}}' for operand in operands)})")


_liveness = jax.jit(liveness)


def rounded(graph: ComputationGraph) -> ComputationGraph:
    """Pads a graph to a multiple of 32 nodes, so that graphs of many sizes share compilations."""
    return pad_graph(graph, -(-graph.num_nodes // 32) * 32)


def known_liveness(graph: ComputationGraph) -> Liveness:
    """Returns the liveness of a graph `rounded`, on the host."""
    return jax.tree.map(np.asarray, _liveness(rounded(graph)))


def read(graph: ComputationGraph, head: str) -> Reading:
    """Reads the network of a graph.

    Raises:
      ValueError: for a graph that is no network, whatever the widths, with the reason; or for an
        unknown head.
    """
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; allowed are {', '.join(map(repr, HEADS))}.")
    live = known_liveness(graph)
    nodes = [int(node) for node in np.flatnonzero(live.network)]
    parameters = [node for node in nodes if node % 2]
    status = int(live.reason)
    if status == VALID and not parameters:
        status = NO_PARAMETERS
    if status != VALID:
        raise ValueError(f"The graph is not a valid network: {explain(status)} (status {status}).")
    final = int(live.final)

    transforms, edges = {}, {}
    for node in nodes:
        if node % 2 or node == 0:
            continue
        transforms[node] = TRANSFORMING[live.edges[node, node]]
        codes = np.array(live.edges[:, node])
        codes[node] = 0

        def place(source: int, codes: np.ndarray = codes) -> tuple[int, bool, int]:
            later = source % 2 == 1
            if codes[source] == MATMUL:
                later = not live.depends_on_input[source]
            return int(codes[source]), later, source

        sources = sorted((int(source) for source in np.flatnonzero(codes)), key=place)
        edges[node] = [(COMBINING[codes[source]], source) for source in sources]
    if head == "none" and transforms[final].is_activation:
        transforms[final] = TRANSFORMING_BY_NAME["identity"]

    values = _resolve(edges, transforms, final)

    def operand(row: Combining, source: int) -> Operand:
        node, delay = values.get(source, Value(source))
        return Operand(row, Value(node, delay + row.delayed))

    operands = {
        node: [operand(row, source) for row, source in sources]
        for node, sources in edges.items()
        if values[node] == Value(node)
    }
    factors = {value.node for group in operands.values() for row, value in group if row.code == MATMUL}
    return Reading(
        final=final,
        recurrent=bool(live.recurrent),
        depends_on_input=frozenset(int(node) for node in np.flatnonzero(live.depends_on_input)),
        transforms=transforms,
        edges=edges,
        operands=operands,
        named=_name(operands, transforms, final),
        parameters={node: node in factors for node in parameters},
    )


def _resolve(edges: dict, transforms: dict[int, Transforming], final: int) -> dict[int, Value]:
    """Returns for each intermediate node the value that it is, itself unless it only hands on."""
    hands_on = {}
    for node, sources in edges.items():
        row, source = sources[0]
        unchanged = transforms[node].name == row.alone == "identity"
        if len(sources) == 1 and node != final and unchanged:
            hands_on[node] = Value(source, int(row.delayed))
    for node in sorted(hands_on):  # of nodes that hand on to each other in a circle the first stays
        visited, last = set(), node
        while last in hands_on and last not in visited:
            visited.add(last)
            last = hands_on[last].node
        if last == node:
            del hands_on[node]
    values = {}
    for node in edges:
        value = Value(node)
        while value.node in hands_on:
            source, delay = hands_on[value.node]
            value = Value(source, value.delay + delay)
        values[node] = value
    return values


def _name(
    operands: dict[int, list[Operand]], transforms: dict[int, Transforming], final: int
) -> tuple[int, ...]:
    """Returns the nodes that are statements, each after those it reads within the step."""
    waiting = {
        node: {operand.value.node for operand in group if not operand.value.delay} & operands.keys()
        for node, group in operands.items()
        if node != final
    }
    order = []
    while waiting:
        node = min(node for node, sources in waiting.items() if sources.isdisjoint(waiting))
        del waiting[node]
        order.append(node)
    order.append(final)

    reads = Counter(operand.value for group in operands.values() for operand in group)
    remembered = {value.node for value in reads if value.delay}
    size: dict[int, int] = {}  # operands of nodes that are written where they are read
    for node in order[:-1]:
        num_operands = sum(size.get(operand.value.node, 1) for operand in operands[node])
        num_operands *= transforms[node].flax.count("{x}")  # it is written that often
        short = transforms[node].name in ("identity", "transpose") or len(operands[node]) == 1
        once = reads[Value(node)] == 1 and node not in remembered
        if short and once and num_operands <= MAX_INLINED_OPERANDS:
            size[node] = num_operands
    return tuple(node for node in order if node not in size)


class Writer:
    """Writes the statements of a network in one notation; names parameters as they appear."""

    def __init__(self, reading: Reading, notation: Notation) -> None:
        self.reading = reading
        self.notation = notation
        self.names = {0: "x", reading.final: "y"}
        others = reading.named[:-1]
        self.names |= {node: f"h{place}" if len(others) > 1 else "h" for place, node in enumerate(others, 1)}

    def name(self, node: int) -> str:
        """Returns the name of a node that is not written where it is read."""
        if node not in self.names:
            letter = "W" if self.reading.parameters[node] else "b"
            taken = sum(name.startswith(letter) for name in self.names.values())
            self.names[node] = f"{letter}{taken + 1}"
        return self.names[node]

    def value(self, value: Value) -> Text:
        """Writes a value where it is read."""
        if value.delay:
            return Text(self.notation.delayed(self.name(value.node), value.delay))
        if value.node in self.reading.operands and value.node not in self.reading.named:
            return self.expression(value.node)
        return Text(self.name(value.node))

    def terms(self, node: int) -> list[tuple[Combining, Text]]:
        """Returns a node's operands in order, the first one prepared to stand alone."""
        return self._written(self.reading.operands[node])

    def expression(self, node: int) -> Text:
        """Writes what a node computes; of a sum the terms with the input come first."""
        operands = self.reading.operands[node]
        product = list(itertools.takewhile(_is_factor, operands))
        added = [operand for operand in operands if operand.row.symbol == "+"]
        first = [operand for operand in added if self._reads_input(operand.value)]
        if product and first and not any(self._reads_input(operand.value) for operand in product):
            rest = [operand for operand in operands if operand not in product and operand not in first]
            text = self.joined(self._written(first))
            text = self.join(text, first[0].row, self.joined(self._written(product)))
            text = self.joined(self._written(rest), text)
        else:
            text = self.joined(self._written(operands))
        return self.transform(self.reading.transforms[node], text)

    def _written(self, operands: list[Operand]) -> list[tuple[Combining, Text]]:
        return [(operand.row, self.value(operand.value)) for operand in operands]

    def _reads_input(self, value: Value) -> bool:
        if value == Value(0):
            return True
        if value.node in self.reading.named:
            return False
        return any(self._reads_input(operand.value) for operand in self.reading.operands.get(value.node, ()))

    def joined(self, terms: list[tuple[Combining, Text]], text: Text | None = None) -> Text:
        """Writes operands from left to right, after `text` if there is any."""
        for row, operand in terms:
            if text is None:
                text = self.transform(TRANSFORMING_BY_NAME[row.alone], operand)
            else:
                text = self.join(text, row, operand)
        assert text is not None
        return text

    def join(self, left: Text, row: Combining, right: Text) -> Text:
        """Writes what a combining operation does to all that stands to its left and one operand."""
        if row.symbol not in OPERATORS:
            return _filled(self.notation.combine(row), x=left, y=right)
        level = OPERATORS[row.symbol]
        if level != SUM and left.level not in (level, ATOM):
            left = _enclosed(left)
        joins_sum = row.symbol == "+" and right.level == SUM and not right.text.startswith("-")
        if right.level != ATOM and not (level == SUM < right.level) and not joins_sum:
            right = _enclosed(right)
        return Text(f"{left.text}{self.notation.operator(row.symbol)}{right.text}", level)

    def transform(self, row: Transforming, text: Text) -> Text:
        """Writes a transforming operation."""
        if row.name == "identity":
            return text
        return _filled(self.notation.transform(row), x=text)


def _is_factor(operand: Operand) -> bool:
    return OPERATORS.get(operand.row.symbol, SUM) > SUM


def _enclosed(text: Text) -> Text:
    return Text(f"({text.text})")


def _filled(form: Form, **operands: Text) -> Text:
    if not form.encloses:
        operands = {key: text if text.level == ATOM else _enclosed(text) for key, text in operands.items()}
    return Text(form.text.format(**{key: text.text for key, text in operands.items()}), form.level)
