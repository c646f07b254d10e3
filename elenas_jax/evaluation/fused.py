"""The fused executor: each program compiled for itself, without padding and without branches.

Programs are compiled in threads, in which XLA leaves Python alone, while others train: as many of
each at a time as there are devices. A candidate is trained by a compiled program of its own, so
its numbers cannot depend on who else is trained.
"""

import collections
import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
from elenas_jax.evaluation.training import TRAIN, VALIDATION
from elenas_jax.graphs import unrolled
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import AFTER, Program, trim
from elenas_jax.graphs.schedule import Schedule, make_schedule
from elenas_jax.tasks import LOSSES
from elenas_jax.types import AnyArray, Task

# Machine code that is not optimised takes a third of the time to compile and runs for 2 to 5 times as long,
# which is better for trainings of fewer steps than these (docs/engine_notes.md).
_OPTIMISED_STEPS = {"loop": 100, "no loop": 1500}
# What compiling a program counts as, where candidates are dealt to devices.
_COMPILING_STEPS = 500


class FusedState(NamedTuple):
    """One candidate in training."""

    params: AnyArray  # [P] all parameters one after another: of the block, then of the head
    mean: AnyArray  # [P] Adam's first moment
    square: AnyArray  # [P] Adam's second moment
    loss_sum: AnyArray  # [] of the steps of the last segment
    right_sum: AnyArray  # []
    finite: AnyArray  # [] bool


# Adam as optax.adam has it, whose powers of the decays follow from the number of the step alone: they come
# from the host. That and gradients of losses by hand leave a fifth less to compile (docs/engine_notes.md).
DECAYS, EPSILON = (0.9, 0.999), 1e-8


def bias_corrections(first: int) -> np.ndarray:
    """Returns `[SEGMENT_STEPS, 2]` factors of Adam's moments, of steps from `first` on, counted from 0."""
    steps = first + 1.0 + np.arange(SEGMENT_STEPS)
    return np.stack([1.0 / (1.0 - decay**steps) for decay in DECAYS], axis=1).astype(np.float32)


def make_segment(
    schedule: Schedule, task: Task, *, head: str, hidden_features: int, learning_rate: float
) -> Callable:
    """Returns `segment(state, inputs, targets, corrections, num_steps, train) -> state` of one program.

    Takes `[G, N, T, F]` inputs, `[G, N, O]` targets and `[G, 2]` bias corrections, of which the first
    `num_steps` are used, and none after a loss that is not finite. Without `train` it measures, and
    leaves moments behind that are worth nothing.
    """
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

    def step(state: FusedState, inputs, targets, correction, train) -> FusedState:
        of_block, of_head = split(state.params)
        final, values = unrolled.forward(schedule, of_block, inputs)
        last = final[-1, :, -1]
        outputs = last @ of_head[0] + of_head[1] if of_head else last
        loss = jnp.mean(rules.loss_fn(outputs, targets))
        right = jnp.mean(rules.right_fn(outputs, targets))
        pull = rules.gradient_fn(outputs, targets) / len(targets)
        grads = [last.T @ pull, jnp.sum(pull, axis=0)] if of_head else []
        of_last = pull @ of_head[0].T if of_head else pull
        cotangent = jnp.pad(of_last[None, :, None], ((0, 0), (0, 0), (final.shape[2] - 1, 0), (0, 0)))
        by_place, _ = unrolled.backward(schedule, of_block, values, cotangent)
        grad = jnp.concatenate([jnp.ravel(each) for each in (*(by_place[p] for p in places), *grads)])
        mean = DECAYS[0] * state.mean + (1.0 - DECAYS[0]) * grad
        square = DECAYS[1] * state.square + (1.0 - DECAYS[1]) * jnp.square(grad)
        update = mean * correction[0] / (jnp.sqrt(square * correction[1]) + EPSILON)
        return FusedState(
            jnp.where(train, state.params - learning_rate * update, state.params),
            mean,
            square,
            state.loss_sum + loss,
            state.right_sum + right,
            state.finite & jnp.isfinite(loss),
        )

    # Its name is that of entries in the compilation cache, by which sessions prune them.
    def fused_segment(state: FusedState, inputs, targets, corrections, num_steps, train) -> FusedState:
        inputs = jnp.swapaxes(inputs[..., : task.in_features], 1, 2)

        def condition(loop):
            taken, state = loop
            return (taken < num_steps) & state.finite

        def body(loop):
            taken, state = loop
            return taken + 1, step(state, inputs[taken], targets[taken], corrections[taken], train)

        zero = jnp.zeros(())
        return jax.lax.while_loop(condition, body, (0, state._replace(loss_sum=zero, right_sum=zero)))[1]

    return fused_segment


