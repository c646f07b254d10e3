"""Networks as text: equations as a reader expects them, Flax source that equals the interpreter."""

import functools
import re
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import ComputationGraph, from_edges, pack_params, statements, unpack_params
from elenas_jax.graphs.export import _PYTHON, equations, flax_source, parameter_names
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from elenas_jax.graphs.statements import OPERATORS, Reading, Text, Writer
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests import reference
from tests.graphs.known_programs import (
    EXAMPLES,
    IN,
    NAMES,
    OUT,
    STEPS,
    WIDTHS,
    build,
    compiled_interpret,
    draw_params,
    interpret_with_gradients,
    values_and_gradients,
)
from tests.graphs.random_graphs import KINDS, Widths, draw

EQUATIONS = {
    "elman": "y = tanh(x W1 + y(t-1) W2 + b1)",
    "lstm": """
        h1 = sigmoid(x W1 + y(t-1) W2 + b1)
        h2 = sigmoid(x W3 + y(t-1) W4 + b2)
        h3 = tanh(x W5 + y(t-1) W6 + b3)
        h4 = sigmoid(x W7 + y(t-1) W8 + b4)
        h5 = h1 * h3 + h5(t-1) * h2
        y = h4 * tanh(h5)""",
    "mgu": """
        h1 = sigmoid(x W1 + y(t-1) W2 + b1)
        h2 = y(t-1) * h1
        h3 = tanh(x W3 + h2 W4 + b2)
        y = h3 * (1 - h1) + h2""",
    "gru": """
        h1 = sigmoid(x W1 + y(t-1) W2 + b1)
        h2 = sigmoid(x W3 + y(t-1) W4 + b2)
        h3 = tanh(x W5 + b3 + h1 * (y(t-1) W6 + b4))
        y = h3 * (1 - h2) + y(t-1) * h2""",
    "linear_attention": "y = x W1 (x W2)^T (x W3)",
    "softmax_attention": """
        h = softmax(x W1 (x W2)^T)
        y = h (x W3)""",
    "elena1": """
        h = tanh(x W1 + b1)
        y = (x W2) * h + y(t-1)""",
    "elena2": """
        h = tanh(x W1 + h(t-1) + b1 + b2)
        y = (x W2) * h + y(t-1) + b2""",
}

# name: nodes, edges, equations with a linear head
BY_HAND = {
    "delays": (
        7,
        "0 2 recursion, 2 4 recursion, 0 6 matmul, 1 6 matmul, 4 6 hadamard, 3 6 hadamard, 6 6 relu",
        "y = relu((x W1) * x(t-2) * b1)",
    ),
    "a circle that stays zero": (
        9,
        "2 4 recursion, 4 2 recursion, 2 6 add, 6 6 sigmoid, 0 8 matmul, 1 8 matmul, 6 8 hadamard",
        "h = h(t-2)\ny = (x W1) * sigmoid(h)",
    ),
    "a value without input, remembered": (
        9,
        "1 2 add, 3 2 subtract, 2 4 recursion, 0 6 matmul, 5 6 matmul, 4 6 add, 6 8 max, 4 8 max, 8 8 negate",
        "h = b1 - b2\ny = -max(h(t-1), x W1 + h(t-1))",
    ),
    "a parameter, remembered": (
        5,
        "1 2 add, 0 4 matmul, 3 4 matmul, 2 4 recursion",
        "y = x W1 + b1(t-1)",
    ),
    "subtract and max alone": (
        9,
        "0 2 matmul, 1 2 matmul, 2 4 subtract, 3 4 subtract, 2 6 max, 5 6 max, "
        "4 8 subtract, 6 8 subtract, 8 8 square",
        "h = x W1\ny = (-(-h - b1) - max(h, b2))^2",
    ),
    "a matrix a step": (
        11,
        "0 2 matmul, 1 2 matmul, 2 2 transpose, 0 4 matmul, 3 4 matmul, 2 6 matmul, 4 6 matmul, 8 6 add, "
        "6 8 recursion, 0 10 matmul, 5 10 matmul, 6 10 matmul",
        "h = (x W1)^T (x W2) + h(t-1)\ny = x h W3",
    ),
    "widths that must be equal": (
        5,
        "0 2 matmul, 1 2 matmul, 0 4 hadamard, 2 4 add",
        "y = x + x W1",
    ),
    "a parameter of the sequence's length": (
        7,
        "0 2 add, 2 2 transpose, 2 4 matmul, 1 4 matmul, 4 4 mean_rows, 3 6 matmul, 4 6 matmul",
        "h = mean_rows(x^T W1)\ny = h W2",
    ),
}


