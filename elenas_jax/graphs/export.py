"""Networks as text: equations for a reader, Flax source for a project of one's own."""

import functools
import keyword
import re
import textwrap
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.computation import MATMUL, ComputationGraph
from elenas_jax.graphs.constructor import _find_phases, _infer_shapes, _order_operands, construct
from elenas_jax.graphs.liveness import liveness
from elenas_jax.graphs.program import TIME, check_valid
from elenas_jax.graphs.statements import (
    ATOM,
    SUM,
    Form,
    Notation,
    Reading,
    Text,
    Value,
    Writer,
    call,
    read,
    rounded,
)
from elenas_jax.ops.templates import is_arithmetic, is_primary, takes_arguments

# Transforms that equations do not write as a function.
_EQUATION_FORMS = {
    "transpose": Form("{x}^T", encloses=False),
    "one_minus": Form("1 - {x}", SUM, encloses=False),
    "negate": Form("-{x}", SUM, encloses=False),
    "square": Form("{x}^2", encloses=False),
}

_EQUATIONS = Notation(
    operator=lambda symbol: " " if symbol == "@" else f" {symbol} ",
    combine=lambda row: call(row.symbol, "x", "y"),
    transform=lambda row: _EQUATION_FORMS.get(row.name) or call(row.symbol, "x"),
    delayed=lambda name, steps: f"{name}(t-{steps})",
)


def _python_form(template: str) -> Form:
    if is_primary(template) or is_arithmetic(template):
        return Form(template, ATOM if is_primary(template) else SUM, takes_arguments(template))
    return Form(f"({template})", ATOM, takes_arguments(template))


_PYTHON = Notation(
    operator=lambda symbol: f" {symbol} ",
    combine=lambda row: _python_form(row.flax),
    transform=lambda row: _python_form(row.flax),
    delayed=lambda name, steps: f"{name}_last" + ("" if steps == 1 else str(steps)),
)

# What exported code, and the way it is used, call by these names.
_TAKEN = ("dict", "inputs", "jax", "jnp", "nn", "np", "outputs", "params", "unflatten_dict")
_ROOM = 92  # columns of a line of exported code; with the indent of a method 100
_AROUND = 20  # of these for what stands around an operand: `h1 = jnp.maximum(h1, ...)`


def equations(graph: ComputationGraph, head: str = "linear") -> str:
    """Writes a network as equations, one line a node that matters.

    `x` is the input, `y` the final node, without the head; W are parameters that an operation of
    the kind matmul takes, also where nothing stands to its left, b are all others, which are rows;
    `h(t-1)` is the value of the previous step, zero at the start. A product of matrices is written
    without a sign, `*` is elementwise.

    Raises:
      ValueError: for a graph that is no network, whatever the widths, with the reason. Whether
        shapes fit depends on widths: ask `construct`.
    """
    reading = read(graph, head)
    writer = Writer(reading, _EQUATIONS)
    return "\n".join(f"{writer.names[node]} = {writer.expression(node).text}" for node in reading.named)


def parameter_names(graph: ComputationGraph, head: str = "linear") -> dict[int, str]:
    """Returns the name of each initial node of the network, in equations and in Flax source."""
    reading = read(graph, head)
    writer = Writer(reading, _EQUATIONS)
    for node in reading.named:
        writer.expression(node)
    return {node: writer.name(node) for node in reading.parameters}


def flax_source(
    graph: ComputationGraph,
    name: str,
    *,
    head: str = "linear",
    in_features: int = 7,
    out_features: int = 1,
    hidden_features: int = 64,
    time_steps: int | None = None,
) -> str:
    """Writes a network as a Flax Linen class that needs nothing of this package.

    A recurrent network becomes a cell for `flax.linen.RNN`, which maps `[..., T, in]` to
    `[..., T, out]`; any other a module from `[..., T, in]` to `[..., rows, out]`, rows being T
    or 1. Parameters are called as in `equations` (see `parameter_names`); a `(1, columns)` one
    may have shape `(columns,)`. A linear head is the submodule `head`. Widths are fields of the
    class with the given ones as defaults, unless shapes fit for these numbers only: then the
    numbers are written into it.

    Args:
      graph: a valid network for these widths.
      name: name of the class.
      head: as in `construct`, and so are the widths and `time_steps`.

    Raises:
      ValueError: for a graph that is not valid, with the reason, or a name that cannot be a class or that
        the code needs for something else.
    """
    is_dunder = name.startswith("__") and name.endswith("__")
    if not name.isidentifier() or keyword.iskeyword(name) or is_dunder or name in _TAKEN:
        raise ValueError(
            f"name is {name!r}; it must be a name that a Python class can have, not one like __init__, "
            f"and none of {', '.join(_TAKEN)}."
        )
    graph = rounded(graph)
    widths = dict(in_features=in_features, out_features=out_features, hidden_features=hidden_features)
    check_valid(compiled_construct(graph, **widths, head=head, time_steps=time_steps))
    reading = read(graph, head)
    code = _methods(reading, _Sizes(graph, reading, head, {**widths, "time_steps": time_steps}), head)
    base, title = ("nn.Module", "Module for whole sequences.")
    if reading.recurrent:
        base, title = ("nn.RNNCellBase", "Recurrent cell, to be run with `nn.RNN`.")
    doc = equations(graph, head).splitlines() + (["outputs: a dense layer of y"] if head == "linear" else [])
    doc = [textwrap.fill(line, _ROOM, subsequent_indent=" " * 8) for line in doc]
    members = ["\n".join([f'"""{title}', "", *doc, '"""'])]
    fields = ("hidden_features", "out_features")
    members.append("\n".join(f"{key}: int = {widths[key]}" for key in fields if f"self.{key}" in code))
    members.append(code)
    imports = "import flax.linen as nn\nimport jax\n"
    imports += "import jax.numpy as jnp\n" if re.search(r"\bjnp\b", code) else ""
    body = textwrap.indent("\n\n".join(member for member in members if member), " " * 4)
    return f"{imports}\n\nclass {name}({base}):\n{body}\n"