def initial_state(program: Program, params: dict) -> FusedState:
    """Starts training from packed parameters of an unbatched program on the host."""
    rows, cols = program.parameter_rows, program.parameter_cols
    packed = np.asarray(params["rows"])
    offsets = np.cumsum(rows) - rows
    parts = [packed[first : first + r, :c].ravel() for first, r, c in zip(offsets, rows, cols, strict=True)]
    parts += [np.ravel(params[name]) for name in ("head_kernel", "head_bias") if name in params]
    flat = np.concatenate(parts).astype(np.float32)
    zero = np.zeros((), np.float32)
    return FusedState(flat, np.zeros_like(flat), np.zeros_like(flat), zero, zero, np.ones((), bool))


class _Compiled(NamedTuple):
    run: Callable
    needed: int  # bytes


class _Compilations:
    """Compiled programs by what they depend on; the last few are kept, for other seeds of a candidate."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.lock = threading.Lock()
        self.futures: collections.OrderedDict[Hashable, Future[_Compiled]] = collections.OrderedDict()

    def get(self, key: Hashable, submit: Callable[[], Future]) -> tuple[Future, bool]:
        """Returns what compiles a program, and whether it is new."""
        with self.lock:
            is_new = key not in self.futures
            if is_new:
                self.futures[key] = submit()
                while len(self.futures) > self.kept:
                    self.futures.popitem(last=False)
            self.futures.move_to_end(key)
            return self.futures[key], is_new

    def forget(self, key: Hashable) -> None:
        with self.lock:
            self.futures.pop(key, None)

    def clear(self) -> None:
        with self.lock:
            self.futures.clear()


_COMPILATIONS = _Compilations(kept=128)


def forget_compiled() -> None:
    """Forgets compiled programs that were kept for other seeds of their candidates."""
    _COMPILATIONS.clear()


def _identity(program: Program, level: int, setting: Setting) -> Hashable:
    """Everything that a compiled program depends on."""
    leaves, structure = jax.tree.flatten(program)
    task = setting.task
    return (
        tuple((leaf.shape, leaf.tobytes()) for leaf in map(np.asarray, leaves)),
        structure,
        level,
        (task.loss, task.in_features, task.out_features, task.time_steps),
        (setting.batch_size, setting.learning_rate, setting.in_features),
    )


def _level(schedule: Schedule, steps: int) -> int:
    """The compiler's level of optimisation: what is run for few steps need not run fast."""
    return int(steps >= _OPTIMISED_STEPS["loop" if schedule.inside else "no loop"])


def _compile(
    program: Program, schedule: Schedule, level: int, setting: Setting, arguments: tuple, device: int
) -> _Compiled:
    segment = make_segment(
        schedule,
        setting.task,
        head=program.head,
        hidden_features=program.hidden_features,
        learning_rate=setting.learning_rate,
    )
    run = parallel.compile_on(device, jax.jit(segment).trace(*arguments), parallel.compiler_options(level))
    return _Compiled(run, parallel.memory_needed(run))


def train(trials: Trials, setting: Setting, batches: Batches, *, level: int | None = None) -> Outcome:
    """Trains candidates; one that fails is in the errors and harms no other.

    Args:
      level: of the compiler's optimisation; by default it follows from a candidate's program and steps.
    """
    with compiling(trials, setting, batches, level=level) as finish:
        return finish()


@contextlib.contextmanager
def compiling(
    trials: Trials, setting: Setting, batches: Batches, *, level: int | None = None
) -> Iterator[Callable[[], Outcome]]:
    """As `train`, begun: candidates are compiled in threads while the caller does other work.

    Few candidates are few compilations, which do not split evenly over cores: beside the training of others
    no core waits for the last of them (benchmarks.md, scaling).

    Returns:
      A context manager; what it gives trains the candidates. It ends when all are compiled, or, if something
      is raised in it, with those that are being compiled then.
    """
    num, devices = len(trials.steps), setting.devices
    parallel.compiler_options()  # finds out what there is before threads ask
    data = batches(int(trials.replicates[0]), TRAIN, 0)
    programs, states, identities = [], [], []  # programs with their schedules and levels
    for place in range(num):
        program = jax.tree.map(lambda leaf, place=place: np.asarray(leaf)[place], trials.program)
        params = init_params(jax.random.wrap_key_data(trials.weights[place]), program)
        # Padding follows from the company; what is compiled does not.
        program = trim(program, max(1, int(program.phase_ends[AFTER])))
        schedule = make_schedule(program, setting.task.time_steps)
        one_level = _level(schedule, int(trials.steps[place])) if level is None else level
        programs.append((program, schedule, one_level))
        states.append(initial_state(program, parallel.on_host(params)))
        identities.append(_identity(program, one_level, setting))
    sizes = np.array([len(program.op) for program, _, _ in programs])
    queues = _deal(identities, trials.steps * sizes / sizes.mean(), devices)

    futures: dict[int, Future] = {}
    new: dict[Hashable, Future] = {}
    with ThreadPoolExecutor(devices) as compilers:

        def cancel() -> None:
            """Compiles no more; what is cancelled is forgotten, what is running ends and is kept."""
            compilers.shutdown(wait=False, cancel_futures=True)
            for key, future in new.items():
                if future.cancelled():
                    _COMPILATIONS.forget(key)

        def failed(place: int, device: int) -> None:
            _COMPILATIONS.forget((identities[place], device))

        try:
            for round_ in itertools.zip_longest(*queues):
                for device, place in enumerate(round_):
                    if place is None:
                        continue
                    arguments = (states[place], *data, bias_corrections(0), np.int32(0), np.bool_(True))
                    submit = functools.partial(
                        compilers.submit, _compile, *programs[place], setting, arguments, device
                    )
                    key: Hashable = (identities[place], device)
                    futures[place], is_new = _COMPILATIONS.get(key, submit)
                    if is_new:
                        new[key] = futures[place]
            run = _Run(queues, futures, states, cancel, failed)
            yield functools.partial(_train_queues, run, trials, setting, batches)
        except BaseException:
            cancel()
            raise


