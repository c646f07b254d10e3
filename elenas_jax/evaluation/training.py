"""Training as a pure function: many programs, each on its own parameters and the same data.

`make_segment` returns a function that takes a chunk of candidates some steps further. Candidates
follow each other in one compiled loop and share its buffers, so that nothing is allocated or
cleared for one of them, and a candidate's numbers cannot depend on who else is in the chunk.
"""

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from elenas_jax.graphs import execution
from elenas_jax.graphs.machine import Layout, Machine, Visits
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
    optimiser: dict  # optax states, "rows" and "head"
    loss_sum: jax.Array  # [] of the steps of the last segment
    right_sum: jax.Array  # [] share of right answers, summed over the steps of the last segment
    finite: jax.Array  # [] bool, False once a loss was not


class Buffers(NamedTuple):
    """What passes write into; handed on dirty from step to step and from candidate to candidate."""

    tape: jax.Array  # [V, T + 1, N, R, W]
    cotangents: jax.Array  # [V, T + 1, N, R, W]
    gradient: jax.Array  # [L + constants + W, W]


class Job(NamedTuple):
    """What a segment does with one candidate."""

    code: Machine
    num_steps: AnyArray  # [] int32, 0 for padding
    train: AnyArray  # [] bool; False only measures


def data_key(run_key: jax.Array, replicate: int) -> jax.Array:
    """Returns the key of all samples of a replicate: the same for every candidate."""
    return jax.random.fold_in(jax.random.fold_in(run_key, DATA), replicate)


def canonical_digest(canonical: bytes) -> str:
    """Returns 32 hexadecimal digits of a canonical form: the hash that names a candidate."""
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


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
    optimiser = make_optimiser(learning_rate)
    states = {"rows": optimiser.init(params["rows"]), "head": optimiser.init(head_of(params))}
    return TrainState(params, states, zero, zero, jnp.bool_(True))


