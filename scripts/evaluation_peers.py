"""What `benchmark_evaluation.py` compares with: one `jax.jit` a candidate, and PyTorch eager.

Both train a network as a person would write it by hand: values in their true shapes, a Python loop
over its instructions, a loop over time (`lax.scan`, or Python), automatic gradients and Adam. Both
take a `Cell`, a program read on the host, and parameters in their true shapes. PyTorch is imported
where it is used; nothing else of the project knows it.
"""

import concurrent.futures
import importlib
import importlib.metadata
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.graphs import Program, unpack_params
from elenas_jax.graphs.program import (
    AFTER,
    CONSTANT,
    CONSTANTS,
    DATA,
    LAYOUTS,
    NUM_UNARY,
    PARAMETER,
    check_valid,
    find_layout,
)
from elenas_jax.ops import COMBINING, TRANSFORMING, Extent
from elenas_jax.tasks import LOSSES

LEARNING_RATE = 1e-3
_LOAD = "load"  # a parameter or constant as a value: its row is repeated if the value has more rows
_START_SECONDS = 600.0  # that a process of PyTorch may take to start

Data = tuple[Any, Any]  # batches of inputs [N, T, F] and of targets [N, O]; step s takes the next, in turn


class Mistake(Exception):
    """What the user can mend, or a check that failed; the message is one line."""


class Instruction(NamedTuple):
    """One operation. Values are named by their slots, parameters by their nodes as text."""

    operation: str
    slot: int  # what it computes
    reads: tuple[tuple[int | str, bool], ...]  # names, and whether of the previous step
    shape: tuple[int, int]  # of the result: rows, columns


class Cell(NamedTuple):
    """A program as plain data."""

    constants: tuple[Instruction, ...]  # from parameters alone: once a training step
    body: tuple[Instruction, ...]  # once a step of time, or once for a sequence
    delayed: dict[int, tuple[int, ...]]  # slots whose value of the previous step is read: their shapes
    output: int  # slot
    output_shape: tuple[int, ...]
    recurrent: bool
    rows_only: bool  # all values of the body have one row; their shapes are `[C]`, not `[R, C]`


def read_cell(program: Program, time_steps: int) -> Cell:
    """Reads a valid program, unbatched, on the host."""
    check_valid(program)
    rows = np.where(np.asarray(program.rows) < 0, time_steps, program.rows).tolist()
    cols = np.where(np.asarray(program.cols) < 0, time_steps, program.cols).tolist()
    rows_only = int(find_layout(program)) == LAYOUTS.index("row")
    num_parameters = program.parameter_rows.shape[-1]
    listed, delayed = [], {}
    for place in range(int(program.phase_ends[AFTER])):
        fixed = int(program.parameter[place])
        operands: list[tuple[int | str, bool]] = [
            (int(slot), bool(delay)) for slot, delay in zip(program.arg[place], program.delay[place])
        ]
        if fixed >= 0:  # the constant of an instruction is the value of its slot
            name = str(2 * fixed + 1) if fixed < num_parameters else fixed - num_parameters + 1
            operands[1] = (name, False)
        operation, which = _operation(int(program.op[place]))
        reads = tuple(operands[which])
        delayed |= {slot: (rows[slot], cols[slot])[rows_only:] for slot, is_delayed in reads if is_delayed}
        listed.append(Instruction(operation, place + 1, reads, (rows[place + 1], cols[place + 1])))
    first, output = int(program.phase_ends[CONSTANTS]), int(program.output)
    return Cell(
        constants=tuple(listed[:first]),
        body=tuple(listed[first:]),
        delayed=delayed,
        output=output,
        output_shape=(rows[output], cols[output])[rows_only:],
        recurrent=bool(program.recurrent),
        rows_only=rows_only,
    )


def _operation(code: int) -> tuple[str, slice]:
    """Returns the name of an instruction's operation, and which of its two operands it reads."""
    if code < NUM_UNARY:
        return TRANSFORMING[code].name, slice(0, 1)
    for base in (DATA, PARAMETER, CONSTANT):
        if code < base + len(COMBINING):
            return COMBINING[code - base].name, slice(0, 2)
    return _LOAD, slice(1, 2)


def true_shapes(program: Program, params: Mapping) -> dict[str, np.ndarray]:
    """Returns packed parameters as `unpack_params` does, under names that are all text."""
    return {str(name): np.array(value) for name, value in unpack_params(program, params).items()}


def _run(
    instructions: Sequence[Instruction], values: dict, previous: Mapping, functions: Mapping[str, Callable]
) -> dict:
    """Computes instructions in order; `values` and `previous` are by name, and `values` is added to."""
    for each in instructions:
        operands = [previous[name] if delay else values[name] for name, delay in each.reads]
        if each.operation == _LOAD:
            operands.append(each.shape)
        values[each.slot] = functions[each.operation](*operands)
    return values


