"""Evaluates populations of different graphs in few compiled programs.

A graph is data to the compiled program: it is compiled once for each kind of layout and size of
padding that the population needs, however many candidates there are. What is trained is the
canonical representative of a candidate, from keys that depend on the representative and the run
alone, so that a score does not depend on a candidate's place, on the chunk, on the number of
devices or on the generation.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.cache import Cache, MemoryCache, Record
from elenas_jax.evaluation.ladder import ladder_score, passes
from elenas_jax.evaluation.training import (
    LOSS_NAMES,
    TRAIN,
    VALIDATION,
    Job,
    TrainState,
    data_key,
    initial_state,
    make_segment,
    weights_key,
)
from elenas_jax.graphs import ComputationGraph, canonical_bytes, canonical_graph, canonical_hash, num_flops
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.execution import Layout, machine
from elenas_jax.graphs.parameters import init_params
from elenas_jax.graphs.program import AFTER, CONSTANTS, LAYOUTS, Program, find_layout, num_parameters, trim
from elenas_jax.ops import COMBINING, OPERATION_SETS, TRANSFORMING
from elenas_jax.types import CRASHED, DIVERGED, NOT_EVALUATED, OK, OUT_OF_MEMORY, Evaluation, Task

SEGMENT_STEPS = 64  # steps between two returns to the host
CONSTRUCT_BATCH = 32  # graphs a call of the constructor takes
_NODES = (16, 32, 64, 128, 256, 512)  # paddings of graphs


class Evaluator(NamedTuple):
    """Judges candidates; see `make_population_evaluator`."""

    evaluate: Callable[..., Evaluation]
    cache_key: Callable[[bytes, int, int], bytes]
    task_names: tuple[str, ...]
    plan: dict[str, Any]


class _Padding(NamedTuple):
    """What a compiled program has room for."""

    kind: str  # one of LAYOUTS
    operations: str  # one of OPERATION_SETS
    instructions: int
    rows: int  # of parameters
    scratch: int  # rows of constants


class _Candidate(NamedTuple):
    """A representative in training."""

    graph: ComputationGraph
    hash: str
    key: bytes
    budget: int


def make_population_evaluator(
    tasks: Sequence[Task],
    *,
    run_key: jax.Array,
    steps: Sequence[int],
    head: str = "linear",
    hidden_features: int = 64,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    budgets: Sequence[float] = (1.0,),
    candidates_per_device: int = 8,
    num_devices: int = 0,
    cache: Cache | None = None,
) -> Evaluator:
    """Makes an evaluator of computation graphs on a ladder of tasks.

    Args:
      tasks: in the order of the ladder; a candidate stops at the first threshold it misses.
      run_key: key of the run; data and weights follow from it.
      steps: training steps of each task at a budget of 1.
      head, hidden_features: as of `construct`.
      batch_size: examples a step; validation takes whole batches of them.
      learning_rate: of Adam.
      budgets: multiples of `steps` that a proposal may ask for, by index.
      candidates_per_device: candidates that go through the ladder together on a device.
      num_devices: local devices to use, 0 for all.
      cache: of what was trained before; None keeps one as long as the evaluator lives.

    Returns:
      `evaluate(candidates, budget, replicate=0, valid_candidates=None, on_chunk=None)` takes a batch of
      graphs, `[B]` indices of budgets, the replicate of data and weights, `[B]` booleans (False rows
      are skipped), and a function told (trained, to train) as chunks end.

    Raises:
      ValueError: for numbers out of range.
    """
    tasks, steps, budgets = tuple(tasks), tuple(steps), tuple(budgets)
    _check(tasks, steps, budgets, batch_size, learning_rate, candidates_per_device)
    devices = parallel.count_devices(num_devices)
    known = MemoryCache() if cache is None else cache
    trainer = _Trainer(tasks, run_key, head, hidden_features, batch_size, learning_rate, candidates_per_device, devices)
    settings = {
        "run_key": np.asarray(jax.random.key_data(run_key)).tolist(),
        "tasks": [{k: v for k, v in task._asdict().items() if k != "sample"} for task in tasks],
        "steps": steps,
        "budgets": budgets,
        "head": head,
        "hidden_features": hidden_features,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    encoded_settings = json.dumps(settings, sort_keys=True, default=str).encode()

    def cache_key(canonical: bytes, budget: int, replicate: int) -> bytes:
        """Everything that a score depends on, as bytes."""
        return b"|".join((canonical, str(int(budget)).encode(), str(int(replicate)).encode(), encoded_settings))

    def evaluate(candidates, budget, replicate: int = 0, valid_candidates=None, on_chunk=None) -> Evaluation:
        edges = np.asarray(candidates.edges)
        num = len(edges)
        budget = np.broadcast_to(np.asarray(budget, np.int32), (num,))
        if budget.min(initial=0) < 0 or budget.max(initial=0) >= len(budgets):
            raise ValueError(f"budget holds {budget.min()} to {budget.max()}; allowed are 0 to {len(budgets) - 1}.")
        asked = np.ones(num, bool) if valid_candidates is None else np.asarray(valid_candidates, bool)
        status = np.where(asked, trainer.status(edges), NOT_EVALUATED)
        chosen = np.flatnonzero(status == OK)
        graphs = {place: ComputationGraph(edges[place]) for place in chosen}
        keys = {
            place: cache_key(canonical_bytes(graph, head), budget[place], replicate) for place, graph in graphs.items()
        }
        records = known.get(list(dict.fromkeys(keys.values())))
        missing = {}
        for place in chosen:
            if keys[place] not in records and keys[place] not in missing:
                graph = graphs[place]
                missing[keys[place]] = _Candidate(
                    canonical_graph(graph, head), canonical_hash(graph, head), keys[place], int(budget[place])
                )
        done = 0
        for chunk in trainer.chunks(list(missing.values())):
            scaled = [tuple(max(1, round(count * budgets[one.budget])) for count in steps) for one in chunk]
            found = trainer.train(chunk, scaled, replicate)
            known.put([(one.key, one.hash, record) for one, record in zip(chunk, found, strict=True)])
            records |= {one.key: record for one, record in zip(chunk, found, strict=True)}
            done += len(chunk)
            if on_chunk is not None:
                on_chunk(done, len(missing))
        return _gather(num, len(tasks), status, keys, records)

    plan = {
        "devices": parallel.describe_devices(devices),
        "num_devices": devices,
        "candidates_per_chunk": devices * candidates_per_device,
        "executor": "interpreted: one compiled program a layout",
        "estimated_memory_gib": round(devices * trainer.buffer_bytes(_Padding("row", "paper", 32, 0, 0)) / 2**30, 3),
    }
    return Evaluator(evaluate, cache_key, tuple(task.name for task in tasks), plan)


def _check(tasks, steps, budgets, batch_size, learning_rate, candidates_per_device) -> None:
    if not tasks or len(tasks) != len(steps):
        raise ValueError(f"There are {len(tasks)} tasks and {len(steps)} numbers of steps; as many of both are needed.")
    counts = {"batch_size": batch_size, "candidates_per_device": candidates_per_device}
    counts |= {f"steps of {task.name}": count for task, count in zip(tasks, steps, strict=True)}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1.")
    for task in tasks:
        if task.valid_samples < batch_size:
            raise ValueError(f"valid_samples of {task.name} is {task.valid_samples}; batch_size is {batch_size}.")
    if not budgets or min(budgets) <= 0 or learning_rate <= 0:
        raise ValueError(f"budgets {budgets} and learning_rate {learning_rate} must be positive.")


def _gather(num: int, num_tasks: int, status, keys, records) -> Evaluation:
    """Spreads records over the places that share them."""
    evaluation = Evaluation(
        score=np.zeros(num, np.float32),
        metrics=np.full((num, num_tasks), np.nan, np.float32),
        status=np.array(status, np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )
    for place, key in keys.items():
        for name, value in records[key]._asdict().items():
            getattr(evaluation, name)[place] = value
    return evaluation


def _operation_set(edges: np.ndarray) -> str:
    """Returns the first of the operation sets that holds all codes of `[M, M]` edges."""
    diagonal = np.eye(len(edges), dtype=bool)
    for name, sets in OPERATION_SETS.items():
        tables = zip((edges[~diagonal], edges[diagonal]), (COMBINING, TRANSFORMING), sets, strict=True)
        if all({table[code].name for code in np.unique(codes)} <= set(names) for codes, table, names in tables):
            return name
    raise AssertionError("The last set holds every operation.")


class _Trainer:
    """Compiled programs and data of one run."""

    def __init__(self, tasks, run_key, head, hidden_features, batch_size, learning_rate, per_device, devices):
        self.tasks = tasks
        self.run_key = run_key
        self.head = head
        self.hidden_features = hidden_features
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.per_device = per_device
        self.devices = devices
        # One compiled program serves all tasks: narrower inputs and outputs are padded.
        self.in_features = max(task.in_features for task in tasks)
        self.out_features = max(task.out_features for task in tasks)
        self._compiled: dict[tuple, Callable] = {}
        self._samplers = {task.name: jax.jit(functools.partial(_sample_batches, task, batch_size)) for task in tasks}

    def width(self, kind: str, time_steps: int | None = None) -> int:
        widest = max(self.in_features, self.out_features, self.hidden_features)
        longest = time_steps or max(task.time_steps for task in self.tasks)
        return widest if kind == "row" else max(widest, longest)

    def buffer_bytes(self, padding: _Padding) -> int:
        """Bytes of the two buffers of a device, the bulk of its memory."""
        width = self.width(padding.kind)
        steps = 1 if padding.kind == "sequence" else max(task.time_steps for task in self.tasks)
        rows = 1 if padding.kind == "row" else width
        return 2 * 4 * (padding.instructions + 1) * (steps + 1) * self.batch_size * rows * width

    def construct(self, edges: np.ndarray, task: Task) -> Program:
        """Constructs programs of `[B, M, M]` edges on the host, in batches of one shape."""
        num_nodes = next(size for size in (*_NODES, edges.shape[-1]) if size >= edges.shape[-1])
        extra = num_nodes - edges.shape[-1]
        edges = np.pad(edges, ((0, -len(edges) % CONSTRUCT_BATCH), (0, extra), (0, extra)))
        parts = []
        for first in range(0, len(edges), CONSTRUCT_BATCH):
            program = construct_batch(
                ComputationGraph(edges[first : first + CONSTRUCT_BATCH]),
                in_features=task.in_features,
                out_features=task.out_features,
                hidden_features=self.hidden_features,
                head=self.head,
                time_steps=task.time_steps,
            )
            parts.append(parallel.on_host(program))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def status(self, edges: np.ndarray) -> np.ndarray:
        """Returns `[B]` statuses: the first reason against any task of the ladder."""
        status = np.zeros(len(edges), np.int32)
        shapes = {(task.in_features, task.out_features, task.time_steps): task for task in self.tasks}
        for task in shapes.values():
            if len(edges):
                found = self.construct(edges, task).status[: len(edges)]
                status = np.where(status == OK, found, status)
        return status

    def padding(self, program: Program, operations: str) -> _Padding:
        """The smallest of few paddings that holds a batch of programs: unused room costs next to nothing."""
        kind = LAYOUTS[int(np.max(find_layout(program)))]
        ends, width = program.phase_ends, self.width(kind)
        is_constant = np.arange(program.max_instructions) < ends[:, CONSTANTS, None]
        constants = int(np.where(is_constant, program.rows[:, 1:], 0).sum(-1).max())
        rows = int(program.parameter_rows.sum(-1).max())
        size = 1
        while ends[:, AFTER].max() > 32 * size or rows > 12 * size * width or constants > 8 * size * width:
            size *= 2
        return _Padding(kind, operations, 32 * size, 12 * size * width, 8 * size * width)

    def chunks(self, candidates: list[_Candidate]) -> list[list[_Candidate]]:
        """Groups candidates by what they are compiled for; in a group they keep their order."""
        groups: dict[_Padding, list[_Candidate]] = {}
        if not candidates:
            return []
        programs = self.construct(stack_graphs([one.graph for one in candidates]), self.tasks[0])
        for place, one in enumerate(candidates):
            program = jax.tree.map(lambda leaf, place=place: leaf[place : place + 1], programs)
            groups.setdefault(self.padding(program, _operation_set(one.graph.edges)), []).append(one)
        size = self.devices * self.per_device
        return [group[first : first + size] for group in groups.values() for first in range(0, len(group), size)]

    def train(self, chunk: list[_Candidate], steps: list[tuple[int, ...]], replicate: int) -> list[Record]:
        """Takes a chunk up the ladder. What fails is a record, never an exception."""
        start = time.perf_counter()
        metrics = np.full((len(chunk), len(self.tasks)), np.nan)
        status = np.full(len(chunk), OK)
        taken = np.zeros(len(chunk), np.int64)
        parameters, flops = np.zeros(len(chunk), np.int64), np.zeros(len(chunk))
        alive = np.arange(len(chunk))
        operations = _operation_set(chunk[0].graph.edges)  # the same for all of a chunk
        for level, task in enumerate(self.tasks):
            edges = stack_graphs([chunk[place].graph for place in alive])
            program = jax.tree.map(lambda leaf, num=len(alive): leaf[:num], self.construct(edges, task))
            if level == 0:
                parameters[:], flops[:] = num_parameters(program), jax.vmap(lambda p: num_flops(p, task.time_steps))(program)  # noqa: B023
            wanted = np.array([steps[place][level] for place in alive])
            hashes = [chunk[place].hash for place in alive]
            try:
                metric, finite = self._train_task(program, operations, task, hashes, wanted, replicate)
            except Exception as error:  # a crash is a result, not the end of a search
                if isinstance(error, KeyboardInterrupt):
                    raise
                status[alive] = OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else CRASHED
                break
            taken[alive] += wanted
            metrics[alive, level] = metric
            status[alive] = np.where(finite, OK, DIVERGED)
            alive = alive[[bool(ok) and passes(task, value) for ok, value in zip(finite, metric, strict=True)]]
            if not len(alive):
                break
        seconds = (time.perf_counter() - start) / len(chunk)
        return [
            Record(
                ladder_score(metrics[place], self.tasks),
                tuple(float(value) for value in metrics[place]),
                int(status[place]),
                int(parameters[place]),
                float(flops[place]),
                int(taken[place]),
                seconds,
            )
            for place in range(len(chunk))
        ]

    def _train_task(self, program: Program, operations: str, task: Task, hashes, steps: np.ndarray, replicate: int):
        """Trains on one task; returns `[B]` validation metrics (NaN if diverged) and whether all losses were finite."""
        num = len(hashes)
        padding = self.padding(program, operations)
        lanes = _deal(np.asarray(program.phase_ends[:, AFTER]) * steps, self.devices, self.per_device)
        program = jax.tree.map(lambda leaf: leaf[np.maximum(lanes, 0)], trim(program, padding.instructions))
        steps = np.where(lanes >= 0, steps[np.maximum(lanes, 0)], 0)
        key = data_key(self.run_key, replicate)
        weights = np.stack([jax.random.key_data(weights_key(self.run_key, one, replicate)) for one in hashes])

        start, segment = self._compile(padding, task.time_steps)
        code, output_rows, states = start(program, weights[np.maximum(lanes, 0)])
        done = 0
        while done < steps.max():
            count = np.clip(steps - done, 0, SEGMENT_STEPS)
            inputs, targets = self._batches(task, jax.random.fold_in(key, TRAIN), done)
            job = Job(code, output_rows, count.astype(np.int32), np.ones(lanes.shape, bool))
            states = segment(job, states, inputs, targets, np.int32(LOSS_NAMES.index(task.loss)))
            done += SEGMENT_STEPS
        metric, total = 0.0, task.valid_samples // self.batch_size
        for first in range(0, total, SEGMENT_STEPS):
            count = np.where(steps > 0, min(SEGMENT_STEPS, total - first), 0)
            inputs, targets = self._batches(task, jax.random.fold_in(key, VALIDATION), first)
            job = Job(code, output_rows, count.astype(np.int32), np.zeros(lanes.shape, bool))
            states = segment(job, states, inputs, targets, np.int32(LOSS_NAMES.index(task.loss)))
            metric = metric + np.asarray(states.right_sum)
        finite = np.asarray(states.finite)
        metrics, ok = np.zeros(num), np.zeros(num, bool)
        metrics[lanes[lanes >= 0]] = np.where(finite, metric / total, np.nan)[lanes >= 0]
        ok[lanes[lanes >= 0]] = finite[lanes >= 0]
        return metrics, ok

    def _batches(self, task: Task, key, first: int):
        """Returns the next `[G, N, T, F]` inputs and `[G, N, O]` targets, padded to the widest task."""
        inputs, targets = self._samplers[task.name](key, first)
        inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, self.in_features - inputs.shape[-1])))
        return inputs, targets

    def _compile(self, padding: _Padding, time_steps: int):
        """Returns the functions that start and continue a chunk; compiled once for a padding."""
        if (padding, time_steps) not in self._compiled:
            width = self.width(padding.kind, time_steps)
            layout = Layout(padding.kind, width, time_steps, last_only=True, operations=padding.operations)

            def start_one(program: Program, weights) -> tuple[Any, jax.Array, TrainState]:
                params = init_params(
                    jax.random.wrap_key_data(weights), program, rows=padding.rows, width=layout.width
                )
                code = machine(program, time_steps)
                output_rows = jnp.where(program.recurrent, 1, code.rows[program.output])
                return code, output_rows, initial_state(params, self.learning_rate)

            segment = make_segment(
                layout,
                max_instructions=padding.instructions,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                scratch=padding.scratch,
            )
            start = parallel.map_over_devices(jax.vmap(start_one), self.devices, split=(True, True))
            split = (True, True, False, False, False)
            self._compiled[padding, time_steps] = (
                lambda program, weights: start(self._widened(program), weights),
                parallel.map_over_devices(segment, self.devices, split=split),
            )
        return self._compiled[padding, time_steps]

    def _widened(self, program: Program) -> Program:
        """Makes programs of different tasks look alike to the compiler; sizes are in their arrays."""
        return dataclasses.replace(program, in_features=self.in_features)


def _sample_batches(task: Task, batch_size: int, key, first):
    """Returns batches `first` to `first + SEGMENT_STEPS`: batch s is a function of (key, s)."""
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(first + jnp.arange(SEGMENT_STEPS))
    batch = jax.vmap(lambda one: task.sample(one, batch_size))(keys)
    return batch.inputs, batch.targets


def stack_graphs(graphs: Sequence[ComputationGraph]) -> np.ndarray:
    """Pads graphs to one size: `[B, M, M]`."""
    size = max(graph.edges.shape[0] for graph in graphs)
    return np.stack([np.pad(np.asarray(g.edges), ((0, size - g.edges.shape[0]),) * 2) for g in graphs])


def _deal(costs: np.ndarray, devices: int, per_device: int) -> np.ndarray:
    """Deals candidates to devices, dearest first, to the least loaded; returns `[D, C]` places, -1 free."""
    lanes = np.full((devices, per_device), -1)
    load, used = np.zeros(devices), np.zeros(devices, int)
    for place in np.argsort(-costs, kind="stable"):
        device = min((d for d in range(devices) if used[d] < per_device), key=lambda d: (load[d], d))
        lanes[device, used[device]] = place
        load[device] += costs[place]
        used[device] += 1
    return lanes
