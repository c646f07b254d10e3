"""Trains a chunk of candidates whose executors differ."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from elenas_jax.evaluation import batched, fused, interpreted, parallel
from elenas_jax.evaluation.executors import BATCHED, FUSED, INTERPRETED, Batches, Outcome, Setting, Trials

TRAIN_WITH = {INTERPRETED: interpreted.train, FUSED: fused.train, BATCHED: batched.train}


def train_together(parts: Sequence[tuple[str, Trials]], setting: Setting, batches: Batches) -> list[Outcome]:
    """Trains parts of a chunk, each with its executor; what fails is an error in its part's outcome.

    On a CPU what is fused is compiled while others train. An accelerator times kernels as it compiles, in
    memory that those in training have: there the one comes after the other.
    """
    found: dict[int, Outcome] = {}
    with contextlib.ExitStack() as stack:

        def begin(name: str, trials: Trials) -> Callable[[], Outcome]:
            if name == FUSED and parallel.is_cpu():
                return stack.enter_context(fused.compiling(trials, setting, batches))
            return functools.partial(TRAIN_WITH[name], trials, setting, batches)

        # What is fused begins first and ends last.
        order = sorted(range(len(parts)), key=lambda place: parts[place][0] != FUSED)
        begun = [(place, _attempt(begin, *parts[place])) for place in order]
        for place, finish in reversed(begun):
            outcome = _attempt(finish) if callable(finish) else finish
            if isinstance(outcome, Exception):
                name, trials = parts[place]
                outcome = _train_alone(outcome, name, trials, setting, batches)
            found[place] = outcome
    return [found[place] for place in range(len(parts))]


def _attempt(run: Callable[..., Any], *args: Any) -> Any:
    """Returns what `run` returns, or the exception that it raises."""
    try:
        return run(*args)
    except Exception as error:
        return error


def _train_alone(error: Exception, name: str, trials: Trials, setting: Setting, batches: Batches) -> Outcome:
    """Trains the candidates of a part that failed one by one, so that none pays for another.

    Args:
      error: with which the part failed: that of its candidate if there is one only.
    """
    num = len(trials.steps)
    metrics, finite, losses, errors = np.full(num, np.nan), np.zeros(num, bool), np.full(num, np.nan), {}
    for place in range(num):
        one = jax.tree.map(lambda leaf, place=place: leaf[place : place + 1], trials)
        outcome = _attempt(TRAIN_WITH[name], one, setting, batches) if num > 1 else error
        if isinstance(outcome, Exception):
            errors[place] = outcome
            continue
        metrics[place], finite[place], losses[place] = (
            each[0] for each in (outcome.metrics, outcome.finite, outcome.losses)
        )
        if outcome.errors:
            errors[place] = outcome.errors[0]
    return Outcome(metrics, finite, losses, compile_seconds=0.0, errors=errors)