class _Run(NamedTuple):
    """Candidates that are being compiled."""

    queues: list[list[int]]  # of each device, places of candidates
    futures: dict[int, Future]  # by place
    states: list[FusedState]
    cancel: Callable[[], None]  # compiling
    failed: Callable[[int, int], None]  # told place and device of what could not be trained


def _train_queues(run: _Run, trials: Trials, setting: Setting, batches: Batches) -> Outcome:
    """Trains each device's queue of candidates, one after another, in a thread; as they are compiled."""
    num, devices = len(trials.steps), setting.devices
    waited = [0.0] * devices
    errors: dict[int, Exception] = {}
    stop = threading.Event()

    def train_queue(device: int) -> list[tuple[float, bool, float]]:
        found = []
        for place in run.queues[device]:
            try:
                start = time.perf_counter()
                compiled, needed = run.futures[place].result()
                waited[device] += time.perf_counter() - start
                if needed > setting.memory:
                    raise out_of_memory(needed, setting)
                steps = int(trials.steps[place])
                own = functools.partial(batches, int(trials.replicates[place]))
                found.append(_train_one(compiled, run.states[place], steps, setting, own, device, stop))
            except Exception as error:
                errors[place] = error
                run.failed(place, device)
                found.append((np.nan, False, np.nan))
            if stop.is_set():
                break
        return found

    with ThreadPoolExecutor(devices) as trainers:
        try:
            found = list(trainers.map(train_queue, range(devices)))
        except BaseException:
            stop.set()  # interrupted: what runs ends at its next segment, what waits is not compiled
            run.cancel()
            raise
    metrics, finite, losses = np.zeros(num), np.zeros(num, bool), np.zeros(num)
    for queue, results in zip(run.queues, found, strict=True):
        for place, result in zip(queue, results, strict=True):
            metrics[place], finite[place], losses[place] = result
    return Outcome(metrics, finite, losses, min(waited), errors)


def _deal(identities: list[Hashable], costs: np.ndarray, devices: int) -> list[list[int]]:
    """Deals candidates to devices, equal programs to the same one where there are enough others.

    Args:
      identities: what each compiled program depends on.
      costs: `[B]` of training, in steps of a program of mean size.
      devices: D.
    """
    groups: dict[Hashable, list[int]] = {}
    enough = len(set(identities)) >= devices
    for place, identity in enumerate(identities):
        groups.setdefault(identity if enough else place, []).append(place)
    queues: list[list[int]] = [[] for _ in range(devices)]
    load = [0.0] * devices
    for group in groups.values():
        device = load.index(min(load))
        queues[device] += group
        load[device] += float(costs[group].sum()) + _COMPILING_STEPS
    return queues


def _train_one(
    run: Callable,
    state: FusedState,
    steps: int,
    setting: Setting,
    batches: Callable,  # as `Batches`, of one replicate
    device: int,
    stop: threading.Event,
) -> tuple[float, bool, float]:
    """Trains and validates one candidate on a device; returns metric, whether finite, and loss."""
    loss = 0.0
    for first, count in training_segments(steps):
        if stop.is_set():
            break
        data = parallel.put_on(device, batches(TRAIN, first))
        state = run(state, *data, bias_corrections(first), np.int32(count), np.bool_(True))
        loss = state.loss_sum / count
    right, total = 0.0, 0
    for first, count in validation_segments(setting):
        data = parallel.put_on(device, batches(VALIDATION, first))
        state = run(state, *data, bias_corrections(0), np.int32(count), np.bool_(False))
        right, total = right + float(state.right_sum), total + count
    finite = bool(state.finite)
    return (right / total if finite else np.nan), finite, float(loss)