def graph_of(num_nodes, text):
    """Returns the graph with edges "source target operation, ..."."""
    edges = (edge.split() for edge in text.split(", "))
    return from_edges(num_nodes, [(int(source), int(target), name) for source, target, name in edges])


class Exported:
    """The class that a source defines, fed with parameters by node."""

    def __init__(self, graph, head, source, recurrent, **fields):
        assert max(map(len, source.splitlines())) <= 100
        namespace: dict[str, Any] = {"__name__": "exported"}
        exec(compile(source, "exported", "exec"), namespace)
        module = namespace["Block"](**fields)
        self.names, self.head = parameter_names(graph, head), head
        self.module = nn.RNN(module, name="block") if recurrent else module
        self.recurrent = recurrent

    def to_tree(self, params, inputs):
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), inputs)["params"]
        shapes = shapes["cell"] if self.recurrent else shapes
        tree: dict[str, Any] = {
            name: jnp.reshape(params[node], shapes[name].shape) for node, name in self.names.items()
        }
        if self.head == "linear":
            tree["head"] = {"kernel": params["head/kernel"], "bias": params["head/bias"]}
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, dict(shapes))
        return tree

    def from_tree(self, tree, params):
        found: dict[Any, Any] = {
            node: np.reshape(tree[name], np.shape(params[node])) for node, name in self.names.items()
        }
        if self.head == "linear":
            found |= {"head/kernel": tree["head"]["kernel"], "head/bias": tree["head"]["bias"]}
        return found

    def apply(self, tree, inputs):
        return self.module.apply({"params": {"cell": tree} if self.recurrent else tree}, inputs)

    def check(self, params, inputs, cotangent, expected, gradients, of_inputs):
        """Compares outputs and gradients, relative to the largest of each array."""
        tree = self.to_tree(params, inputs)
        found = jax.jit(values_and_gradients, static_argnums=0)(self.apply, tree, inputs, cotangent)
        outputs, of_tree, of_found_inputs = found
        assert_close(outputs, expected, "outputs")
        assert_close(of_found_inputs, of_inputs, "inputs")
        for node, gradient in self.from_tree(of_tree, params).items():
            assert_close(gradient, gradients[node], f"node {node}")


def assert_close(found, expected, what):
    assert found.shape == expected.shape, what
    largest = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * largest, err_msg=what)


def check_against_the_reference(edges, widths, steps=5):
    """Exports a graph and compares it with the reference; returns the source."""
    rng = np.random.default_rng(0)
    network = reference.analyse(np.asarray(edges), **widths)
    assert network.reason == 0, reference.REASONS[network.reason]
    graph = ComputationGraph(edges)
    params = reference.draw_params(network, rng)
    inputs = rng.normal(size=(2, widths.get("time_steps") or steps, widths["in_features"]))
    expected, _ = reference.evaluate(network, params, inputs)
    cotangent = rng.normal(size=expected.shape)
    gradients, of_inputs, _ = reference.gradients(network, params, inputs, cotangent)

    source = flax_source(graph, "Block", **widths)
    exported = Exported(graph, widths["head"], source, network.recurrent)
    single = {node: jnp.asarray(value, jnp.float32) for node, value in params.items()}
    exported.check(
        single,
        jnp.asarray(inputs, jnp.float32),
        jnp.asarray(cotangent, jnp.float32),
        expected,
        gradients,
        of_inputs,
    )
    return source


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_of_known_blocks(name):
    expected = "\n".join(line.strip() for line in EQUATIONS[name].strip().splitlines())
    assert equations(KNOWN_BLOCKS[name]) == expected


def test_equations_without_a_head_drop_the_final_activation():
    assert equations(KNOWN_BLOCKS["elman"], head="none") == "y = x W1 + y(t-1) W2 + b1"
    assert equations(KNOWN_BLOCKS["elena1"], head="none") == equations(KNOWN_BLOCKS["elena1"])