compiled_construct = jax.jit(
    construct, static_argnames=("in_features", "out_features", "hidden_features", "head", "time_steps")
)


class _Sizes:
    """Shapes of what nodes hand on, and how they are written."""

    def __init__(
        self, graph: ComputationGraph, reading: Reading, head: str, widths: Mapping[str, int | None]
    ) -> None:
        given, _ = _node_shapes(graph, reading, head, widths)
        general, fits = _node_shapes(graph, reading, head, _APART)
        meaning = {_APART[key]: TIME if width is None else width for key, width in widths.items()}
        symbolic = fits and given == [tuple(meaning.get(size, size) for size in shape) for shape in general]
        self.shapes = general if symbolic else given
        self._words = {_APART[key]: word for key, word in _WORDS.items()} if symbolic else {}
        self.out_features = _WORDS["out_features"] if symbolic else str(widths["out_features"])

    def written(self, node: int) -> tuple[str, str]:
        """Returns rows and columns of a node as they stand in code."""
        rows, cols = self.shapes[node]
        return self._words.get(rows, str(rows)), self._words.get(cols, str(cols))


# Widths so unlike that only a graph makes them equal.
_APART = dict(in_features=1_000_003, out_features=1_000_033, hidden_features=1_000_037, time_steps=1_000_039)
_WORDS = dict(
    in_features="in_features",
    out_features="self.out_features",
    hidden_features="self.hidden_features",
    time_steps="time_steps",
)


def _node_shapes(
    graph: ComputationGraph, reading: Reading, head: str, widths: Mapping[str, int | None]
) -> tuple[list[tuple[int, int]], bool]:
    """Returns the shape of each node's value, after its transform, and whether shapes fit."""
    time = TIME if widths["time_steps"] is None else widths["time_steps"]
    sizes = jnp.array([1, time, widths["in_features"], widths["hidden_features"], widths["out_features"]])
    transforms = np.zeros(graph.num_nodes, np.int32)
    for node, row in reading.transforms.items():
        transforms[node] = row.code
    rows, cols, fits = _infer(graph.edges, jnp.asarray(transforms), head, sizes)
    return list(zip(np.asarray(rows).tolist(), np.asarray(cols).tolist(), strict=True)), bool(fits)


@functools.partial(jax.jit, static_argnames="head")
def _infer(edges: jax.Array, transforms: jax.Array, head: str, sizes: jax.Array) -> tuple:
    live = liveness(ComputationGraph(edges))
    operands = _order_operands(live, _find_phases(live))
    _, _, rows, cols, fits = _infer_shapes(live, operands, transforms, head, sizes)
    return rows, cols, fits


