"""What a candidate is trained on: pure generators of examples, data sets of images, losses and metrics.

| task | loss | threshold | untrained | weight | length | train + validation samples |
| --- | --- | --- | --- | --- | --- | --- |
| reber | binary | 0.80 | 0.50 | 0.1 | 32 | 20,000 + 2,000 |
| embedded_reber | binary | 0.70 | 0.50 | 0.1 | 32 | 50,000 + 5,000 |
| adding | squared | 0.40 | 0.15 | 1 | 32 | 90,000 + 9,000 |
| memory | categorical | 0.90 | 1/7 | 1 | 20 | 200,000 + 20,000 |

The first three are the ladder of Aichberger and Klambauer (2023). Tasks on images are in `tasks.images`: a
row of `tasks.image_table` is a task. Data sets in files, on which blocks are retrained, are in
`tasks.datasets`, metrics in `tasks.metrics`. To add a task, write `make_<name>(*, length=...) -> Task`, or
`-> DataTask`, in a file of its own and add a row to `TASKS`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from elenas_jax.tasks.adding import make_adding
from elenas_jax.tasks.images import IMAGE_TASKS
from elenas_jax.tasks.losses import LOSSES, Loss
from elenas_jax.tasks.memory import make_memory
from elenas_jax.tasks.reber import NEGATIVES, make_embedded_reber, make_reber
from elenas_jax.types import DataTask, Task

__all__ = ("LOSSES", "NEGATIVES", "SEQUENCE_TASKS", "TASKS", "Loss", "make_sequence_task", "make_task")

SEQUENCE_TASKS: dict[str, Callable[..., Task]] = {  # their examples are drawn, not read
    "reber": make_reber,
    "embedded_reber": make_embedded_reber,
    "adding": make_adding,
    "memory": make_memory,
}
TASKS: dict[str, Callable[..., Task] | Callable[..., DataTask]] = {**SEQUENCE_TASKS, **IMAGE_TASKS}

_GRAMMAR_TASKS = ("reber", "embedded_reber")
_SAMPLES = ("train_samples", "valid_samples")
_NUMBERS = ("threshold", "untrained", "weight")


def make_task(
    name: str, *, negatives: str | None = None, length: int | None = None, **overrides: Any
) -> Task | DataTask:
    """Makes a task by its name.

    Args:
      name: a key of `TASKS`.
      negatives: grammar tasks only, one of `NEGATIVES`; None is "random".
      length: of sequences, the time steps; None is the task's own.
      **overrides: fields of the task to replace: threshold, untrained or weight, and of sequences
        train_samples or valid_samples; of images, arguments of the maker.

    Raises:
      ValueError: for an unknown name, an unknown setting or a value out of range.
      TypeError: for a value of the wrong type.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task {name!r}; known are {', '.join(TASKS)}.")
    settings: dict[str, Any] = {}
    if negatives is not None:
        if name not in _GRAMMAR_TASKS:
            raise ValueError(
                f"{name} has no negatives (got {negatives!r}); {' and '.join(_GRAMMAR_TASKS)} have."
            )
        settings["negatives"] = negatives
    if name in IMAGE_TASKS:
        own: tuple[str, ...] = tuple(inspect.signature(TASKS[name]).parameters)
        settings |= {field: overrides.pop(field) for field in own if field in overrides}
        for field in _NUMBERS:
            if settings.get(field) is not None:  # None is the maker's
                _check_number(name, field, settings[field], int, float)
    else:
        own = ("negatives", "length", *_SAMPLES)
    if length is not None:
        if "length" not in own:
            raise ValueError(f"{name} has no length (got {length!r}).")
        _check_number(name, "length", length, int)
        settings["length"] = length
    for field, value in overrides.items():
        if field in _SAMPLES and field in own:
            _check_number(name, field, value, int)
            if value < 1:
                raise ValueError(f"{name}: {field} is {value}; it must be at least 1.")
        elif field in _NUMBERS:
            _check_number(name, field, value, int, float)
        else:
            allowed = ", ".join(dict.fromkeys((*own, *_NUMBERS)))
            raise ValueError(f"{name}: unknown setting {field!r}; allowed are {allowed}.")
    return TASKS[name](**settings)._replace(**overrides)


def make_sequence_task(name: str, **settings: Any) -> Task:
    """As `make_task`, for the tasks on sequences only."""
    task = make_task(name, **settings)
    if not isinstance(task, Task):
        known = ", ".join(known for known in TASKS if known not in IMAGE_TASKS)
        raise ValueError(f"{name} is a task on images; tasks on sequences are {known}.")
    return task


def _check_number(name: str, field: str, value: object, *kinds: type) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: {field} is {value!r}; it must be {expected}.")
