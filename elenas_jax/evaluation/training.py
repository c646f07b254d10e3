"""Training as a pure function: many programs, each on its own parameters and the same data.

`make_segment` returns a function that takes a chunk of candidates some steps further. Candidates
follow each other in one compiled loop and share its buffers, so that nothing is allocated or
cleared for one of them, and a candidate's numbers cannot depend on who else is in the chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elenas_jax.graphs import execution
from elenas_jax.graphs.execution import Layout, Machine
from elenas_jax.tasks import LOSSES
from elenas_jax.types import AnyArray

# Folded into the run's key. Generations are folded into it too, so these are numbers that none has.
DATA, WEIGHTS = 2**32 - 2, 2**32 - 3
# Folded into the data key of a replicate.
TRAIN, VALIDATION, TEST = 1, 2, 3

LOSS_NAMES = tuple(LOSSES)


class TrainState(NamedTuple):
    """One candidate in training; a pytree that can be kept and continued."""

    params: dict  # "rows" [L, W], and of the head "head_kernel" [hidden, O], "head_bias" [O]
    optimiser: Any  # optax state
    loss_sum: jax.Array  # [] of the steps of the last segment
    right_sum: jax.Array  # [] share of right answers, summed over the steps of the last segment
    finite: jax.Array  # [] bool, False once a loss was not


class Job(NamedTuple):
    """What a segment does with one candidate."""

    code: Machine
    output_rows: AnyArray  # [] int32, rows of the output of a sequence program, else 1
    num_steps: AnyArray  # [] int32, 0 for padding
    train: AnyArray  # [] bool; False only measures


def data_key(run_key: jax.Array, replicate: int) -> jax.Array:
    """Returns the key of all samples of a replicate: the same for every candidate."""
    return jax.random.fold_in(jax.random.fold_in(run_key, DATA), replicate)


def weights_key(run_key: jax.Array, canonical_hash: str, replicate: int) -> jax.Array:
    """Returns the key of a candidate's weights: the same in any batch and generation."""
    key = jax.random.fold_in(run_key, WEIGHTS)
    for first in (0, 8):
        key = jax.random.fold_in(key, int(canonical_hash[first : first + 8], 16))
    return jax.random.fold_in(key, replicate)


def make_optimiser(learning_rate: float) -> optax.GradientTransformation:
    """Adam without weight decay, at a constant rate: a larger budget continues a smaller one exactly."""
    return optax.adam(learning_rate)


def initial_state(params: dict, learning_rate: float) -> TrainState:
    """Starts training from packed parameters; unbatched."""
    zero = jnp.zeros(())
    return TrainState(params, make_optimiser(learning_rate).init(params), zero, zero, jnp.bool_(True))


def make_segment(
    layout: Layout, *, max_instructions: int, batch_size: int, learning_rate: float, scratch: int
):
    """Returns `segment(jobs, states, inputs, targets, loss) -> states`.

    Args:
      layout: static shape of a pass, `last_only`.
      max_instructions: I, padding of the programs.
      batch_size: N.
      learning_rate: of Adam.
      scratch: rows for constants behind the parameters.

    The returned function takes `[C]` jobs and states, `[G, N, T, F]` inputs and `[G, N, O]` targets of
    up to G steps (all candidates see the same ones), and the index of a loss in `LOSS_NAMES`. A
    candidate takes its own `num_steps`, and none after a loss that is not finite.
    """
    optimiser = make_optimiser(learning_rate)
    buffer_shape = (max_instructions + 1, layout.steps + 1, batch_size, layout.rows, layout.width)
    losses = [
        lambda outputs, targets, fn=LOSSES[name].loss_fn: jnp.mean(fn(outputs, targets))
        for name in LOSS_NAMES
    ]
    rights = [
        lambda outputs, targets, fn=LOSSES[name].right_fn: jnp.mean(fn(outputs, targets))
        for name in LOSS_NAMES
    ]

    def prediction(head: dict, final: jax.Array, num_outputs: int) -> jax.Array:
        if not head:
            return final[:, :num_outputs]
        return final[:, : head["head_kernel"].shape[0]] @ head["head_kernel"] + head["head_bias"]

    def step(job: Job, state: TrainState, tape, cotangents, inputs, targets, loss):
        code = job.code
        head = {name: value for name, value in state.params.items() if name != "rows"}
        rows = execution.compute_constants(
            code, execution.with_scratch(state.params["rows"], scratch), layout.width, layout.operations
        )
        tape = execution.write_input(tape, inputs, layout)
        tape = execution.forward(code, rows, tape, layout)
        at = (code.output, layout.steps, 0, job.output_rows - 1, 0)
        size = (1, 1, batch_size, 1, layout.width)
        final = jnp.reshape(jax.lax.dynamic_slice(tape, at, size), (batch_size, layout.width))

        def loss_of(head, final):
            outputs = prediction(head, final, targets.shape[-1])
            right = jax.lax.switch(loss, rights, outputs, targets)
            return jax.lax.switch(loss, losses, outputs, targets), right

        value, pull, right = jax.vjp(loss_of, head, final, has_aux=True)
        # Measuring runs no instruction in reverse and moves no parameter.
        of_head, of_final = pull(jnp.where(job.train, 1.0, 0.0))
        reverse = code._replace(ends=jnp.where(job.train, code.ends, 0))
        cotangents = execution.clear_cotangents(reverse, cotangents)
        cotangents = jax.lax.dynamic_update_slice(cotangents, jnp.reshape(of_final, size), at)
        cotangents, of_rows = execution.backward(reverse, rows, tape, cotangents, layout)
        gradient = {"rows": of_rows[: state.params["rows"].shape[0]]} | of_head
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        params, optimiser_state = jax.tree.map(
            lambda new, old: jnp.where(job.train, new, old),
            (params, optimiser_state),
            (state.params, state.optimiser),
        )
        state = TrainState(
            params,
            optimiser_state,
            state.loss_sum + value,
            state.right_sum + right,
            state.finite & jnp.isfinite(value),
        )
        return state, tape, cotangents

    def segment(jobs: Job, states: TrainState, inputs, targets, loss):
        def run_one(buffers, job_and_state):
            job, state = job_and_state
            state = state._replace(loss_sum=jnp.zeros(()), right_sum=jnp.zeros(()))

            def condition(loop):
                taken, state, _, _ = loop
                return (taken < job.num_steps) & state.finite

            def body(loop):
                taken, state, tape, cotangents = loop
                state, tape, cotangents = step(
                    job, state, tape, cotangents, inputs[taken], targets[taken], loss
                )
                return taken + 1, state, tape, cotangents

            _, state, *buffers = jax.lax.while_loop(condition, body, (0, state, *buffers))
            return tuple(buffers), state

        # Step 0 of the tape is the carry: zero, and never written.
        buffers = (jnp.zeros(buffer_shape), jnp.zeros(buffer_shape))
        _, states = jax.lax.scan(run_one, buffers, (jobs, states))
        return states

    return segment