@pytest.mark.parametrize("name", BY_HAND)
def test_equations_by_hand(name):
    num_nodes, edges, expected = BY_HAND[name]
    assert equations(graph_of(num_nodes, edges)) == expected


@pytest.mark.parametrize("row", TRANSFORMING, ids=lambda row: row.name)
def test_every_transforming_operation_is_written(row):
    graph = graph_of(5, f"0 2 matmul, 1 2 matmul, 2 2 {row.name}, 2 4 add, 4 4 tanh")
    text = equations(graph)
    assert "x W1" in text
    assert (row.symbol in text) or row.name in ("transpose", "one_minus", "negate", "square")


@pytest.mark.parametrize("row", COMBINING[1:], ids=lambda row: row.name)
def test_every_combining_operation_is_written(row):
    graph = graph_of(5, f"0 2 add, 2 2 tanh, 1 4 {row.name if not row.delayed else 'add'}, 2 4 {row.name}")
    expected = {
        "matmul": "y = tanh(x) W1",
        "recursion": "h = tanh(x)\ny = b1 + h(t-1)",
        "subtract": "y = -tanh(x) - b1",
        "max": "y = max(tanh(x), b1)",
    }
    assert equations(graph) == expected.get(row.name, f"y = tanh(x) {row.symbol} b1")


def test_names_of_parameters():
    graph = graph_of(5, "0 2 matmul, 1 2 matmul, 3 4 matmul, 2 4 add, 4 4 relu")
    assert equations(graph) == "y = relu(x W1 + W2)"
    assert parameter_names(graph) == {1: "W1", 3: "W2"}  # also where nothing stands to its left
    assert parameter_names(KNOWN_BLOCKS["elena2"]) == {1: "W1", 3: "b1", 5: "b2", 7: "W2"}


INVALID = {
    "no path from input": "1 2 add",
    "no final node": "0 2 add, 2 4 add, 4 2 add",
    "illegitimate recursion": "0 2 add, 2 4 add, 4 2 add, 4 6 add",
    "no parameters": "0 2 add",
}


@pytest.mark.parametrize("reason", INVALID)
def test_invalid_graphs_are_refused_with_the_reason(reason):
    graph = graph_of(7, INVALID[reason])
    with pytest.raises(ValueError, match=reason):
        equations(graph)
    with pytest.raises(ValueError, match=reason):
        flax_source(graph, "Block", **WIDTHS | {"hidden_features": IN})


def test_mistakes_are_told():
    graph = KNOWN_BLOCKS["elman"]
    with pytest.raises(ValueError, match="head is 'dense'; allowed are 'none', 'linear'"):
        equations(graph, head="dense")
    with pytest.raises(ValueError, match="head is 'dense'"):
        flax_source(graph, "Block", head="dense")
    for name in ("my block", "class", "", "nn", "jnp", "np", "unflatten_dict", "params", "__init__"):
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            flax_source(graph, name)
    num_nodes, edges, _ = BY_HAND["widths that must be equal"]
    with pytest.raises(ValueError, match="shapes do not fit"):
        flax_source(graph_of(num_nodes, edges), "Block", **WIDTHS)
    num_nodes, edges, _ = BY_HAND["a parameter of the sequence's length"]
    with pytest.raises(ValueError, match="needs a fixed length"):
        flax_source(graph_of(num_nodes, edges), "Block", **WIDTHS)


@functools.cache
def exported_block(name, head):
    return flax_source(KNOWN_BLOCKS[name], "Block", head=head, **WIDTHS)


@pytest.mark.parametrize(
    ("name", "head"),
    [(name, "linear") for name in NAMES] + [("elman", "none"), ("softmax_attention", "none")],
)
def test_source_of_known_blocks_equals_the_interpreter(name, head):
    rng = np.random.default_rng(0)
    graph, program = KNOWN_BLOCKS[name], build(name, head)
    params = draw_params(program, rng)
    packed = pack_params(program, params)
    inputs = jnp.asarray(rng.normal(size=(EXAMPLES, STEPS, IN)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(EXAMPLES, STEPS, OUT)), jnp.float32)
    exported = Exported(graph, head, exported_block(name, head), bool(program.recurrent))
    if head == "none" or name in ("enas", "darts"):  # saves compiling; gradients follow from values
        outputs = jax.jit(exported.apply)(exported.to_tree(params, inputs), inputs)
        assert_close(outputs, compiled_interpret(program, packed, inputs), "outputs")
    else:
        expected, gradients, of_inputs = interpret_with_gradients(program, packed, inputs, cotangent)
        exported.check(params, inputs, cotangent, expected, unpack_params(program, gradients), of_inputs)