def _in_time(cell: Cell, inputs):
    """Returns inputs whose steps along axis 1 are values: `[N, T, F]` of rows, else `[N, T, 1, F]`."""
    return inputs if cell.rows_only else inputs[:, :, None]


def _outputs(cell: Cell, params: Mapping, final):
    """Maps the value of the final node, at the last step, to `[N, O]`."""
    final = final if cell.rows_only else final[:, -1]
    return final @ params["head/kernel"] + params["head/bias"] if "head/kernel" in params else final


def _product(a, b):
    # A column times a row needs no product of matrices, one for each example.
    return a * b if a.shape[-1] == 1 else a @ b


def _of_rows(functions: dict[str, Callable]) -> dict[str, Callable]:
    """Returns functions of values `[N, C]` of one row: it is its own mean; only a number is transposed."""
    return functions | {row.name: lambda x: x for row in TRANSFORMING if row.shape_rule != "same"}


# --- one jax.jit a candidate ---


def _jax_transform(row) -> Callable:
    def apply(value):
        # All of a value is real: there is no padding here.
        extent = Extent(np.ones((value.shape[-2], 1), bool), np.ones((1, value.shape[-1]), bool))
        result = row.fn(value, extent)
        return result[..., :1, :] if row.shape_rule == "one_row" else result

    return apply


_JAX_FUNCTIONS: dict[str, Callable] = {
    **{row.name: _jax_transform(row) for row in TRANSFORMING},
    **{row.name: row.fn for row in COMBINING if row.fn is not None},
    "matmul": _product,
    _LOAD: jnp.broadcast_to,
}
_JAX_FUNCTIONS_OF_ROWS = _of_rows(_JAX_FUNCTIONS)


def jit_outputs(cell: Cell, params: Mapping, inputs: jax.Array) -> jax.Array:
    """Maps `[N, T, F]` to the `[N, O]` outputs of the last step."""
    functions = _JAX_FUNCTIONS_OF_ROWS if cell.rows_only else _JAX_FUNCTIONS
    fixed = _run(cell.constants, dict(params), {}, _JAX_FUNCTIONS)
    if not cell.recurrent:
        values = _run(cell.body, {**fixed, 0: inputs}, {}, functions)
        return _outputs(cell, params, values[cell.output])

    def step(carry, x):
        values = _run(cell.body, {**fixed, 0: x}, carry, functions)
        # A value that no input reaches is the same for all examples.
        return {slot: jnp.broadcast_to(values[slot], old.shape) for slot, old in carry.items()}, None

    kept = cell.delayed | {cell.output: cell.output_shape}
    carry = {slot: jnp.zeros((len(inputs), *shape)) for slot, shape in kept.items()}
    carry, _ = jax.lax.scan(step, carry, jnp.swapaxes(_in_time(cell, inputs), 0, 1))
    return _outputs(cell, params, carry[cell.output])


def make_jit_step(cell: Cell) -> Callable:
    """Returns the jitted `step(params, state, inputs, targets) -> params, state, loss`."""
    optimiser = optax.adam(LEARNING_RATE)

    def loss_of(params, inputs, targets):
        return jnp.mean(LOSSES["binary"].loss_fn(jit_outputs(cell, params, inputs), targets))

    def step(params, state, inputs, targets):
        loss, gradient = jax.value_and_grad(loss_of)(params, inputs, targets)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    return jax.jit(step, donate_argnums=(0, 1))


def _train_jit(step: Callable, params: Mapping, data: Data, steps: int) -> tuple[list[float], float]:
    """Trains one candidate; returns the loss of each step, and the seconds."""
    inputs, targets = data
    params = jax.tree.map(jnp.array, params)
    state = optax.adam(LEARNING_RATE).init(params)
    jax.block_until_ready((params, state))
    start, losses = time.perf_counter(), []
    for taken in range(steps):
        params, state, loss = step(params, state, inputs[taken % len(inputs)], targets[taken % len(inputs)])
        losses.append(loss)
    jax.block_until_ready((params, losses))
    return [float(loss) for loss in losses], time.perf_counter() - start


def _train_all_jit(cells: Sequence[Cell], params: Sequence[Mapping], data: Data, steps: int):
    data = tuple([jnp.asarray(batch) for batch in part] for part in data)
    compiled: dict[int, tuple[Callable, float]] = {}
    losses, total = [], 0.0
    for cell, one in zip(cells, params):
        if id(cell) not in compiled:
            arguments = (one, optax.adam(LEARNING_RATE).init(one), data[0][0], data[1][0])
            start = time.perf_counter()
            step = make_jit_step(cell).lower(*arguments).compile()
            compiled[id(cell)] = step, time.perf_counter() - start
            _train_jit(step, one, data, 1)  # what happens only once
        found, seconds = _train_jit(compiled[id(cell)][0], one, data, steps)
        losses.append(found)
        total += seconds
    return losses, float(np.mean([seconds for _, seconds in compiled.values()])), total


