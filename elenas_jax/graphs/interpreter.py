"""Runs programs: inputs and parameters in, outputs out, differentiable.

The meaning is fixed by the readable evaluator in `tests/reference`; this is the fast path.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import execution
from elenas_jax.graphs.instructions import find_operations
from elenas_jax.graphs.liveness import VALID
from elenas_jax.graphs.machine import Layout, Machine, machine
from elenas_jax.graphs.program import LAYOUTS, Program, check_valid, find_layout, trim


class Carry(NamedTuple):
    """Values of the previous step, for running on where a call left off."""

    values: jax.Array  # [V, N, R, W]


def _bucket(count: int) -> int:
    """Rounds a number of instructions up, so that programs of similar length share a compilation."""
    return max(8, 1 << (count - 1).bit_length())


def specialise(program: Program) -> Program:
    """Fits the padding to the program, or batch of programs: instructions and layout; host only.

    Programs that were specialised together run in the cheapest layout that holds them all.
    """
    program = jax.tree.map(np.asarray, program)
    layouts = find_layout(program)
    kinds = {LAYOUTS[index] for index in np.unique(layouts)}
    if "sequence" in kinds and len(kinds) > 1:
        raise ValueError("Recurrent programs and others run in different layouts; specialise them apart.")
    longest = int(np.max(np.asarray(program.phase_ends)[..., -1], initial=1))
    layout = LAYOUTS[int(np.max(layouts, initial=0))]
    program = trim(program, _bucket(longest))
    return dataclasses.replace(program, layout=layout, operations=find_operations(program.op))


def padded_width(program: Program, kind: str, time_steps: int) -> int:
    """Columns of padded values: parameters as they are packed, and the square of a whole sequence."""
    return max(program.width, time_steps) if kind == "sequence" else program.width


def initial_carry(program: Program, batch_size: int) -> Carry:
    """Returns the values before the first step, all zero, of an unbatched recurrent program.

    Raises:
      ValueError: if the program is invalid or not recurrent; host only.
    """
    check_valid(program)
    if not program.recurrent:
        raise ValueError("The program is not recurrent: it sees the whole sequence and carries nothing.")
    program = specialise(program)
    width = padded_width(program, str(program.layout), 1)
    rows = 1 if program.layout == "row" else width
    return Carry(jnp.zeros((program.max_instructions + 1, batch_size, rows, width)))


def interpret(
    program: Program,
    params: dict,
    inputs: jax.Array,
    *,
    carry: Carry | None = None,
    return_carry: bool = False,
):
    """Runs one program on one batch of sequences; unbatched, `vmap` over it to run a population.

    Args:
      program: a valid program; under `jit` or `vmap` an invalid one gives NaN.
      params: packed parameters (`init_params`, `pack_params`).
      inputs: `[N, T, in]`.
      carry: values of the step before the first one (recurrent programs).
      return_carry: whether to return the values of the last step too.

    Returns:
      `[N, T, out]`, each step's output of a recurrent program. Otherwise `[N, rows, out]`, rows =
      T or 1. Under `jit` or `vmap` a single row is repeated T times, as shapes are fixed there.

    Raises:
      ValueError: for an invalid program, or inputs of another shape than the program's.
    """
    if inputs.ndim != 3 or inputs.shape[-1] != program.in_features:
        raise ValueError(
            f"inputs have shape {inputs.shape}; the program needs [N, T, {program.in_features}]."
        )
    traced = isinstance(program.status, jax.core.Tracer)
    fixed = program.time_steps is not None and not traced and not program.recurrent
    if fixed and inputs.shape[1] != program.time_steps:
        raise ValueError(
            f"The program was constructed for {program.time_steps} time steps; "
            f"the inputs have {inputs.shape[1]}."
        )
    if traced:
        if program.layout is not None:
            outputs, last = _run(program, params, inputs, carry, program.layout)
        else:
            # Nothing is known of the program but its padding: both readings are computed.
            stepwise, last = _run(program, params, inputs, carry, "matrix")
            whole, _ = _run(program, params, inputs, None, "sequence")
            outputs = jnp.where(program.recurrent, stepwise, whole)
        outputs = jnp.where(program.status == VALID, outputs, jnp.nan)
    else:
        check_valid(program)
        program = specialise(program)
        outputs, last = _run_jitted(program, params, inputs, carry, program.layout)
        if not program.recurrent and program.rows[program.output] == 1:
            outputs = outputs[:, :1]
    return (outputs, last) if return_carry else outputs


def _run(program: Program, params: dict, inputs, carry, kind: str):
    """Runs in a layout; outputs `[N, T, out]` and the carry."""
    num, time, _ = inputs.shape
    layout = Layout(kind, padded_width(program, kind, time), time, operations=program.operations)
    num_slots = program.max_instructions + 1
    if carry is None:
        carry = Carry(jnp.zeros((num_slots, num, layout.rows, layout.width)))
    code = machine(program, layout)
    rows = params["rows"]
    rows = jnp.pad(rows, ((0, 0), (0, layout.width - rows.shape[1])))
    scratch = program.max_instructions * layout.width
    values, last = _values(layout, scratch, code, rows, inputs, carry.values)
    if kind == "sequence":
        row = jnp.minimum(jnp.arange(time), code.output_rows - 1)
        final = values[0][:, row]  # [N, T, W]
    else:
        final = jnp.swapaxes(values[:, :, 0], 0, 1)
    return apply_head(program, params, final), Carry(last)


_run_jitted = jax.jit(_run, static_argnames="kind")


def apply_head(program: Program, params: dict, values: jax.Array) -> jax.Array:
    """Maps `[..., W]` padded values of the final node to `[..., out]`."""
    if program.head == "none":
        return values[..., : program.out_features]
    return values[..., : program.hidden_features] @ params["head_kernel"] + params["head_bias"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _values(layout: Layout, scratch: int, code: Machine, rows, inputs, carry):
    """Returns `[steps, N, R, W]` values of the final node and `[V, N, R, W]` of the last step."""
    values, last, _, _ = _forward(layout, scratch, code, rows, inputs, carry)
    return values, last


def _forward(layout, scratch, code, rows, inputs, carry):
    params = execution.compute_constants(code, execution.with_scratch(rows, scratch), layout.operations)
    tape = jnp.zeros((carry.shape[0], layout.steps + 1, *carry.shape[1:])).at[:, 0].set(carry)
    tape = execution.write_input(tape, inputs, layout)
    tape = execution.forward(code, params, tape, layout)
    values = jax.lax.dynamic_index_in_dim(tape, code.output, keepdims=False)
    return values[1:], tape[:, -1], params, tape


def _values_forward(layout, scratch, code, rows, inputs, carry):
    values, last, params, tape = _forward(layout, scratch, code, rows, inputs, carry)
    return (values, last), (code, params, tape, rows.shape[0], inputs.shape)


def _values_backward(layout, scratch, residuals, cotangents):
    code, params, tape, num_rows, (_, time, features) = residuals
    of_values, of_last = cotangents
    buffer = jnp.zeros_like(tape).at[:, -1].set(of_last)
    buffer = buffer.at[code.output, 1:].add(of_values)
    buffer, gradient = execution.backward(code, params, tape, buffer, jnp.zeros_like(params), layout)
    if layout.kind == "sequence":
        of_inputs = buffer[0, 1][:, :time, :features]
    else:
        of_inputs = jnp.swapaxes(buffer[0, 1:, :, 0, :features], 0, 1)
    return None, gradient[:num_rows], of_inputs, buffer[:, 0]


_values.defvjp(_values_forward, _values_backward)
