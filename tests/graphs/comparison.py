"""Compares the interpreter with the reference: many programs in one compiled call, and the errors."""

import dataclasses
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.graphs import (
    ComputationGraph,
    Program,
    interpret,
    pack_params,
    specialise,
    to_edges,
    unpack_params,
)
from tests import reference
from tests.graphs.random_graphs import (
    QUICK_TO_COMPILE,
    Widths,
    construct_all,
    population,
)

TOLERANCE = 2e-4  # relative to the largest number of an array
KINK = 1e-5  # gradients are not compared where a relu or max is as near as this to its kink
NUM_EXAMPLES = 3


class Run(NamedTuple):
    """What came of a call; gradients in true shapes, by node, and none if they were not asked for."""

    outputs: np.ndarray
    carry: Any
    grads: dict[Any, np.ndarray]
    input_grads: np.ndarray | None
    carry_grads: Any


class Runner:
    """Runs programs of one padding in one layout (None: any layout), all by one compiled function."""

    def __init__(self, layout: str | None, with_gradients: bool) -> None:
        self.layout = layout
        self.with_gradients = with_gradients
        self.num_compilations = 0
        self.compiled = jax.jit(self._run, compiler_options=QUICK_TO_COMPILE)

    def _run(
        self, program: Program, params: dict, inputs: jax.Array, carry: Any, of_outputs: Any, of_carry: Any
    ):
        self.num_compilations += 1

        def run(params, inputs, carry):
            outputs, last = interpret(program, params, inputs, carry=carry, return_carry=True)
            return outputs, (None if carry is None else last)

        if not self.with_gradients:
            return run(params, inputs, carry), None
        results, pull = jax.vjp(run, params, inputs, carry)
        return results, pull((of_outputs, of_carry))

    def __call__(
        self,
        program: Program,
        params: dict,
        inputs: np.ndarray,
        cotangent: np.ndarray,
        carry: Any = None,
        of_carry: Any = None,
    ) -> Run:
        """Runs an unbatched program; a layout for recurrent programs alone takes and returns a carry."""
        padded = dataclasses.replace(program, layout=self.layout)
        packed = pack_params(program, params)
        inputs, cotangent = inputs.astype(np.float32), cotangent.astype(np.float32)
        if self.layout in ("row", "matrix"):
            nothing = _zero_carry(padded, packed, inputs)
            carry, of_carry = (nothing if given is None else given for given in (carry, of_carry))
        (outputs, carry), grads = jax.device_get(
            self.compiled(padded, packed, inputs, carry, cotangent, of_carry)
        )
        if grads is None:
            return Run(outputs, carry, {}, None, None)
        return Run(outputs, carry, unpack_params(program, grads[0]), *grads[1:])


def _zero_carry(program: Program, packed: dict, inputs: np.ndarray) -> Any:
    """Returns zeros in the shape of a program's carry, in its padding and layout as they are."""
    key = (program.layout, program.max_instructions, inputs.shape)
    if key not in _ZERO_CARRIES:
        shapes = jax.eval_shape(lambda *args: interpret(*args, return_carry=True)[1], program, packed, inputs)
        _ZERO_CARRIES[key] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return _ZERO_CARRIES[key]


_ZERO_CARRIES: dict[tuple, Any] = {}


@cache
def runner(layout: str | None, with_gradients: bool = True) -> Runner:
    return Runner(layout, with_gradients)


def layout_of(program: Program) -> str:
    return str(specialise(program).layout)


def unbatch(programs: Program, places: Iterable[int]) -> list[Program]:
    return [jax.tree.map(lambda leaf, p=place: leaf[p], programs) for place in places]


def data(network: reference.Network, widths: Widths, seed: int, num_steps: int = 4):
    """Draws parameters, `[N, T, in]` inputs and `[N, T, out]` cotangents, in numbers that float32 holds."""
    rng = np.random.default_rng(seed)
    params = {name: np.float64(np.float32(x)) for name, x in reference.draw_params(network, rng).items()}
    num_steps = widths.time_steps or num_steps
    inputs = rng.normal(size=(NUM_EXAMPLES, num_steps, widths.in_features)).astype(np.float32)
    cotangent = rng.normal(size=(NUM_EXAMPLES, num_steps, widths.out_features)).astype(np.float32)
    return params, np.float64(inputs), np.float64(cotangent)


def error(found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """Returns the largest difference, relative to the largest expected number (or `scale` if larger).

    What cancels out to nothing has no relative error: `scale` is 1% of the size of what cancels.
    """
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), scale, 1e-30))


def close(what: object, found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> None:
    off = error(found, expected, scale)
    assert off < TOLERANCE, f"{what} differs by {off:.2g}"


def check(network, program: Program, widths: Widths, run: Runner, seed: int = 0) -> bool:
    """Asserts that the outputs and gradients of a program are the reference's.

    Returns:
      Whether gradients were compared.
    """
    __tracebackhide__ = True
    params, inputs, cotangent = data(network, widths, seed)
    outputs, _ = reference.evaluate(network, params, inputs)
    found = run(program, params, inputs, cotangent)
    # Shapes are fixed under jit: a single row is repeated.
    close("output", found.outputs, np.broadcast_to(outputs, found.outputs.shape), scale=0.01)
    if not run.with_gradients:
        return False
    if outputs.shape[1] != cotangent.shape[1]:
        cotangent = cotangent.sum(axis=1, keepdims=True)
    grads, input_grads, kink = reference.gradients(network, params, inputs, cotangent)
    if kink < KINK:
        return False
    assert set(found.grads) == set(grads)
    scale = 0.01 * max(np.max(np.abs(grad)) for grad in grads.values())
    for name, grad in grads.items():
        close(f"gradient of {name}", found.grads[name], grad, scale)
    assert found.input_grads is not None
    close("gradient of the inputs", found.input_grads, input_grads, scale)
    return True


# --- populations ---


@cache
def by_layout(name: str) -> dict[str, list[int]]:
    """Returns the places of the valid graphs of a population by the layout of their programs."""
    groups: dict[str, list[int]] = {"row": [], "matrix": [], "sequence": []}
    valid = range(population(name).num_valid)
    for place, program in zip(valid, unbatch(construct_all(name), valid), strict=True):
        groups[layout_of(program)].append(place)
    return groups


def check_population(name: str, places: list[int], run: Runner) -> int:
    """Checks programs of a population; returns for how many gradients were compared."""
    drawn = population(name)
    compared, wrong = 0, []
    for place, program in zip(places, unbatch(construct_all(name), places), strict=True):
        edges, network = drawn.drawn[place]
        try:
            compared += check(network, program, drawn.setting.widths, run, seed=place)
        except AssertionError as disagreement:
            wrong.append(f"{disagreement}: graph {place} of {name!r}, {to_edges(ComputationGraph(edges))}")
    assert not wrong, f"{len(wrong)} of {len(places)} disagree, the first are\n" + "\n".join(wrong[:3])
    return compared