# --- PyTorch ---


def torch_version() -> str | None:
    """Returns the version of PyTorch, None where it is not installed."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_functions(rows_only: bool) -> dict[str, Callable]:
    """Every operation in PyTorch. Values are `[N, C]` if `rows_only`, else `[N, R, C]`."""
    torch = importlib.import_module("torch")
    functions = {
        "identity": lambda x: x,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "transpose": lambda x: x.transpose(-1, -2),
        "softmax": lambda x: torch.softmax(x, -1),
        "one_minus": lambda x: 1 - x,
        "negate": torch.neg,
        "square": torch.square,
        "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "layer_norm": lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6),
        "mean_rows": lambda x: x.mean(-2, keepdim=True),
        "matmul": _product,
        "hadamard": torch.mul,
        "add": torch.add,
        "recursion": torch.add,
        "subtract": torch.sub,
        "max": torch.maximum,
        _LOAD: lambda x, shape: x.expand(shape),
    }
    return _of_rows(functions) if rows_only else functions


def make_torch(cell: Cell, params: Mapping) -> tuple[Callable, Any]:
    """Returns `outputs(inputs)` of a candidate, and its optimiser."""
    torch = importlib.import_module("torch")
    functions, of_constants = _torch_functions(cell.rows_only), _torch_functions(False)
    missing = {each.operation for each in (*cell.constants, *cell.body)} - functions.keys()
    if missing:
        raise Mistake(f"scripts/evaluation_peers.py has no PyTorch function for {', '.join(missing)}.")
    params = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}

    def outputs(inputs):
        fixed = _run(cell.constants, dict(params), {}, of_constants)
        values = {slot: torch.zeros((len(inputs), *shape)) for slot, shape in cell.delayed.items()}
        for x in _in_time(cell, inputs).unbind(1) if cell.recurrent else [inputs]:
            values = _run(cell.body, {**fixed, 0: x}, values, functions)
        return _outputs(cell, params, values[cell.output])

    return outputs, torch.optim.Adam(params.values(), lr=LEARNING_RATE, eps=1e-8)


def _train_torch(cell: Cell, params: Mapping, data: Data, steps: int) -> list[float]:
    """Trains one candidate on tensors; returns the loss of each step."""
    loss_of = importlib.import_module("torch").nn.functional.binary_cross_entropy_with_logits
    inputs, targets = data
    outputs, optimiser = make_torch(cell, params)
    losses = []
    for taken in range(steps):
        optimiser.zero_grad()
        loss = loss_of(outputs(inputs[taken % len(inputs)]), targets[taken % len(inputs)])
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]


_barrier: Any = None  # of this process and those beside it


def _set_barrier(barrier) -> None:
    global _barrier
    _barrier = barrier


def _train_part(core: int | None, candidates: list, data: Data, steps: int) -> tuple[list, float, float]:
    """Trains candidates one after another on a core; returns losses, and when it began and ended."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    data = tuple([torch.tensor(batch) for batch in part] for part in data)
    _train_torch(*candidates[0], data, 1)  # what happens only once
    _barrier.wait(_START_SECONDS)
    start = time.time()
    losses = [_train_torch(cell, params, data, steps) for cell, params in candidates]
    return losses, start, time.time()


def _train_all_torch(
    cells: Sequence[Cell], params: Sequence[Mapping], data: Data, steps: int, processes: int
) -> tuple[list[list[float]], float, float]:
    """Trains candidates in processes side by side, from the first start to the last end."""
    processes = min(processes, len(cells))
    can_pin = processes > 1 and hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else [None]
    candidates, context = list(zip(cells, params)), multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)  # keeps a process from taking the part of another, too
    with concurrent.futures.ProcessPoolExecutor(processes, context, _set_barrier, (barrier,)) as pool:
        started = [
            pool.submit(_train_part, cores[k % len(cores)], candidates[k::processes], data, steps)
            for k in range(processes)
        ]
        parts = [each.result() for each in started]
    losses: list = [None] * len(cells)
    for k, (part, _, _) in enumerate(parts):
        losses[k::processes] = part
    return losses, 0.0, max(end for _, _, end in parts) - min(start for _, start, _ in parts)


def train(
    way: str, cells: Sequence[Cell], params: Sequence[Mapping], data: Data, steps: int, processes: int = 1
) -> tuple[list[list[float]], float, float]:
    """Trains candidates one after another, or in processes of one thread side by side.

    Args:
      way: "jit" (of one process) or "torch".
      cells: of each candidate; those that are the same object share a compilation.
      params: of each candidate, see `true_shapes`.
      data: NumPy arrays.
      steps: of each candidate.
      processes: of PyTorch.

    Returns:
      The losses of each candidate, the mean seconds of a compilation, and all others of training;
      without those of starting processes.
    """
    if way == "torch":
        return _train_all_torch(cells, params, data, steps, processes)
    return _train_all_jit(cells, params, data, steps)
