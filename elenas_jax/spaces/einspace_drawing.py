"""What drawings of an einspace architecture show: its network, or its derivation as a tree.

Labels and colours are data, as in `elenas_drawing`; `analysis` draws them. The network is the simplified
one, which is what is trained: identities are left out, and a convolution is one box. What stands in a
branch that is shared by 4 or 8 copies is drawn once, as a stack.
"""

from typing import Any, NamedTuple

from elenas_jax.ops.fundamental_shapes import Shape
from elenas_jax.spaces.einspace_canonical import simplify
from elenas_jax.spaces.einspace_typing import Typed

INPUT_COLOUR = "#ffffff"
EDGE_COLOUR = "#6b7280"


class Group(NamedTuple):
    """Operations that have a colour of their own in drawings."""

    label: str
    colour: str
    kinds: tuple[str, ...]  # of `ops.fundamental`, or of modules


GROUPS = (
    Group("branching", "#f6cfa6", ("clone", "group", "branching")),
    Group("aggregation", "#f2b3ad", ("add", "matmul", "scaled_matmul", "concat")),
    Group("routing", "#d3d9e2", ("permute", "im2col", "col2im", "routing")),
    Group("convolution", "#9cc9f5", ("convolution", "conv1d")),
    Group("linear", "#c3dcf9", ("linear", "relative_linear")),
    Group("norm", "#fbeaa0", ("norm",)),
    Group("activation", "#c4e8b7", ("leaky_relu", "softmax")),
    Group("pooling", "#bfe3df", ("max_pool",)),
    Group("positional encoding", "#e3cdf2", ("positional_encoding",)),
    Group("identity", "#f3f3f3", ("identity",)),
    Group("module", "#eceff3", ("sequential", "computation")),
)
_GROUP_OF = {kind: group for group in GROUPS for kind in group.kinds}
_ORDERED = ("matmul", "scaled_matmul", "concat")  # aggregations whose branches are no set


def draw_derivation(typed: Typed) -> dict[str, Any]:
    """Returns nodes, edges and legend of the network that a derivation stands for."""
    network = simplify(typed)
    drawing = _Drawing()
    shape = shape_text(network.before.shape)
    source = drawing.node("input", "x", "", INPUT_COLOUR, note=shape, about=f"the input, {shape}")
    end = drawing.module(network, _End(source))
    drawing.nodes[end.node]["is_output"] = True
    return drawing.finished()


def draw_tree(typed: Typed) -> dict[str, Any]:
    """Returns nodes, edges and legend of a derivation as it was drawn or made, from its root."""
    drawing = _Drawing()

    def visit(typed: Typed, copies: int) -> int:
        kind = typed.op.kind if typed.op else typed.kind
        node = drawing.operation(typed, kind, typed.name, copies)
        last = len(typed.children) - 1
        for place, child in enumerate(typed.children):
            is_shared = typed.copies > 1 and 0 < place < last
            entered = copies * typed.copies if is_shared else copies
            drawing.edge(node, visit(child, entered), f"\u00d7{typed.copies}" if is_shared else "")
        return node

    visit(typed, 1)
    return drawing.finished()


def convolution_label(typed: Typed) -> str:
    """Returns what a simplified convolution is called: "conv 3x3 /2, 64" for stride 2 and 64 channels."""
    unfolding = typed.children[0].op
    assert unfolding is not None
    kernel, stride, _ = unfolding.values
    stride_text = f" /{stride}" if stride > 1 else ""
    return f"conv {kernel}x{kernel}{stride_text}, {typed.after.shape[0]}"


class _End(NamedTuple):
    """Where a value comes from, and what is written at the head of the next edge."""

    node: int
    symbol: str = ""


class _Drawing:
    """Nodes and edges so far."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []

    def node(
        self, kind: str, label: str, operation: str, colour: str, *, note: str, about: str, copies: int = 1
    ) -> int:
        self.nodes.append(
            {
                "id": len(self.nodes),
                "kind": kind,
                "label": label,
                "operation": operation,
                "colour": colour,
                "note": note,
                "about": about,
                "copies": copies,
                "is_output": False,
            }
        )
        return len(self.nodes) - 1

    def operation(self, typed: Typed, kind: str, label: str, copies: int) -> int:
        """Adds an operation or a module, with the shape of what it gives."""
        shape = shape_text(typed.after.shape)
        about = [shape] + [f"{typed.parameters:,} parameters"] * bool(typed.parameters)
        about += [f"{copies} copies"] * (copies > 1)
        if kind == "convolution":
            about.append(" > ".join(child.name for child in typed.children))
        colour = _GROUP_OF[kind].colour
        note = f"{copies} \u00d7 {shape}" if copies > 1 else shape
        return self.node(
            "intermediate", label, label, colour, note=note, about=", ".join(about), copies=copies
        )

    def edge(self, source: int, target: int, symbol: str) -> None:
        self.edges.append(
            {
                "source": source,
                "target": target,
                "operation": "",
                "symbol": symbol,
                "colour": EDGE_COLOUR,
                "delayed": False,
            }
        )

    def module(self, typed: Typed, entry: _End, copies: int = 1) -> _End:
        """Adds what a simplified module does to a value; returns where its result comes from."""
        if typed.name == "identity":
            return entry
        if typed.kind == "sequential":
            for child in typed.children:
                entry = self.module(child, entry, copies)
            return entry
        if typed.kind == "branching":
            return self.branching(typed, entry, copies)
        is_leaf = typed.op is not None
        kind = typed.op.kind if typed.op else "convolution"
        node = self.operation(typed, kind, typed.name if is_leaf else convolution_label(typed), copies)
        self.edge(entry.node, node, entry.symbol)
        return _End(node)

    def branching(self, typed: Typed, entry: _End, copies: int) -> _End:
        branch, *inner, merge = typed.children
        assert branch.op is not None and merge.op is not None
        fork = self.operation(branch, branch.op.kind, branch.name, copies)
        self.edge(entry.node, fork, entry.symbol)
        is_split, is_ordered = branch.op.kind == "group", merge.op.kind in _ORDERED
        ends = []
        for number, module in enumerate(inner, 1):
            symbol = str(number) if typed.copies == 1 else f"\u00d7{typed.copies}"
            into = symbol if is_split or typed.copies > 1 else ""
            out = symbol if is_ordered or typed.copies > 1 else ""
            end = self.module(module, _End(fork, into), copies * typed.copies)
            ends.append(_End(end.node, out or (into if end.node == fork else "")))
        node = self.operation(merge, merge.op.kind, merge.name, copies)
        for end in ends:
            self.edge(end.node, node, end.symbol)
        return _End(node)

    def finished(self) -> dict[str, Any]:
        used = {node["colour"] for node in self.nodes}
        legend = [{"label": group.label, "colour": group.colour} for group in GROUPS if group.colour in used]
        return {"nodes": self.nodes, "edges": self.edges, "legend": legend}


def shape_text(shape: Shape) -> str:
    """Returns a shape as "3x64x64"."""
    return "x".join(map(str, shape))
