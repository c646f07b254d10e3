"""Reads off a traced function what it costs, and whether it convolves."""

import math
from collections.abc import Iterator
from typing import Any


def count_flops(jaxpr: Any) -> float:
    """Returns the operations of matrix products and convolutions, 2 per multiply-add.

    Args:
      jaxpr: of a traced function. The body of a `scan` counts as often as it runs, that of a `while` once,
        of a `cond` the dearest branch.
    """
    total = 0.0
    for equation in _equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            inner = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * inner
        elif inside := [count_flops(one) for one in _inner(params)]:
            total += max(inside) if name == "cond" else sum(inside) * params.get("length", 1)
    return total


def has_convolution(jaxpr: Any) -> bool:
    """Whether a traced function convolves anywhere."""
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(has_convolution(one) for one in _inner(equation.params))
        for equation in _equations(jaxpr)
    )


def _equations(jaxpr: Any) -> list[Any]:
    return getattr(jaxpr, "jaxpr", jaxpr).eqns  # a closed one holds an open one


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the functions that an equation calls."""
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(one, "jaxpr", one), "eqns"):
                yield one
