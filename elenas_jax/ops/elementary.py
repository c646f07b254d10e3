"""The elementary operations of ELENAS: the paper's ten and the extended table.

Source: Aichberger and Klambauer (2023), section 3, for codes 0 to 4 of both kinds; codes from
5 on are this project's. To add an operation, add a row: the constructor takes its shape rule
from here, the interpreter its function, the policy its width, drawings their colours. One that
is not this project's is added by `add_operation`.
"""

import sys

import jax
import jax.numpy as jnp

from elenas_jax.ops.table import Combining, Extent, Transforming, by_name
from elenas_jax.ops.templates import is_template


def _transpose(value: jax.Array, _: Extent) -> jax.Array:
    return jnp.swapaxes(value, -1, -2)


def _softmax(value: jax.Array, extent: Extent) -> jax.Array:
    logits = jnp.where(extent.valid_cols, value, -jnp.inf)
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


LAYER_NORM_EPSILON = 1e-6


def _layer_norm(value: jax.Array, extent: Extent) -> jax.Array:
    """Layer normalisation without scale and offset (Ba et al., 2016), epsilon as in Flax."""
    num_cols = jnp.maximum(jnp.sum(extent.valid_cols), 1)
    mean = jnp.sum(value, axis=-1, keepdims=True) / num_cols
    centred = jnp.where(extent.valid_cols, value - mean, 0.0)
    variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / num_cols
    return centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)


def _mean_rows(value: jax.Array, extent: Extent) -> jax.Array:
    num_rows = jnp.maximum(jnp.sum(extent.valid_rows), 1)
    mean = jnp.sum(value, axis=-2, keepdims=True) / num_rows
    return jnp.pad(mean, [(0, 0)] * (value.ndim - 2) + [(0, value.shape[-2] - 1), (0, 0)])


COMBINING = [
    Combining("none", 0, "", "#cccccc", None, "none"),
    Combining("matmul", 1, "@", "#1f6fb4", None, "matmul"),
    Combining("hadamard", 2, "*", "#d9660a", jnp.multiply, "elementwise"),
    Combining("add", 3, "+", "#2a8f3c", jnp.add, "elementwise"),
    Combining("recursion", 4, "+", "#c22f3b", jnp.add, "elementwise", delayed=True),
    Combining("subtract", 5, "-", "#7b4fb0", jnp.subtract, "elementwise", alone="negate"),
    Combining("max", 6, "max", "#8a5a3c", jnp.maximum, "elementwise", flax="jnp.maximum({x}, {y})"),
]

TRANSFORMING = [
    Transforming("identity", 0, "", "#f4f4f4", lambda x, _: x, "{x}", "same", grad=lambda x, y, g: g),
    Transforming(
        "sigmoid",
        1,
        "sigmoid",
        "#9ecae8",
        lambda x, _: jax.nn.sigmoid(x),
        "jax.nn.sigmoid({x})",
        "same",
        is_activation=True,
        grad=lambda x, y, g: g * y * (1 - y),
    ),
    Transforming(
        "tanh",
        2,
        "tanh",
        "#f7c58b",
        lambda x, _: jnp.tanh(x),
        "jnp.tanh({x})",
        "same",
        is_activation=True,
        grad=lambda x, y, g: g * (1 - y * y),
    ),
    Transforming(
        "relu",
        3,
        "relu",
        "#a5d9a1",
        lambda x, _: jax.nn.relu(x),
        "jax.nn.relu({x})",
        "same",
        is_activation=True,
        grad=lambda x, y, g: jnp.where(x > 0, g, 0.0),
    ),
    Transforming(
        "transpose", 4, "transpose", "#cdb7e6", _transpose, "jnp.swapaxes({x}, -1, -2)", "transpose"
    ),
    Transforming("softmax", 5, "softmax", "#f3b3bd", _softmax, "jax.nn.softmax({x}, axis=-1)", "same"),
    Transforming(
        "one_minus", 6, "one_minus", "#d8c3a5", lambda x, _: 1 - x, "1 - {x}", "same", grad=lambda x, y, g: -g
    ),
    Transforming("negate", 7, "negate", "#c9c9e8", lambda x, _: -x, "-{x}", "same", grad=lambda x, y, g: -g),
    Transforming(
        "square",
        8,
        "square",
        "#e8d36b",
        lambda x, _: x * x,
        "jnp.square({x})",
        "same",
        grad=lambda x, y, g: 2 * x * g,
    ),
    Transforming("gelu", 9, "gelu", "#8fd0c5", lambda x, _: jax.nn.gelu(x), "jax.nn.gelu({x})", "same"),
    Transforming(
        "layer_norm",
        10,
        "layer_norm",
        "#b7d7f0",
        _layer_norm,
        "jax.nn.standardize({x}, axis=-1, epsilon=1e-6)",
        "same",
    ),
    Transforming(
        "mean_rows",
        11,
        "mean_rows",
        "#e0b8d8",
        _mean_rows,
        "jnp.mean({x}, axis=-2, keepdims=True)",
        "one_row",
    ),
]

