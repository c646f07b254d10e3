"""Adds operations that are awkward to write as code, and uses them; started by test_elementary.

They must be there before anything else of the package is imported, so this is a process of its own.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from elenas_jax.ops import COMBINING, TRANSFORMING, Combining, Transforming, add_operation


def least(left, right):
    return jnp.where(left < right, left, right)


EITHER, LEAST = len(COMBINING), len(COMBINING) + 1
SWISH, LEAKY, SHIFTED = (len(TRANSFORMING) + place for place in range(3))
WHERE = "jnp.where({x} < {y}, {x}, {y})"
for operation in (
    Combining(
        "either",
        EITHER,
        "or",
        "#111",
        lambda a, b: a + b - a * b,
        "elementwise",
        flax="{x} + {y} - {x} * {y}",
    ),
    Combining("least", LEAST, "least", "#222", least, "elementwise", flax=WHERE),
    Transforming(
        "swish",
        SWISH,
        "swish",
        "#333",
        lambda x, _: x * jax.nn.sigmoid(x),
        "{x} * jax.nn.sigmoid({x})",
        "same",
    ),
    Transforming(
        "leaky",
        LEAKY,
        "leaky",
        "#444",
        lambda x, _: jnp.maximum(x, 0.1 * x),
        "jnp.maximum({x}, 0.1 * {x})",
        "same",
    ),
    Transforming("shifted", SHIFTED, "shifted", "#555", lambda x, _: x + 1, "{x} + 1", "same"),
):
    add_operation(operation)

import flax.linen as nn  # noqa: E402

from elenas_jax.graphs import equations, flax_source, from_edges, interpret, pack_params, specialise  # noqa: E402
from elenas_jax.graphs.export import compiled_construct  # noqa: E402
from elenas_jax.graphs.statements import rounded  # noqa: E402
from elenas_jax.spaces import make_elenas  # noqa: E402

EDGES = (
    "0 2 matmul, 1 2 matmul, 2 2 leaky, 2 4 either, 3 4 either, 5 4 hadamard, 4 4 swish, "
    "4 6 recursion, 6 6 shifted, 6 4 least"
)
EQUATIONS = "h = leaky(x W1)\ny = swish(least(or(or(b1, h), b2), shifted(y(t-1))))"
WIDTHS = {"in_features": 3, "hidden_features": 4, "out_features": 2, "head": "none"}


def check_block():
    """Compares interpreter, exported source and the formula in NumPy."""
    edges = (edge.split() for edge in EDGES.split(", "))
    graph = from_edges(7, [(int(source), int(target), name) for source, target, name in edges])
    assert equations(graph, "none") == EQUATIONS, equations(graph, "none")
    rng = np.random.default_rng(0)
    weights, offset, start = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), (1, 2), (1, 2)))
    inputs = rng.normal(size=(2, 4, 3)).astype(np.float32)

    y, expected = np.zeros((2, 2)), []
    for x in np.swapaxes(inputs, 0, 1).astype(np.float64):
        leaky = np.maximum(x @ weights, 0.1 * (x @ weights))
        value = start + leaky - start * leaky
        value = value + offset - value * offset
        value = np.minimum(value, y + 1)
        y = value / (1 + np.exp(-value))
        expected.append(y)

    program = specialise(
        jax.tree.map(np.asarray, compiled_construct(rounded(graph), **WIDTHS, time_steps=None))
    )
    params = pack_params(program, {1: weights, 3: offset, 5: start})
    found = jax.jit(interpret)(program, params, inputs)
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)

    namespace = {"__name__": "exported"}
    exec(flax_source(graph, "Block", **WIDTHS), namespace)
    tree = {"W1": weights, "b1": start[0], "b2": offset[0]}
    found = nn.RNN(namespace["Block"]()).apply({"params": {"cell": tree}}, inputs)
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def check_drawing():
    """Draws the operations where a config names them."""
    space = make_elenas(
        num_nodes=6,
        operations=(("none", "matmul", "add", "recursion", "either"), ("identity", "tanh", "swish")),
        incoming={"initial": {"either": 1.0}},
        transforms={"swish": 4.0},
    )
    graphs = np.asarray(jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), 8)).edges)
    edges = np.where(np.eye(6, dtype=bool), 0, graphs)
    assert (edges == EITHER).any() and not (edges == LEAST).any()
    nodes = np.diagonal(graphs, axis1=1, axis2=2)
    assert (nodes == SWISH).any() and not np.isin(nodes, (LEAKY, SHIFTED)).any()


check_block()
check_drawing()
print("all agree")
