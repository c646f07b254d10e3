"""The fused executor: each program compiled for itself, without padding and without branches.

Programs are compiled in threads, in which XLA leaves Python alone, while others train: as many of
each at a time as there are devices. A candidate is trained by a compiled program of its own, so
its numbers cannot depend on who else is trained.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.executors import SEGMENT_STEPS, Batches, Setting, Trials, validation_segments
from elenas_jax.evaluation.training import TRAIN, VALIDATION, make_optimiser
from elenas_jax.graphs import unrolled
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import Program, parameter_offsets
from elenas_jax.graphs.schedule import Schedule, make_schedule
from elenas_jax.tasks import LOSSES
from elenas_jax.types import AnyArray, Task

# Kernels of one step are many and small: what makes them compile faster makes none of them slower.
_CPU_OPTIONS: dict[str, Any] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_backend_optimization_level": 1,
}


class FusedState(NamedTuple):
    """One candidate in training."""

    params: AnyArray  # [P] all parameters one after another: of the block, then of the head
    optimiser: Any  # optax state
    loss_sum: AnyArray  # [] of the steps of the last segment
    right_sum: AnyArray  # []
    finite: AnyArray  # [] bool


def make_segment(
    schedule: Schedule, task: Task, *, head: str, hidden_features: int, learning_rate: float
) -> Callable:
    """Returns `segment(state, inputs, targets, num_steps, train) -> state` of one program.

    Takes `[G, N, T, F]` inputs and `[G, N, O]` targets, of which the first `num_steps` are used, and
    none after a loss that is not finite. Without `train` it only measures.
    """
    optimiser = make_optimiser(learning_rate)
    rules = LOSSES[task.loss]
    shapes = [(rows, cols) for _, rows, cols in schedule.parameters]
    if head == "linear":
        shapes += [(hidden_features, task.out_features), (1, task.out_features)]
    ends = np.cumsum([0] + [rows * cols for rows, cols in shapes]).tolist()
    places = [place for place, _, _ in schedule.parameters]

    def split(params):
        parts = [
            jax.lax.reshape(jax.lax.slice(params, (begin,), (end,)), shape)
            for begin, end, shape in zip(ends, ends[1:], shapes, strict=False)
        ]
        return dict(zip(places, parts, strict=False)), parts[len(places) :]

    def step(state: FusedState, inputs, targets, train) -> FusedState:
        of_block, of_head = split(state.params)
        inputs = jnp.swapaxes(inputs[..., : task.in_features], 0, 1)
        final, values = unrolled.forward(schedule, of_block, inputs)

        def loss_of(of_head, final):
            last = final[:, -1]
            outputs = last @ of_head[0] + of_head[1] if of_head else last
            return jnp.mean(rules.loss_fn(outputs, targets)), jnp.mean(rules.right_fn(outputs, targets))

        loss, pull, right = jax.vjp(loss_of, of_head, final, has_aux=True)

        def learn(params, optimiser_state):
            grad_head, cotangent = pull(jnp.float32(1.0))
            grads = unrolled.backward(schedule, of_block, values, cotangent)
            flat = jnp.concatenate([jnp.ravel(each) for each in (*(grads[p] for p in places), *grad_head)])
            updates, optimiser_state = optimiser.update(flat, optimiser_state, params)
            return optax.apply_updates(params, updates), optimiser_state

        params, optimiser_state = jax.lax.cond(
            train, learn, lambda *same: same, state.params, state.optimiser
        )
        return FusedState(
            params,
            optimiser_state,
            state.loss_sum + loss,
            state.right_sum + right,
            state.finite & jnp.isfinite(loss),
        )

    def segment(state: FusedState, inputs, targets, num_steps, train) -> FusedState:
        def condition(loop):
            taken, state = loop
            return (taken < num_steps) & state.finite

        def body(loop):
            taken, state = loop
            return taken + 1, step(state, inputs[taken], targets[taken], train)

        zero = jnp.zeros(())
        return jax.lax.while_loop(condition, body, (0, state._replace(loss_sum=zero, right_sum=zero)))[1]

    return segment


def initial_state(program: Program, params: dict, learning_rate: float) -> FusedState:
    """Starts training from packed parameters of an unbatched program on the host."""
    rows, cols = program.parameter_rows, program.parameter_cols
    packed = np.asarray(params["rows"])
    parts = [
        packed[first : first + r, :c].ravel()
        for first, r, c in zip(np.asarray(parameter_offsets(program)), rows, cols, strict=True)
    ]
    parts += [np.ravel(params[name]) for name in ("head_kernel", "head_bias") if name in params]
    flat = np.concatenate(parts).astype(np.float32)
    optimiser = jax.tree.map(np.asarray, make_optimiser(learning_rate).init(flat))
    zero = np.zeros((), np.float32)
    return FusedState(flat, optimiser, zero, zero, np.ones((), bool))


@functools.cache
def _compiler_options() -> dict[str, Any]:
    """The options that this version of XLA knows; none on other devices than CPUs."""
    known = {}
    for name, value in _CPU_OPTIONS.items() if parallel.is_cpu() else ():
        try:
            jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
            known[name] = value
        except jax.errors.JaxRuntimeError:
            continue
    return known


def compile_segment(
    program: Program, setting: Setting, state: FusedState, inputs, targets, device: int
) -> Callable:
    """Compiles the segment of one program for a device."""
    schedule = make_schedule(program, setting.task.time_steps)
    segment = make_segment(
        schedule,
        setting.task,
        head=program.head,
        hidden_features=program.hidden_features,
        learning_rate=setting.learning_rate,
    )
    arguments = (state, inputs, targets, np.int32(0), np.bool_(True))
    return parallel.compile_on(device, segment, arguments, _compiler_options())


def train(trials: Trials, setting: Setting, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """Trains candidates; returns `[B]` validation metrics and whether all losses were finite."""
    num = len(trials.steps)
    inputs, targets = batches(TRAIN, 0)
    starts = []
    for place in range(num):
        program = jax.tree.map(lambda leaf, place=place: np.asarray(leaf)[place], trials.program)
        key = jax.random.wrap_key_data(trials.weights[place])
        params = parallel.on_host(init_params(key, program))
        starts.append((program, initial_state(program, params, setting.learning_rate)))

    def compile_one(place: int) -> Callable:
        program, state = starts[place]
        return compile_segment(program, setting, state, inputs, targets, place % setting.devices)

    def train_some(device: int) -> list[tuple[float, bool]]:
        found = []
        for place in range(device, num, setting.devices):
            found.append(
                _train_one(
                    compiled[place].result(),
                    starts[place][1],
                    int(trials.steps[place]),
                    setting,
                    batches,
                    device,
                )
            )
        return found

    with ThreadPoolExecutor(setting.devices) as compilers, ThreadPoolExecutor(setting.devices) as trainers:
        compiled = [compilers.submit(compile_one, place) for place in range(num)]
        results = list(trainers.map(train_some, range(setting.devices)))
    metrics, finite = np.zeros(num), np.zeros(num, bool)
    for device, found in enumerate(results):
        for place, (metric, ok) in zip(range(device, num, setting.devices), found, strict=True):
            metrics[place], finite[place] = metric, ok
    return metrics, finite


def _train_one(
    segment: Callable, state: FusedState, steps: int, setting: Setting, batches: Batches, device: int
):
    """Trains and validates one candidate on a device."""
    for first in range(0, steps, SEGMENT_STEPS):
        count = np.int32(min(SEGMENT_STEPS, steps - first))
        state = segment(state, *parallel.put_on(device, batches(TRAIN, first)), count, np.bool_(True))
    right, total = 0.0, 0
    for first, count in validation_segments(setting):
        data = parallel.put_on(device, batches(VALIDATION, first))
        state = segment(state, *data, np.int32(count), np.bool_(False))
        right, total = right + float(state.right_sum), total + count
    finite = bool(state.finite)
    return (float(right / total) if finite else np.nan), finite