COMBINING_BY_NAME = by_name(COMBINING)
TRANSFORMING_BY_NAME = by_name(TRANSFORMING)

# Which codes a search may draw; a config names one of these, or lists names itself.
OPERATION_SETS = {
    "paper": (
        ("none", "matmul", "hadamard", "add", "recursion"),
        ("identity", "sigmoid", "tanh", "relu", "transpose"),
    ),
    "extended": (tuple(COMBINING_BY_NAME), tuple(TRANSFORMING_BY_NAME)),
}


def add_operation(row: Combining | Transforming) -> None:
    """Appends an operation to its table, in this process; what follows from a row then follows from it.

    To be called before anything of the package but `elenas_jax.ops` is imported, since other modules make
    constants of the tables. A search draws it where its config names it (`space.operations`), and is gone
    on with by processes that have added it, at the same code.

    Raises:
      ValueError: if its name is taken, its code is not the next one, its shape rule is unknown, its symbol is
        empty or an operator's, or it cannot be written as code.
      RuntimeError: if it comes too late.
    """
    is_combining = isinstance(row, Combining)
    table: list = COMBINING if is_combining else TRANSFORMING
    names: dict = COMBINING_BY_NAME if is_combining else TRANSFORMING_BY_NAME
    rules = ("elementwise",) if is_combining else ("same", "transpose", "one_row")
    operands = ("x", "y") if is_combining else ("x",)
    operators = [each.symbol for each in COMBINING if each.symbol and not each.flax]
    if "elenas_jax.graphs" in sys.modules:
        raise RuntimeError(
            f"Operation {row.name!r} comes too late: restart Python and add it before importing anything of "
            "elenas_jax but elenas_jax.ops."
        )
    if row.name in names:
        raise ValueError(f"There is an operation {row.name!r} already.")
    if row.code != len(table):
        raise ValueError(f"Operation {row.name!r} has code {row.code}; the next one is {len(table)}.")
    if row.shape_rule not in rules:
        raise ValueError(
            f"Operation {row.name!r} has shape rule {row.shape_rule!r}; allowed are {', '.join(rules)}."
        )
    if not row.symbol or row.symbol in operators:
        raise ValueError(
            f"Operation {row.name!r} has symbol {row.symbol!r}; it must be a function's name, such as 'max'."
        )
    if not is_template(row.flax, operands):
        raise ValueError(
            f"Operation {row.name!r} has flax={row.flax!r}; it must be a Python expression of "
            f"{' and '.join(f'{{{operand}}}' for operand in operands)}, outside lambdas and comprehensions, "
            "that knows no names but jax, jnp and Python's own."
        )
    table.append(row)
    names[row.name] = row
    OPERATION_SETS["extended"] = (tuple(COMBINING_BY_NAME), tuple(TRANSFORMING_BY_NAME))