def head_of(params: dict) -> dict:
    """Returns the parameters of the head, empty where there is none."""
    return {name: value for name, value in params.items() if name != "rows"}


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

    def update_rows(count, num_rows, rows, optimiser_state, gradient):
        """Updates the first `num_rows` rows, `count` blocks of them: room that is not used costs nothing."""
        block = layout.width
        is_rows = jax.tree.map(lambda leaf: leaf.ndim == 2, optimiser_state)

        def cut(leaf, first):
            return jax.lax.dynamic_slice(leaf, (first, 0), (block, leaf.shape[1]))

        def visit(k, carry):
            rows, optimiser_state = carry
            first = k * block
            # Behind the parameters are constants, which have cotangents too.
            real = (first + jnp.arange(block) < num_rows)[:, None]
            old = jax.tree.map(
                lambda leaf, cuts: cut(leaf, first) if cuts else leaf, optimiser_state, is_rows
            )
            updates, new = optimiser.update(jnp.where(real, cut(gradient, first), 0.0), old)
            rows = jax.lax.dynamic_update_slice(rows, cut(rows, first) + updates, (first, 0))
            optimiser_state = jax.tree.map(
                lambda leaf, part, cuts: (
                    jax.lax.dynamic_update_slice(leaf, part, (first, 0)) if cuts else leaf
                ),
                optimiser_state,
                new,
                is_rows,
            )
            return rows, optimiser_state

        rows, updated = jax.lax.fori_loop(0, count, visit, (rows, optimiser_state))
        # Steps are counted once, not once a block.
        return rows, jax.tree.map(
            lambda leaf, cuts: leaf if cuts else leaf + (count > 0).astype(leaf.dtype), updated, is_rows
        )

    def step(job: Job, state: TrainState, buffers: Buffers, inputs, targets, loss):
        code = job.code
        rows = execution.compute_constants(code, state.params["rows"], layout.operations)
        head = head_of(state.params)
        tape = execution.write_input(buffers.tape, inputs, layout, code.first_step)
        tape = execution.forward(code, rows, tape, layout)
        at = (code.output, layout.steps, 0, code.output_rows - 1, 0)
        size = (1, 1, batch_size, 1, layout.width)
        final = jnp.reshape(jax.lax.dynamic_slice(tape, at, size), (batch_size, layout.width))

        def loss_of(head, final):
            outputs = prediction(head, final, targets.shape[-1])
            right = jax.lax.switch(loss, rights, outputs, targets)
            return jax.lax.switch(loss, losses, outputs, targets), right

        value, pull, right = jax.vjp(loss_of, head, final, has_aux=True)
        # Measuring runs no instruction in reverse and moves no parameter.
        of_head, of_final = pull(jnp.where(job.train, 1.0, 0.0))

        def stop(visits: Visits) -> Visits:
            return visits._replace(ends=jnp.where(job.train, visits.ends, 0))

        reverse = code._replace(
            pulls=stop(code.pulls),
            gradients=stop(code.gradients),
            num_constants=jnp.where(job.train, code.num_constants, 0),
        )
        blocks = jnp.where(job.train, -(-code.fixed_rows // layout.width), 0)
        zero = jnp.zeros((layout.width, layout.width))
        gradient = jax.lax.fori_loop(
            0,
            blocks,
            lambda k, buffer: jax.lax.dynamic_update_slice(buffer, zero, (k * layout.width, 0)),
            buffers.gradient,
        )
        cotangents = execution.clear_cotangents(
            code._replace(values=stop(code.values)), buffers.cotangents, layout
        )
        cotangents = jax.lax.dynamic_update_slice(cotangents, jnp.reshape(of_final, size), at)
        cotangents, gradient = execution.backward(reverse, rows, tape, cotangents, gradient, layout)
        blocks = jnp.where(job.train, -(-code.parameter_rows // layout.width), 0)
        rows, of_rows = update_rows(blocks, code.parameter_rows, rows, state.optimiser["rows"], gradient)
        updates, of_head_state = optimiser.update(of_head, state.optimiser["head"])
        new_head = optax.apply_updates(head, updates), of_head_state
        head, of_head_state = jax.tree.map(
            lambda new, old: jnp.where(job.train, new, old), new_head, (head, state.optimiser["head"])
        )
        state = TrainState(
            {"rows": rows} | head,
            {"rows": of_rows, "head": of_head_state},
            state.loss_sum + value,
            state.right_sum + right,
            state.finite & jnp.isfinite(value),
        )
        return state, Buffers(tape, cotangents, gradient)

    def segment(jobs: Job, states: TrainState, inputs, targets, loss):
        def run_one(buffers, job_and_state):
            job, state = job_and_state
            num_rows = state.params["rows"].shape[0]
            rows = execution.with_scratch(state.params["rows"], scratch)
            state = state._replace(
                params=state.params | {"rows": rows}, loss_sum=jnp.zeros(()), right_sum=jnp.zeros(())
            )

            def condition(loop):
                taken, state, _ = loop
                return (taken < job.num_steps) & state.finite

            def body(loop):
                taken, state, buffers = loop
                state, buffers = step(job, state, buffers, inputs[taken], targets[taken], loss)
                return taken + 1, state, buffers

            _, state, buffers = jax.lax.while_loop(condition, body, (0, state, buffers))
            is_parameter = (jnp.arange(num_rows) < job.code.parameter_rows)[:, None]
            rows = jnp.where(is_parameter, state.params["rows"][:num_rows], 0.0)
            return buffers, state._replace(params=state.params | {"rows": rows})

        # Step 0 of the tape is the carry: zero, and never written.
        fixed_rows = states.params["rows"].shape[1] + scratch + layout.width
        gradient = jnp.zeros((fixed_rows, layout.width))
        buffers = Buffers(jnp.zeros(buffer_shape), jnp.zeros(buffer_shape), gradient)
        _, states = jax.lax.scan(run_one, buffers, (jobs, states))
        return states

    return segment
