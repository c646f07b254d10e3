"""A block as a layer of a deep network: sequences in, sequences of the same length out.

Where a search wants the prediction of a block's last step, a stack of blocks wants the value of the
final node at every step, and gradients of the inputs. A recurrent block can also go on where it left off:
truncated backpropagation through time hands its state from one piece of a long text to the next.
The passes are those of the fused executor (`unrolled`), the reverse one by hand.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import unrolled
from elenas_jax.graphs.computation import ComputationGraph
from elenas_jax.graphs.export import compiled_construct, parameter_names
from elenas_jax.graphs.program import AFTER, TIME, Program, check_valid, trim
from elenas_jax.graphs.schedule import Schedule, make_schedule

State = Mapping[int, jax.Array]  # by slot: [delay, N, R, C], values of earlier steps


class Layer(NamedTuple):
    """A block of some width as a function of whole sequences."""

    parameters: dict[str, tuple[int, int]]  # rows and columns by name, as in `equations`
    is_recurrent: bool
    # (params {name: [rows, cols]}, inputs [T, N, width], state) -> outputs [T, N, width], state.
    # The state {} is zero, as before the first step; no gradient is handed back to it.
    apply: Callable[[Mapping[str, jax.Array], jax.Array, State], tuple[jax.Array, State]]
    initial_state: Callable[[int], dict[int, jax.Array]]  # number of examples -> zeros


def make_layer(graph: ComputationGraph, width: int, time_steps: int) -> Layer:
    """Makes a layer of a block; host only.

    Args:
      graph: the block. Its final activation stays, as with a linear head.
      width: of inputs, outputs and whatever the block leaves free.
      time_steps: T.

    Raises:
      ValueError: for a block that is no network at this width, with the reason, or that makes one
        row of a whole sequence.
    """
    program = _construct(graph, width, time_steps)
    schedule = make_schedule(program, time_steps, as_layer=True)
    names = {(node - 1) // 2: name for node, name in parameter_names(graph).items()}
    apply = _make_apply(schedule, names)

    def initial_state(num_examples: int) -> dict[int, jax.Array]:
        params = {names[place]: np.zeros((rows, cols)) for place, rows, cols in schedule.parameters}
        inputs = np.zeros((time_steps, num_examples, width))
        state = jax.eval_shape(apply, params, inputs, {})[1]
        return {slot: jnp.zeros(each.shape, each.dtype) for slot, each in state.items()}

    shapes = {names[place]: (rows, cols) for place, rows, cols in schedule.parameters}
    return Layer(shapes, bool(program.recurrent), apply, initial_state)


def _construct(graph: ComputationGraph, width: int, time_steps: int) -> Program:
    sizes = dict(in_features=width, out_features=width, hidden_features=width, time_steps=time_steps)
    program = jax.tree.map(np.asarray, compiled_construct(graph, **sizes, head="linear"))
    check_valid(program)
    rows = int(program.rows[int(program.output)])
    if not program.recurrent and rows not in (TIME, time_steps):
        raise ValueError(
            f"The block makes {rows} row of a sequence of {time_steps}; a layer hands on as many as it gets."
        )
    return trim(program, max(1, int(program.phase_ends[AFTER])))


def _make_apply(schedule: Schedule, names: Mapping[int, str]) -> Callable:
    def run(params, inputs, state):
        by_place = {place: params[names[place]] for place, _, _ in schedule.parameters}
        stack, values = unrolled.forward(schedule, by_place, inputs, state)
        if schedule.steps == 1:  # a value is a matrix of all steps, or T is 1
            outputs = jnp.swapaxes(stack[0], 0, 1)
        else:
            outputs = stack[:, :, 0]
        return outputs, unrolled.last_values(schedule, values), by_place, values

    @jax.custom_vjp
    def apply(params, inputs, state):
        return run(params, inputs, state)[:2]

    def forward(params, inputs, state):
        outputs, last, by_place, values = run(params, inputs, state)
        return (outputs, last), (by_place, values, state)

    def backward(kept, cotangents):
        by_place, values, state = kept
        of_outputs = cotangents[0]
        if schedule.steps == 1:
            of_stack = jnp.swapaxes(of_outputs, 0, 1)[None]
        else:
            of_stack = of_outputs[:, :, None]
        of_params, of_inputs = unrolled.backward(schedule, by_place, values, of_stack)
        of_names = {names[place]: part for place, part in of_params.items()}
        return of_names, of_inputs, jax.tree.map(jnp.zeros_like, state)

    apply.defvjp(forward, backward)
    return apply