def _methods(reading: Reading, sizes: _Sizes, head: str) -> str:
    """Returns the code of a class's methods."""
    writer = Writer(reading, _PYTHON)
    statements = [line for node in reading.named for line in _statement(writer, node, writer.names[node])]
    rows_only = _rows_only(reading, sizes)
    lifted = reading.recurrent and not rows_only  # a step's values are matrices
    memory = _memory(reading)
    last = [writer.value(value).text for value in memory]

    init = ["init = jax.nn.initializers.normal(0.1)"]
    for node, name in writer.names.items():
        if node % 2:
            rows, cols = sizes.written(node)
            shape = f"({cols},)" if rows_only and not reading.parameters[node] else f"({rows}, {cols})"
            init.append(f'{name} = self.param("{name}", init, {shape})')
    result = "y[..., 0, :]" if lifted else "y"
    if head == "linear":
        dense = f'nn.Dense({sizes.out_features}, kernel_init=init, name="head")'
        statements.append(f"outputs = {dense}({result})")
        result = "outputs"
    if not memory:
        body = [*init, *statements, f"return {result}"]
        return _method("__call__(self, x)", "x.shape", body, "@nn.compact")

    kept = [_kept(reading, writer, value) for value in memory]
    ending = [f"return {kept[0] if len(kept) == 1 else '(' + ', '.join(kept) + ')'}, {result}"]
    if len(ending[0]) > _ROOM:
        ending = [*_listed("carry = ", kept), f"return carry, {result}"]
    lift = ["x = x[..., None, :]  # a step is a matrix of one row"] if lifted else []
    body = [*lift, *init, *_listed("", last, " = carry"), *statements, *ending]
    zeros = []
    for value in memory:
        rows, cols = sizes.written(value.node)
        zeros.append(f"jnp.zeros((*batch, {cols}))" if rows_only else f"jnp.zeros((*batch, {rows}, {cols}))")
    start = ["batch = input_shape[:-1]", *_listed("return ", zeros)]
    return "\n\n".join(
        [
            _method("__call__(self, carry, x)", "x.shape", body, "@nn.compact"),
            _method("initialize_carry(self, rng, input_shape)", "input_shape", start, "@nn.nowrap"),
            _method("num_feature_axes(self)", "", ["return 1"], "@property"),
        ]
    )


def _method(signature: str, shape: str, body: list[str], decorator: str) -> str:
    """Returns a method, with the widths it reads off `shape`."""
    used = set(re.findall(r"\w+(?:\.\w+)?", " ".join(body)))
    widths = [("in_features", -1), ("time_steps", -2)]
    body = [*(f"{name} = {shape}[{axis}]" for name, axis in widths if name in used), *body]
    return "\n".join([decorator, f"def {signature}:", textwrap.indent("\n".join(body), " " * 4)])


def _statement(writer: Writer, node: int, name: str) -> list[str]:
    """Writes a node in one line, or in as few as fit."""
    transform = writer.reading.transforms[node]
    # Operations that repeat what stands to their left are written one by one: it doubles with each.
    repeats = any(row.flax.count("{x}") > 1 for row, _ in writer.reading.operands[node])
    if not repeats and len(whole := f"{name} = {writer.expression(node).text}") <= _ROOM:
        return [whole]
    lines, terms = [], writer.terms(node)
    for place, operand in enumerate(writer.reading.operands[node]):
        row, text = terms[place]
        if len(text.text) > _ROOM - 2 * len(name) - _AROUND:
            part = f"{name}_{place + 1}"
            lines += _statement(writer, operand.value.node, part)
            terms[place] = (row, Text(part))
    first, *others = terms
    text = writer.joined([first])
    steps: list[Callable[[Text], Text]]
    steps = [functools.partial(writer.join, row=row, right=right) for row, right in others]
    if transform.name != "identity":
        steps.append(functools.partial(writer.transform, transform))
    for step in steps:
        if len(f"{name} = {step(text).text}") > _ROOM:
            lines.append(f"{name} = {text.text}")
            text = Text(name)
        text = step(text)
    return [*lines, f"{name} = {text.text}"]


def _listed(before: str, items: list[str], after: str = "") -> list[str]:
    """Writes a value, or several as a tuple."""
    line = before + ", ".join(items) + after
    if len(line) <= _ROOM:
        return [line]
    return [f"{before}(", *(f"    {item}," for item in items), f"){after}"]


def _memory(reading: Reading) -> list[Value]:
    """Returns the earlier values that the network reads, and those between."""
    longest: dict[int, int] = {}
    for operands in reading.operands.values():
        for _, (node, delay) in operands:
            longest[node] = max(longest.get(node, 0), delay)
    return [Value(node, delay) for node, steps in longest.items() for delay in range(1, steps + 1)]


def _kept(reading: Reading, writer: Writer, value: Value) -> str:
    """Writes what becomes of `value` for the next step."""
    newer = writer.value(Value(value.node, value.delay - 1)).text
    if value.delay > 1 or value.node in reading.depends_on_input:
        return newer
    return f"jnp.broadcast_to({newer}, {writer.value(value).text}.shape)"  # the same for the whole batch


def _rows_only(reading: Reading, sizes: _Sizes) -> bool:
    """Whether a step's values are all rows, multiplied by parameters only: `[..., features]` will do."""
    if not reading.recurrent:
        return False
    factors, rows = set(), {0}
    for node, operands in reading.edges.items():
        transform = reading.transforms[node]  # code of it may name the axis of rows, -2
        if transform.shape_rule != "same" or "-2" in transform.flax or sizes.shapes[node][0] != 1:
            return False
        chain = [source for row, source in operands if row.code == MATMUL]
        factors.update(chain[1:])
        rows.update(chain[:1])
        rows.update(source for row, source in operands if row.code != MATMUL)
        if chain and chain[0] % 2:
            return False
    return rows.isdisjoint(factors) and all(node % 2 for node in factors)
