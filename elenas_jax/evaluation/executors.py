"""What executors share: candidates to train, what they are trained on, and which executor takes them.

Three executors train the same candidates from the same weights and data, and agree to rounding.
*Interpreted*: a program is data, one compiled program serves all. *Fused*: every program is
compiled for itself, which takes a while and then runs several times as fast. *Batched*: all
candidates step together in few and large kernels, which is what accelerators want.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation import parallel
from elenas_jax.graphs.program import Program
from elenas_jax.types import Task

SEGMENT_STEPS = 64  # steps between two returns to the host

INTERPRETED, FUSED, BATCHED, AUTO = "interpreted", "fused", "batched", "auto"
EXECUTORS = (AUTO, INTERPRETED, FUSED, BATCHED)

# Steps from which compiling a program pays, measured on two CPU cores (docs/engine_notes.md). With a loop
# over time: 1.5 ms of processor time a step interpreted, 0.6 ms fused after 0.5 s; without: 0.25 ms
# interpreted, 0.1 ms fused after 0.15 s.
FUSED_STEPS = {"loop": 600, "no loop": 1000}


class Trials(NamedTuple):
    """Candidates to train on one task; B of them, on the host."""

    program: Program  # [B]
    weights: np.ndarray  # [B, ...] key data of the weights
    steps: np.ndarray  # [B] training steps
    replicates: np.ndarray  # [B] of the data; all the same but for the fused executor


class Outcome(NamedTuple):
    """What came of B candidates."""

    metrics: np.ndarray  # [B] on the validation data, NaN after a loss that was not finite
    finite: np.ndarray  # [B] bool, whether all losses were
    losses: np.ndarray  # [B] mean loss of the last segment of training
    compile_seconds: float  # by the clock, in which nothing was trained because these were compiled
    errors: dict[int, Exception]  # by place, of candidates that failed alone; they are not finite


class Setting(NamedTuple):
    """How candidates are trained on one task."""

    task: Task
    batch_size: int
    learning_rate: float
    in_features: int  # of the batches: those of the task's inputs, or more
    width: int  # the widest of in, out and hidden features of all tasks
    devices: int
    per_device: int  # candidates side by side on a device, or fewer where memory does not suffice
    memory: int  # bytes a device may use


# `batches(replicate, kind, first)`: `[G, N, T, F]` inputs and `[G, N, O]` targets of G steps from `first`
# on, on a host array or device; kind is TRAIN or VALIDATION. G is SEGMENT_STEPS.
Batches = Callable[[int, int, int], tuple[jax.Array, jax.Array]]


def out_of_memory(needed: int, setting: Setting) -> MemoryError:
    """What is raised before anything runs that would not fit."""
    return MemoryError(
        f"RESOURCE_EXHAUSTED: training a candidate takes {needed / 2**30:.3g} GiB, "
        f"allowed are {setting.memory / 2**30:.3g} GiB a device."
    )


def choose_executor(wanted: str, layout: str, loops: bool, steps: int) -> str:
    """Returns the executor of a candidate, which depends on nothing but its program and its steps.

    Padded squares of a matrix or a whole sequence cost tens of times what the values do, so that
    only programs whose values are rows are interpreted, or batched: the others are fused.

    Args:
      wanted: one of `EXECUTORS`; "auto" is batched on accelerators.
      layout: one of `LAYOUTS`.
      loops: whether the program runs step by step, see `schedule.has_loop`.
      steps: training steps.
    """
    if wanted == AUTO and not parallel.is_cpu():
        wanted = BATCHED
    if wanted == BATCHED and layout != "row":
        return FUSED
    if wanted != AUTO:
        return wanted
    fused_steps = FUSED_STEPS["loop" if loops else "no loop"] if layout == "row" else 0
    return INTERPRETED if steps < fused_steps else FUSED


def training_segments(steps: int):
    """Yields (first step, number of steps) of a training."""
    for first in range(0, steps, SEGMENT_STEPS):
        yield first, min(SEGMENT_STEPS, steps - first)


def validation_segments(setting: Setting):
    """Yields (first batch, number of batches) of the validation data."""
    total = setting.task.valid_samples // setting.batch_size
    for first in range(0, total, SEGMENT_STEPS):
        yield first, min(SEGMENT_STEPS, total - first)
