"""The batched executor, for accelerators: all candidates of a device step together.

A step of training is a few large kernels however many candidates there are (`graphs.batched`), and 64
steps are one launch. What is compiled follows from the sizes of a chunk, rounded up. The last bits
of a score may depend on those sizes, and so on the company, where a device's products do; the
other executors have no such dependence.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.executors import (
    SEGMENT_STEPS,
    Batches,
    Outcome,
    Setting,
    Trials,
    out_of_memory,
    training_segments,
    validation_segments,
)
from elenas_jax.evaluation.training import TRAIN, VALIDATION, head_of, make_optimiser
from elenas_jax.graphs import batched, execution
from elenas_jax.graphs.instructions import find_operations
from elenas_jax.graphs.levels import Population, Sizes, make_population, measure, widest
from elenas_jax.graphs.machine import Layout
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import AFTER, CONSTANTS, LAYOUTS, Program, find_layout, trim
from elenas_jax.graphs.schedule import make_schedule
from elenas_jax.tasks import LOSSES
from elenas_jax.types import AnyArray


class BatchedState(NamedTuple):
    """C candidates in training."""

    params: dict  # "rows" [C, L, W], and of the head "head_kernel" [C, hidden, O], "head_bias" [C, O]
    optimiser: Any  # optax state
    loss_sum: AnyArray  # [C] of the steps of the last segment
    right_sum: AnyArray  # [C]
    finite: AnyArray  # [C] bool


class _Shape(NamedTuple):
    """What a segment is compiled for."""

    sizes: Sizes
    layout: Layout
    scratch: int  # rows of constants
    loss: str
    learning_rate: float
    devices: int


def train(trials: Trials, setting: Setting, batches: Batches) -> Outcome:
    """Trains candidates whose values are rows, as many at a time as memory allows.

    Raises:
      ValueError: for a program of another layout.
      MemoryError: if not even one fits.
    """
    if (find_layout(trials.program) != LAYOUTS.index("row")).any():
        raise ValueError("The batched executor trains programs whose values are rows.")
    num, per_device = len(trials.steps), setting.per_device
    own = functools.partial(batches, int(trials.replicates[0]))
    schedules = [make_schedule(_take(trials.program, c), setting.task.time_steps) for c in range(num)]
    # Programs without a loop need few steps of the sequence; beside one that loops they would run all.
    groups = [np.flatnonzero([bool(each.inside) == loops for each in schedules]) for loops in (True, False)]
    metrics, finite, losses = np.zeros(num), np.zeros(num, bool), np.zeros(num)
    for group in groups:
        # Halving begins where it changes something.
        per_device = min(per_device, max(1, -(-len(group) // setting.devices)))
        first = 0
        while first < len(group):
            chunk = group[first : first + setting.devices * per_device]
            part = Trials(
                _take(trials.program, chunk),
                trials.weights[chunk],
                trials.steps[chunk],
                trials.replicates[chunk],
            )
            try:
                found = _train_chunk(part, [schedules[c] for c in chunk], setting, own)
            except MemoryError:
                if per_device == 1:
                    raise
                per_device //= 2
                continue
            metrics[chunk], finite[chunk], losses[chunk] = found
            first += len(chunk)
    return Outcome(metrics, finite, losses, compile_seconds=0.0, errors={})


def make_segment(shape: _Shape):
    """Returns `segment(population, cols, state, inputs, targets, num_steps, train) -> state`, one device's.

    Takes `[C, L]` columns of each row of parameters, 0 past the last, `[G, N, T, F]` inputs and `[G, N, O]`
    targets; each of C candidates takes its own `num_steps` `[C]` of the G, and none after a loss that is
    not finite. Without `train` it only measures.
    """
    optimiser, rules = make_optimiser(shape.learning_rate), LOSSES[shape.loss]

    def real_rows(grads: jax.Array, real: jax.Array) -> jax.Array:
        """Clears what padded columns of `[C, L, W]` get from operations that mix columns."""
        return jnp.where(jnp.arange(grads.shape[-1]) < real[..., None], grads, 0.0)

    def losses(params: dict, population: Population, inputs, targets):
        rows = jax.vmap(lambda each: execution.with_scratch(each, shape.scratch))(params["rows"])
        outputs = batched.forward(population, rows, inputs, shape.sizes, shape.layout)
        head = head_of(params)
        if head:
            hidden = outputs[..., : head["head_kernel"].shape[1]]
            outputs = jnp.einsum("cnh,cho->cno", hidden, head["head_kernel"]) + head["head_bias"][:, None]
        else:
            outputs = outputs[..., : targets.shape[-1]]
        loss = jax.vmap(lambda each: jnp.mean(rules.loss_fn(each, targets)))(outputs)
        right = jax.vmap(lambda each: jnp.mean(rules.right_fn(each, targets)))(outputs)
        return jnp.sum(loss), (loss, right)

    def segment(population: Population, cols, state: BatchedState, inputs, targets, num_steps, train):
        zero = jnp.zeros_like(state.loss_sum)

        def body(taken, state: BatchedState) -> BatchedState:
            active = (taken < num_steps) & state.finite

            # Measuring computes gradients too, for nothing: half as much to compile, and few steps measure.
            (_, (loss, right)), grads = jax.value_and_grad(losses, has_aux=True)(
                state.params, population, inputs[taken], targets[taken]
            )
            grads = grads | {"rows": real_rows(grads["rows"], cols)}
            updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
            params = optax.apply_updates(state.params, updates)
            learns = active & train

            def keep(new, old):
                # A counter of steps has no candidates; it is read by those that still learn.
                if not new.ndim:
                    return new
                return jnp.where(jnp.reshape(learns, (-1,) + (1,) * (new.ndim - 1)), new, old)

            params, opt_state = jax.tree.map(keep, (params, opt_state), (state.params, state.optimiser))
            return BatchedState(
                params,
                opt_state,
                state.loss_sum + jnp.where(active, loss, 0.0),
                state.right_sum + jnp.where(active, right, 0.0),
                state.finite & (jnp.isfinite(loss) | ~active),
            )

        return jax.lax.fori_loop(0, jnp.max(num_steps), body, state._replace(loss_sum=zero, right_sum=zero))

    return segment


@functools.lru_cache(maxsize=32)
def _compiled(shape: _Shape) -> parallel.Mapped:
    split = (True, True, True, False, False, True, False)
    return parallel.map_over_devices(make_segment(shape), shape.devices, split=split)


def _train_chunk(trials: Trials, schedules: list, setting: Setting, batches: Callable):
    """Returns `[C]` metrics, whether all losses were finite, and losses.

    Raises:
      MemoryError: before anything runs that would not fit.
    """
    task, num, devices = setting.task, len(trials.steps), setting.devices
    program = trim(trials.program, _power_of_two(int(trials.program.phase_ends[..., AFTER].max()), 16))
    layout = Layout(
        "row", setting.width, task.time_steps, last_only=True, operations=find_operations(program.op)
    )
    lanes = -(-num // devices)
    # A free lane repeats the last candidate and takes no steps.
    places = np.minimum(np.arange(devices * lanes), num - 1).reshape(devices, lanes)
    sizes = widest([measure([schedules[c] for c in of_device]) for of_device in places])
    rows = _power_of_two(int(trials.program.parameter_rows.sum(-1).max()), 64)
    is_constant = np.arange(program.max_instructions) < program.phase_ends[..., CONSTANTS, None]
    scratch = _power_of_two(int(np.where(is_constant, program.rows[..., 1:], 0).sum(-1).max()), 0)
    scratch += setting.width if sizes.constants else 0  # for what is computed beyond the last constant
    shape = _Shape(sizes, layout, scratch, task.loss, setting.learning_rate, devices)
    populations = [
        make_population([_take(program, c) for c in each], [schedules[c] for c in each], sizes, layout)
        for each in places
    ]
    population = jax.tree.map(lambda *leaves: np.stack(leaves), *populations)
    state = _initial_state(_take(program, places), trials.weights[places], rows, setting)
    own_steps = np.where(np.arange(places.size).reshape(places.shape) < num, trials.steps[places], 0)
    cols = _columns(_take(program, places), rows)
    arguments = (population, cols, state, *batches(TRAIN, 0), own_steps.astype(np.int32), np.bool_(True))
    segment = _compiled(shape)
    needed = segment.memory_needed(*arguments)
    if needed > setting.memory:
        raise out_of_memory(needed, setting)

    loss = np.zeros(places.shape)
    for first, _ in training_segments(int(own_steps.max())):
        count = np.clip(own_steps - first, 0, SEGMENT_STEPS).astype(np.int32)
        state = segment(population, cols, state, *batches(TRAIN, first), count, np.bool_(True))
        loss = np.where(count > 0, np.asarray(state.loss_sum) / np.maximum(count, 1), loss)
    metric, total = np.zeros(places.shape), 0
    for first, number in validation_segments(setting):
        count = np.where(own_steps > 0, number, 0).astype(np.int32)
        state = segment(population, cols, state, *batches(VALIDATION, first), count, np.bool_(False))
        metric, total = metric + np.asarray(state.right_sum), total + number
    finite = np.asarray(state.finite)
    metric = np.where(finite, metric / total, np.nan)
    return tuple(each.reshape(-1)[:num] for each in (metric, finite, loss))


def _columns(program: Program, rows: int) -> np.ndarray:
    """Returns `[D, C, rows]`, how many columns of each packed row are a parameter's."""
    found = np.zeros((*program.parameter_rows.shape[:-1], rows), np.int32)
    for place in np.ndindex(found.shape[:-1]):
        of_rows = np.repeat(program.parameter_cols[place], program.parameter_rows[place])
        found[place][: len(of_rows)] = of_rows
    return found


def _initial_state(program: Program, weights: np.ndarray, rows: int, setting: Setting) -> BatchedState:
    """Starts training; leaves `[D, C, ...]`."""

    def draw(program: Program, data) -> dict:
        return init_params(jax.random.wrap_key_data(data), program, rows=rows, width=setting.width)

    params = jax.vmap(jax.vmap(draw))(program, weights)
    optimiser = make_optimiser(setting.learning_rate).init(params)
    # A count of steps for each device.
    spread = jax.tree.map(
        lambda leaf: leaf if leaf.ndim else jnp.broadcast_to(leaf, weights.shape[:1]), optimiser
    )
    zero = jnp.zeros(weights.shape[:2])
    return BatchedState(params, spread, zero, zero, jnp.ones(weights.shape[:2], bool))


def _power_of_two(count: int, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length() if count else 0)


def _take(program: Program, places) -> Program:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[places], program)