@pytest.mark.parametrize("name", BY_HAND)
def test_source_by_hand_equals_the_reference(name):
    num_nodes, edges, _ = BY_HAND[name]
    widths = {"in_features": 4, "out_features": 2, "hidden_features": 4, "head": "linear", "time_steps": 3}
    source = check_against_the_reference(graph_of(num_nodes, edges).edges, widths)
    only_for_these = name in ("delays", "widths that must be equal")
    assert ("hidden_features: int = 4" in source) == (not only_for_these)


@pytest.mark.parametrize(
    ("widths", "extended"),
    [
        (Widths(3, 2, 4, "none", None), False),
        (Widths(3, 2, 4, "linear", None), False),
        (Widths(4, 4, 4, "none", 4), True),
    ],
)
def test_source_of_random_graphs_equals_the_reference(widths, extended):
    drawn = draw(11, 3, 0, 12, widths, extended, KINDS)
    assert drawn
    for found in drawn:
        check_against_the_reference(found.edges, widths._asdict())


def test_long_statements_are_split():
    edges = [(0, 2, "matmul"), (2, 2, "tanh")]
    edges += [(node, 2, "matmul") for node in range(1, 21, 2)]
    edges += [(node, 2, "hadamard") for node in range(21, 61, 2)]
    edges += [(node, 2, "add") for node in range(61, 101, 2)]
    widths = {"in_features": 3, "out_features": 2, "hidden_features": 3, "head": "linear"}
    source = check_against_the_reference(from_edges(101, edges).edges, widths)
    assert source.count("        y = ") > 3


def test_long_operands_are_split_off():
    edges = "1 2 add, 2 2 layer_norm, 2 4 add, 4 4 mean_rows, 0 6 matmul, 3 6 matmul, 0 8 matmul, "
    edges += "5 8 matmul, 4 8 subtract, 8 8 transpose, 0 10 matmul, 7 10 matmul, 6 12 matmul, 8 12 matmul, "
    edges += "10 12 matmul, 12 14 recursion, 14 12 add"
    widths = {"in_features": 3, "out_features": 2, "hidden_features": 4, "head": "linear"}
    source = check_against_the_reference(graph_of(15, edges).edges, widths)
    assert "        y_2 = jnp.swapaxes(x @ W2 - y_2_3, -1, -2)\n" in source
    assert "        y = x @ W1 @ y_2 @ (x @ W3) + y_last\n" in source


def test_widths_of_a_source_are_fields():
    source = exported_block("elena1", "linear")
    assert "hidden_features: int = 5" in source and "out_features: int = 2" in source
    exported = Exported(KNOWN_BLOCKS["elena1"], "linear", source, True, hidden_features=4, out_features=1)
    shapes = jax.eval_shape(exported.module.init, jax.random.key(0), jnp.zeros((2, 5, 6)))["params"]["cell"]
    assert shapes["W1"].shape == (6, 4)
    assert shapes["b1"].shape == (4,)
    assert shapes["head"]["kernel"].shape == (4, 1)


@pytest.mark.parametrize("name", NAMES)
def test_source_needs_only_jax_and_flax(name):
    imports = [line for line in exported_block(name, "linear").splitlines() if "import" in line]
    assert set(imports) <= {"import flax.linen as nn", "import jax", "import jax.numpy as jnp"}


def _leaky(x):
    return np.maximum(x, 0.1 * x)


