"""Runs a population level by level: few and large kernels, for accelerators.

See `levels` for what a level is. The forward pass is written so that JAX differentiates it well:
nothing is written in place, each level reads by gathers and hands its results on as a block, and
parameters are gathered once, before the loop over time. Each launch serves all candidates; on a CPU,
where launches are cheap, the other executors are several times as fast (docs/engine_notes.md).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from elenas_jax.graphs import execution
from elenas_jax.graphs.instructions import branch_codes, compute, switch
from elenas_jax.graphs.levels import Level, Population, Rows, Sizes, is_product_code
from elenas_jax.graphs.machine import Layout
from elenas_jax.ops import Extent
from elenas_jax.types import AnyArray


def forward(
    population: Population, params: jax.Array, inputs: jax.Array, sizes: Sizes, layout: Layout
) -> jax.Array:
    """Runs all candidates on the same inputs.

    Args:
      population: C candidates of those sizes.
      params: `[C, L, W]` packed parameters `execution.with_scratch`.
      inputs: `[N, T, F]`.
      sizes, layout: static.

    Returns:
      `[C, N, W]`, the outputs at the last step; padding is zero.
    """
    if sizes.constants:

        def with_constants(code, rows):
            return execution.compute_constants(code, rows, layout.operations, sizes.constants)

        params = jax.vmap(with_constants)(population.machines, params)
    padding = ((0, 0), (0, 0), (0, layout.width - inputs.shape[-1]))
    tape = jnp.pad(jnp.swapaxes(inputs, 0, 1), padding)[-sizes.steps :][None]
    for level in population.before:
        tape = jnp.concatenate([tape, _run(level, _reader(tape), _fixed(level, params), layout)])
    if sizes.inside:
        given = _read(tape, population.given[:, 0], population.given[:, 1])
        tape = jnp.concatenate([tape, _loop(population, params, given, sizes, layout)])
    tape = tape[:, -sizes.after_steps :]
    for level in population.after:
        tape = jnp.concatenate([tape, _run(level, _reader(tape), _fixed(level, params), layout)])
    return tape[population.output, -1]


def _loop(
    population: Population, params: jax.Array, given: jax.Array, sizes: Sizes, layout: Layout
) -> jax.Array:
    """Returns `[B, T, N, W]`, the rows inside the loop over time."""
    fixed = [_fixed(level, params) for level in population.inside]
    num_rows = sum(map(sum, sizes.inside))

    def step(late: jax.Array, given: jax.Array):
        known = jnp.concatenate([given, late])
        for level, of_level in zip(population.inside, fixed, strict=True):
            value = _run(level, _reader(known[:, None], late=False), of_level, layout)[:, 0]
            known = jnp.concatenate([known, value])
        now = known[sizes.given + num_rows :]
        return now, now

    start = jnp.zeros((num_rows, *given.shape[2:]), given.dtype)
    return jnp.swapaxes(lax.scan(step, start, jnp.swapaxes(given, 0, 1))[1], 0, 1)


def _read(tape: jax.Array, rows: AnyArray, delays: AnyArray) -> jax.Array:
    """Gathers rows of `[R, S, N, W]`, some of them one step late; before the first step is zero."""
    values = tape[rows]
    late = jnp.pad(values, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    return jnp.where(jnp.reshape(delays, (-1, 1, 1, 1)) > 0, late, values)


def _reader(tape: jax.Array, *, late: bool = True) -> Callable:
    def read(rows, delays):
        return _read(tape, rows, delays) if late else tape[rows]

    return read


def _fixed(level: Level, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the `[K, W, W]` matrices of products and the `[K, W]` rows that others read."""
    width = params.shape[-1]

    def matrix(candidate, first, count):
        block = lax.dynamic_slice(params, (candidate, first, 0), (1, width, width))[0]
        return jnp.where((jnp.arange(width) < count)[:, None], block, 0.0)

    products, others = level
    return (
        jax.vmap(matrix)(products.candidate, products.reads, products.read_rows),
        params[others.candidate, others.reads],
    )


class _Operands:
    """Of one row; see `instructions.Operands`. Values are `[S, N, 1, W]`."""

    def __init__(self, rows: Rows, a: jax.Array, b: jax.Array, fixed: jax.Array) -> None:
        self.rows, self.values, self.fixed = rows, (a, b), fixed
        self.shape = (*a.shape[:-1], 1, a.shape[-1])

    def a(self):
        return jnp.reshape(self.values[0], self.shape)

    def b(self):
        return jnp.reshape(self.values[1], self.shape)

    def row(self):
        return self.fixed

    def a_extent(self) -> Extent:
        return self._extent(self.rows.cols_a)

    def extent(self) -> Extent:
        return self._extent(self.rows.cols)

    def _extent(self, cols) -> Extent:
        width = self.fixed.shape[-1]
        return Extent(jnp.ones((1, 1), bool), (jnp.arange(width) < cols)[None, :])

    def block(self):
        raise AssertionError("A value of one row reads no block.")

    matrix = block


def _run(level: Level, read: Callable, fixed: Sequence[jax.Array], layout: Layout) -> jax.Array:
    """Returns the results of a level, `[K, S, N, W]`."""
    products, others = level
    parts = []
    if len(products.a):
        a = read(products.a, products.delay_a)
        parts.append(jnp.einsum("ksnc,kcd->ksnd", a, fixed[0]))
    if len(others.a):
        a, b = read(others.a, others.delay_a), read(others.b, others.delay_b)
        parts.append(_elementwise(others, a, b, fixed[1], layout.operations))
    return jnp.concatenate(parts)


# Compiled into what calls it; traced once for levels of one size.
@functools.partial(jax.jit, static_argnames="operations")
def _elementwise(rows: Rows, a: jax.Array, b: jax.Array, fixed: jax.Array, operations: str) -> jax.Array:
    """Every operation on every row, of which one is chosen: cheap where memory is what limits."""
    codes = branch_codes(1, operations, False)[0]

    def one(rows: Rows, a, b, row):
        which = _Operands(rows, a, b, row)
        branches = [
            (lambda: jnp.zeros(which.shape)) if is_product_code(code) else compute(code, which)
            for code in codes
        ]
        return jnp.reshape(switch(rows.branch, branches), a.shape)

    return jax.vmap(one)(rows, a, b, fixed)
