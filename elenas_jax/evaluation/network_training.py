"""Training of one network as compiled functions: so many steps at a call, and a measurement.

The steps of a call are one compiled loop. But on a CPU, XLA has its fast kernels for convolutions outside
loops only (see jax-ml/jax#12868, and scripts/benchmark_cpu_kernels.py): a step of ResNet18 takes 30 times as
long within one. So networks that convolve are called step by step there: a call costs a fraction of a step.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.examples import Examples, Segment, measure
from elenas_jax.evaluation.flops import count_flops, has_convolution
from elenas_jax.evaluation.recipes import Course, Recipe, learning_rates, make_direction
from elenas_jax.types import DIVERGED, OK, TIMED_OUT, AnyArray, Array, Network, PyTree

TRAIN_KEY = 2**32 - 4  # folded into the weights' key for what training draws; no parameter has this number


class TrainState(NamedTuple):
    """A network in training."""

    params: PyTree
    network: PyTree  # of the network: batch statistics, say
    optimiser: PyTree
    step: Array  # [] int32, steps taken
    finite: Array  # [] bool, False once a loss was not


class NetworkProgram(NamedTuple):
    """One network, compiled for one task."""

    init: Callable[[jax.Array], TrainState]  # of a key
    advance: Callable[[TrainState, Segment, float, jax.Array], TrainState]  # with a rate and a key
    outputs_of: Callable[[TrainState, AnyArray], jax.Array]  # [B, ...] stored inputs -> [B, O]
    parameters: int
    flops: float  # forward, per example
    memory: int  # bytes a training needs, the data counted
    seconds: float  # that tracing and compiling took


class Fitted(NamedTuple):
    """What came of a training."""

    state: TrainState | None  # after the last finished epoch; None if there is none
    status: int  # OK, DIVERGED without a finished epoch, or TIMED_OUT
    steps: int


def compile_network(network: Network, examples: Examples, recipe: Recipe) -> NetworkProgram:
    """Compiles a network for the examples of a task; safe in a thread beside one that trains.

    Raises:
      ValueError: if the network's outputs are of another size than the targets.
    """
    started = time.perf_counter()
    direction = make_direction(recipe)

    def init(key: jax.Array) -> TrainState:
        params, state = network.init(key)
        return TrainState(params, state, direction.init(params), jnp.int32(0), jnp.bool_(True))

    def loss_of(params, state, inputs, targets, key):
        outputs, state = network.apply(params, state, examples.inputs_of(inputs), train=True, key=key)
        return examples.loss(jnp.reshape(outputs, targets.shape), targets), state

    def take_step(state: TrainState, inputs, targets, rows, rate, key) -> TrainState:
        key = jax.random.fold_in(key, state.step)
        gradient_fn = jax.value_and_grad(loss_of, has_aux=True)
        (loss, after), gradient = gradient_fn(state.params, state.network, inputs[rows], targets[rows], key)
        updates, optimiser = direction.update(gradient, state.optimiser, state.params)
        params = jax.tree.map(lambda leaf, update: leaf - rate * update, state.params, updates)
        return TrainState(params, after, optimiser, state.step + 1, state.finite & jnp.isfinite(loss))

    # The name stands in the files of the compilation cache.
    def individual_segment(state: TrainState, inputs, targets, rows, rate, key, num_steps) -> TrainState:
        def goes_on(loop):
            taken, state = loop
            return (taken < num_steps) & state.finite

        def body(loop):
            taken, state = loop
            return taken + 1, take_step(state, inputs, targets, rows[taken], rate, key)

        return jax.lax.while_loop(goes_on, body, (0, state))[1]

    def individual_step(state: TrainState, inputs, targets, rows, rate, key) -> TrainState:
        return take_step(state, inputs, targets, rows, rate, key)

    def individual_outputs(params, state, inputs):
        outputs, _ = network.apply(params, state, examples.inputs_of(inputs), train=False)
        if math.prod(outputs.shape[1:]) != math.prod(targets.shape[1:]):
            raise ValueError(
                f"Of an example outputs are {outputs.shape[1:]}, the targets {targets.shape[1:]}."
            )
        return jnp.reshape(outputs, (len(outputs), *targets.shape[1:]))

    segment = next(examples.segments(0, 0, 1))
    shapes = jax.eval_shape(init, jax.random.key(0))
    stored, targets = _shape(segment.inputs), _shape(segment.targets)
    batch = jax.ShapeDtypeStruct((recipe.batch_size, *stored.shape[1:]), stored.dtype)
    measuring = jax.jit(individual_outputs).trace(shapes.params, shapes.network, batch)
    calls_each = parallel.is_cpu() and has_convolution(measuring.jaxpr)
    arguments = (shapes, stored, targets)
    rate, key, count = np.float32(0), jax.random.key(0), np.int32(0)
    options = parallel.compiler_options()
    if calls_each:
        training = jax.jit(individual_step).trace(*arguments, segment.rows[0], rate, key)
    else:
        training = jax.jit(individual_segment).trace(*arguments, segment.rows, rate, key, count)
    train = parallel.compile_on(0, training, options)
    evaluate = parallel.compile_on(0, measuring, options)

    def advance(state: TrainState, segment: Segment, rate: float, key: jax.Array) -> TrainState:
        scalar = np.float32(rate)
        if not calls_each:
            return train(state, *segment[:2], segment.rows, scalar, key, np.int32(segment.num_steps))
        for rows in segment.rows[: segment.num_steps]:
            state = train(state, *segment[:2], rows, scalar, key)
            if not state.finite:
                break
        return state

    def outputs_of(state: TrainState, inputs: AnyArray) -> jax.Array:
        return evaluate(state.params, state.network, inputs)

    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params))
    flops = count_flops(measuring.jaxpr) / recipe.batch_size
    return NetworkProgram(
        init,
        advance,
        outputs_of,
        parameters if network.parameters is None else network.parameters,
        flops if network.flops is None else network.flops,
        max(parallel.memory_needed(train), parallel.memory_needed(evaluate)),
        time.perf_counter() - started,
    )


def fit(
    program: NetworkProgram,
    examples: Examples,
    recipe: Recipe,
    course: Course,
    key: jax.Array,
    replicate: int,
    seconds: float = math.inf,
    *,
    begun: tuple[int, TrainState] | None = None,
    on_epoch: Callable[[int, TrainState], None] = lambda done, state: None,
) -> Fitted:
    """Trains a network, from the start or on from an epoch of an earlier call.

    A loss that is not finite ends the training; what counts then is the last epoch that was finished.
    Nothing is measured on the way unless the recipe has patience.

    Args:
      program: of the network and these examples.
      examples: to train and, with patience, to measure on.
      recipe: that the program was compiled for.
      course: how long.
      key: of the weights.
      replicate: of the data.
      seconds: from now on, after which the training is given up; looked at between segments.
      begun: what `on_epoch` was told, with a recipe without patience: to go on from.
      on_epoch: told the number of finished epochs and the state after them.
    """
    started = time.perf_counter()
    if begun and recipe.patience:
        raise ValueError(f"patience is {recipe.patience}; only trainings without it go on from an epoch.")
    first, kept = begun or (0, None)
    state = program.init(key) if kept is None else kept
    train_key = jax.random.fold_in(key, TRAIN_KEY)
    best, waited = -math.inf, 0
    rates = learning_rates(recipe, course.epochs).tolist()
    for epoch in range(first, course.epochs):
        for segment in examples.segments(replicate, epoch, course.steps):
            state = program.advance(state, segment, rates[epoch], train_key)
            if not state.finite:
                return Fitted(kept, DIVERGED if kept is None else OK, int(state.step))
            if time.perf_counter() - started > seconds:
                return Fitted(kept, TIMED_OUT, int(state.step))
        kept = state
        on_epoch(epoch + 1, state)
        if recipe.patience:
            metric = measure_network(program, state, examples, replicate)
            best, waited = (metric, 0) if metric > best else (best, waited + 1)
            if waited == recipe.patience:
                break
    return Fitted(kept, OK, int(state.step))


def measure_network(program: NetworkProgram, state: TrainState, examples: Examples, replicate: int) -> float:
    """Returns the metric on the validation data of a task."""
    return measure(
        lambda inputs: program.outputs_of(state, inputs), examples.batches(replicate), examples.metric
    )


def _shape(array: AnyArray) -> Any:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