# Code of operations that are not the package's: templates and what they are.
AWKWARD = {
    "{x} * jnp.tanh({x})": lambda x: x * np.tanh(x),
    "jnp.maximum({x}, 0.1 * {x})": _leaky,
    "{x} + 1": lambda x: x + 1,
    "2 - {x}": lambda x: 2 - x,
    "-{x} * 2": lambda x: -x * 2,
    "{x} ** 2": lambda x: x**2,
    "0.5 * {x}": lambda x: 0.5 * x,
    "jnp.tanh({x}) - 1": lambda x: np.tanh(x) - 1,
    "jnp.tanh({x})": np.tanh,
    "jnp.tanh({x} - 1)": lambda x: np.tanh(x - 1),
    "jnp.sum({x}, axis=0, keepdims=True) / 2 + {x}": lambda x: np.sum(x, axis=0, keepdims=True) / 2 + x,
    "{x}.T": lambda x: x.T,
    "{x}[::-1]": lambda x: x[::-1],
    "1.0 * ({x} > 0)": lambda x: 1.0 * (x > 0),
    "{x} if jnp.ndim({x}) else 0": lambda x: x,
    "(lambda v: v - 1)({x})": lambda x: x - 1,
}
AWKWARD_PAIRS = {
    "{x} + {y} - {x} * {y}": lambda x, y: x + y - x * y,
    "jnp.where({x} < {y}, {x}, {y})": np.minimum,
    "jnp.maximum({x}, {y})": np.maximum,
    "jnp.maximum({x}, 2 * {y})": lambda x, y: np.maximum(x, 2 * y),
    "{x} - 0.5 * {y}": lambda x, y: x - 0.5 * y,
    "{y} if jnp.ndim({x}) else {x}": lambda x, y: y,
}
ORDINARY = {"@": np.matmul, "*": np.multiply, "+": np.add, "-": np.subtract}


def _draw_expression(writer, rng, depth):
    """Returns a random expression as text, and what its operations make of the values themselves."""
    if depth == 0 or rng.random() < 0.1:
        name = str(rng.choice(list("abc")))
        return Text(name), VALUES[name]
    left, of_left = _draw_expression(writer, rng, depth - 1)
    if rng.random() < 0.5:
        template = str(rng.choice(list(AWKWARD)))
        row = TRANSFORMING[-1]._replace(name="another", flax=template)
        return writer.transform(row, left), AWKWARD[template](of_left)
    right, of_right = _draw_expression(writer, rng, depth - 1)
    if rng.random() < 0.5:
        template = str(rng.choice(list(AWKWARD_PAIRS)))
        row = COMBINING[-1]._replace(name="another", symbol="another", flax=template)
        return writer.join(left, row, right), AWKWARD_PAIRS[template](of_left, of_right)
    symbol = str(rng.choice(list(ORDINARY)))
    row = next(row for row in COMBINING if row.symbol == symbol)
    return writer.join(left, row, right), ORDINARY[symbol](of_left, of_right)


VALUES = dict(zip("abc", np.random.default_rng(1).normal(0.0, 0.7, (3, 3, 3))))


def test_code_of_any_operations_in_each_other_is_what_they_compute():
    assert set(ORDINARY) == set(OPERATORS)
    writer = Writer(Reading(2, False, frozenset(), {}, {}, {}, (2,), {}), _PYTHON)
    rng = np.random.default_rng(0)
    scope = {"jnp": np, "jax": SimpleNamespace()} | VALUES
    for _ in range(1500):
        text, expected = _draw_expression(writer, rng, 3)
        found = eval(text.text, dict(scope))
        largest = max(1.0, float(np.max(np.abs(expected))))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * largest, err_msg=text.text)


def test_operations_that_repeat_their_operand_stay_short(monkeypatch):
    """The same functions as in the tables, written so that each doubles what it is given."""
    repeating = {
        "relu": "{x} * ({x} > 0)",
        "square": "{x} * {x}",
        "max": "jnp.where({x} > {y}, {x}, {y})",
    }
    for table in ("TRANSFORMING", "COMBINING"):
        rows = [row._replace(flax=repeating.get(row.name, row.flax)) for row in getattr(statements, table)]
        monkeypatch.setattr(statements, table, rows)
    edges = "0 2 matmul, 1 2 matmul, " + ", ".join(f"{node} 2 max" for node in range(3, 19, 2))
    chain = [(node, "square" if node % 4 else "relu") for node in range(2, 18, 2)]
    edges += "".join(f", {node} {node} {name}, {node} {node + 2} add" for node, name in chain)
    edges += ", 18 18 tanh, 18 20 recursion, 20 18 subtract"
    widths = {"in_features": 3, "out_features": 2, "hidden_features": 4, "head": "linear"}
    source = check_against_the_reference(graph_of(21, edges).edges, widths)
    assert "jnp.where(" in source and len(source) < 4000
