"""Programs: networks lowered to padded arrays of instructions over value slots.

Slot 0 holds the input, instruction i writes slot i + 1. A program is a pytree, so that a
population of different networks is one batch of programs; widths, head and time are static and
the same for all of a population.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS, VALID, explain
from elenas_jax.ops import COMBINING, TRANSFORMING

# Instruction codes follow from the operation tables: first the transforming operations (identity
# copies), then each combining operation of two values, then each of a value and a parameter (a
# row for every row, or the right factor of a product), then each of a value and a constant of the
# same shape, then reading a parameter as a value, as a row for every row or as a matrix.
NUM_UNARY = len(TRANSFORMING)
DATA = NUM_UNARY - 1  # + combining code: result = fn(slot a, slot b)
PARAMETER = DATA + len(COMBINING) - 1  # + combining code: result = fn(slot a, row or matrix b)
CONSTANT = PARAMETER + len(COMBINING) - 1  # + combining code: result = fn(slot a, block b)
LOAD_ROW = CONSTANT + len(COMBINING)
LOAD_MATRIX = LOAD_ROW + 1
NUM_INSTRUCTION_CODES = LOAD_MATRIX + 1

# Phases. Nodes of parameters alone are constants of a training step: derived parameters, computed
# once for all examples. Of the rest, what reads nothing of an earlier step, what lies on the way
# from one step to the next, and what only reads of it; the first and last need no loop over time.
CONSTANTS, BEFORE, INSIDE, AFTER = 0, 1, 2, 3

TIME = -1  # a size: the length of the sequence, where it is not known to the constructor

HEADS = ("none", "linear")

# What every value of a program fits into: one row a step; a matrix a step; one matrix in all.
LAYOUTS = ("row", "matrix", "sequence")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Program:
    """A network as instructions; see the module. Unbatched shapes."""

    op: jax.Array  # [I] int32 instruction code
    arg: jax.Array  # [I, 2] int32, slots read
    delay: jax.Array  # [I, 2] int32, 1 where the slot's value of the previous step is read
    # [I] int32, the parameter read: p < P is initial node 2p + 1, P + i the constant of
    # instruction i; -1 if none.
    parameter: jax.Array
    rows: jax.Array  # [I + 1] int32, rows of each slot's value (TIME: the length of the sequence)
    cols: jax.Array  # [I + 1] int32
    phase_ends: jax.Array  # [4] int32, instructions before the end of each phase; the last is their number
    output: jax.Array  # [] int32, slot of the final node
    recurrent: jax.Array  # [] bool
    parameter_rows: jax.Array  # [P] int32, 0 where the initial node 2p + 1 is not in the network
    parameter_cols: jax.Array  # [P] int32
    status: jax.Array  # [] int32, 0 or a reason
    in_features: int = dataclasses.field(metadata={"static": True})
    out_features: int = dataclasses.field(metadata={"static": True})
    hidden_features: int = dataclasses.field(metadata={"static": True})
    head: str = dataclasses.field(metadata={"static": True})
    time_steps: int | None = dataclasses.field(metadata={"static": True})
    # One of LAYOUTS, and of OPERATION_SETS, that hold for the whole batch, see `specialise`.
    layout: str | None = dataclasses.field(default=None, metadata={"static": True})
    operations: str = dataclasses.field(default="extended", metadata={"static": True})

    @property
    def max_instructions(self) -> int:
        return self.op.shape[-1]

    @property
    def width(self) -> int:
        """Columns of padded rows of parameters: the widest of the given widths."""
        return max(self.in_features, self.out_features, self.hidden_features, self.time_steps or 1)


def parameter_offsets(program: Program) -> jax.Array:
    """Returns `[P]` int32: the first row of each parameter in the packed rows."""
    ends = jnp.cumsum(program.parameter_rows)
    return ends - program.parameter_rows


def check_valid(program: Program) -> None:
    """Raises ValueError, with the reason, unless an unbatched program on the host is valid."""
    status = int(program.status)
    if status != VALID:
        raise ValueError(f"The graph is not a valid network: {explain(status)} (status {status}).")


def is_recurrent(program: Program) -> bool:
    """Whether a program runs step by step; host only."""
    return bool(program.recurrent)


def num_parameters(program: Program) -> Any:
    """Counts trainable numbers, head included; an int for one program on the host, else an array."""
    count = (program.parameter_rows * program.parameter_cols).sum(-1)
    if program.head == "linear":
        count += (program.hidden_features + 1) * program.out_features
    return count if isinstance(count, jax.core.Tracer) or count.ndim else int(count)


def status_within(program: Program, max_parameters: int) -> Any:
    """Returns the status, `TOO_MANY_PARAMETERS` where a valid program has more of them than allowed.

    Args:
      program: one or a batch, on the host or traced.
      max_parameters: that are allowed, head included; 0 is no limit.
    """
    if not max_parameters:
        return program.status
    xp: Any = jnp if isinstance(program.op, jax.Array) else np
    too_many = (program.status == VALID) & (num_parameters(program) > max_parameters)
    return xp.where(too_many, TOO_MANY_PARAMETERS, program.status)


def num_flops(program: Program, time_steps: int) -> Any:
    """Returns the forward cost of one example as float32, 2 per multiply-add; of a batch, `[B]`.

    Matrix products count 2 r k c, every other instruction one per element of its result; a
    recurrent program runs `time_steps` times, its constants once. The head counts for the last row.
    """
    xp: Any = jnp if isinstance(program.op, jax.Array) else np  # on the host nothing is compiled
    rows = xp.where(program.rows == TIME, time_steps, program.rows).astype(np.float32)
    cols = xp.where(program.cols == TIME, time_steps, program.cols).astype(np.float32)
    matmul = next(row.code for row in COMBINING if row.shape_rule == "matmul")
    is_matmul = (program.op == DATA + matmul) | (program.op == PARAMETER + matmul)
    inner = xp.where(is_matmul, 2 * xp.take_along_axis(cols, program.arg[..., 0], axis=-1), 1.0)
    place = np.arange(program.max_instructions)
    loops = xp.asarray(program.recurrent)[..., None] & (place >= program.phase_ends[..., CONSTANTS, None])
    cost = xp.where(loops, time_steps, 1) * rows[..., 1:] * cols[..., 1:] * inner
    total = xp.where(place < program.phase_ends[..., AFTER, None], cost, 0.0).sum(-1)
    if program.head == "linear":
        total = total + 2.0 * program.hidden_features * program.out_features
    return total.astype(np.float32)


def num_constant_rows(program: Program) -> int:
    """Rows that the constants of any program of this padding may take; less once `specialise`d."""
    if program.layout is None:
        return program.max_instructions * program.width
    place = np.arange(program.max_instructions)
    is_constant = place < np.asarray(program.phase_ends)[..., CONSTANTS, None]
    rows = np.where(is_constant, np.asarray(program.rows)[..., 1:], 0)
    return int(np.max(np.sum(rows, axis=-1), initial=0))


def find_layout(program: Program) -> np.ndarray:
    """Returns the indices in `LAYOUTS` that programs need, in the shape of their batch; host only."""
    place = np.arange(program.max_instructions)
    ends = np.asarray(program.phase_ends)
    is_value = (place >= ends[..., CONSTANTS, None]) & (place < ends[..., AFTER, None])
    one_row = np.all((np.asarray(program.rows)[..., 1:] == 1) | ~is_value, axis=-1)
    recurrent = np.asarray(program.recurrent)
    return np.where(
        recurrent, np.where(one_row, LAYOUTS.index("row"), LAYOUTS.index("matrix")), LAYOUTS.index("sequence")
    )


def trim(program: Program, max_instructions: int) -> Program:
    """Cuts or pads the instruction arrays of an unbatched program, or of a batch, on the host.

    Raises:
      ValueError: if a program has more instructions than that.
    """
    longest = int(np.max(program.phase_ends[..., -1], initial=0))
    if longest > max_instructions:
        raise ValueError(f"A program of {longest} instructions does not fit into {max_instructions}.")
    batched = program.op.ndim - 1

    def fit(array, size):
        array = np.asarray(array)[(slice(None),) * batched + (slice(0, size),)]
        extra = size - array.shape[batched]
        widths = [(0, 0)] * array.ndim
        widths[batched] = (0, extra)
        return np.pad(array, widths)

    return dataclasses.replace(
        program,
        op=fit(program.op, max_instructions),
        arg=fit(program.arg, max_instructions),
        delay=fit(program.delay, max_instructions),
        parameter=fit(program.parameter, max_instructions),
        rows=fit(program.rows, max_instructions + 1),
        cols=fit(program.cols, max_instructions + 1),
    )
