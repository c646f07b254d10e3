"""The plan: what a search is about to do, on what, and how long it will take."""

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from rich.table import Table

from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.evaluation.executors import FUSED, INTERPRETED, choose_executor
from elenas_jax.experiment.build import build_evaluator, build_sequence_tasks, training_steps
from elenas_jax.experiment.config import INDIVIDUAL_NAME, LIMIT
from elenas_jax.experiment.loop import Experiment
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.run_dir import RunDir
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, pad_graph

_PROBES = ("elman", "elena1", "elena2")
_PROBE_STEPS = 128  # from 100 on the fused executor compiles as for long trainings


def plan_table(experiment: Experiment, run: RunDir, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the plan as a table.

    Args:
      experiment: what was built.
      run: where it goes.
      rows: lines of metrics of earlier sessions; without any, some trainings are timed.
    """
    config, plan = experiment.config, dict(experiment.evaluator.plan)
    lines = {
        "run folder": f"{run.path} ({f'goes on after {len(rows)} generations' if rows else 'new'})",
        "search": f"{config['strategy']['name']} in {config['space']['name']}, seed {config['seed']}",
        "tasks": _tasks(config),
        "limits": " or ".join(
            f"{config[name]:g} {name}" for name in ("generations", "evaluations", "minutes") if config[name]
        )
        or "none: it goes on until Ctrl-C",
        "devices": plan.pop("devices"),
        "versions": ", ".join(
            f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax", "numpy")
        ),
        "time": _time(config, rows),
    }
    if "candidates_per_chunk" in plan:
        lines["candidates"] = f"{plan.pop('candidates_per_chunk')} at a time"
        lines["memory"] = f"at most {plan.pop('memory_limit_gib'):.3g} GiB for trainings"
    plan.pop("num_devices", None)
    lines |= {name.replace("_", " "): str(value) for name, value in plan.items()}
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    return table


def _tasks(config: Mapping[str, Any]) -> str:
    """The ladder, with the steps of trainings where these follow from the config."""
    if config["evaluator"]["name"] == INDIVIDUAL_NAME:
        return ", ".join(config["ladder"])
    steps = training_steps(config, build_sequence_tasks(config))
    return ", ".join(f"{name} ({num} steps)" for name, num in zip(config["ladder"], steps, strict=True))


def _time(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """How long the rest will take, in words, as far as that can be known."""
    parts = []
    gone = sum(row["seconds"] for row in rows)
    if config["minutes"]:
        parts.append(
            f"at most {duration(max(0.0, config['minutes'] * 60 - gone))} and the generation in flight"
        )
    if rows:
        trained = rows[-1]["total_evaluations"]
        if config["generations"]:
            parts.append(f"about {duration((config['generations'] - len(rows)) * gone / len(rows))}")
        if config["evaluations"] and trained:
            parts.append(f"about {duration((config['evaluations'] - trained) * gone / trained)}")
    elif config["evaluator"]["name"] == INDIVIDUAL_NAME:
        parts.append("the first generation will tell")  # how long one takes differs by orders of magnitude
    elif config["evaluator"]["table"]:
        parts.append("seconds: nothing is trained")
    elif (config["generations"] or config["evaluations"]) and not config["minutes"]:
        least, most = seconds_per_training(config)
        text = f"a training takes {least:.2g} s"
        if len(config["ladder"]) > 1:
            text += f" (first task missed) to {most:.2g} s (all tasks)"
        if config["evaluations"]:
            text += f", so {config['evaluations']} of them {duration(config['evaluations'] * least)} to "
            text += duration(config["evaluations"] * most)
        parts.append(text)
    return "; ".join(parts) or "until Ctrl-C"


def seconds_per_training(config: Mapping[str, Any]) -> tuple[float, float]:
    """Times a few steps of known blocks; returns what a candidate takes at least and at most.

    What is compiled for it serves the search too, where there is a compilation cache.
    """
    tasks = build_sequence_tasks(config)
    batch_size = config["evaluator"]["batch_size"]
    training = np.array(training_steps(config, tasks)) * config["evaluator"]["budgets"][0]
    executor = choose_executor(config["evaluator"]["executor"], "row", True, int(training[0]))
    # A measured example costs about a third of one that is trained on where there is no reverse pass.
    share = 1 / 3 if executor == INTERPRETED else 1.0
    steps = training + np.array([task.valid_samples / batch_size * share for task in tasks])
    # Nobody passes, so that only the first task is trained on.
    changes = {"steps": _PROBE_STEPS, "valid_samples": batch_size, "threshold": 2.0}
    settings = {**config["evaluator"], "executor": executor}
    probe = {
        **config,
        "space": {**config["space"], LIMIT: 0},  # the probes may have more
        "evaluator": settings,
        "tasks": {name: {**config["tasks"][name], **changes} for name in config["ladder"]},
    }
    evaluator = build_evaluator(probe, build_sequence_tasks(probe), MemoryCache())
    num_nodes = max(KNOWN_BLOCKS[name].num_nodes for name in _PROBES)
    blocks = ComputationGraph(
        np.stack([np.asarray(pad_graph(KNOWN_BLOCKS[n], num_nodes).edges) for n in _PROBES])
    )
    seconds = []
    for replicate in range(2):  # the first one compiles
        started = time.perf_counter()
        evaluator.evaluate(blocks, np.zeros(len(_PROBES), np.int32), replicate)
        seconds.append((time.perf_counter() - started) / len(_PROBES))
    per_step = seconds[1] / _PROBE_STEPS
    # What is compiled for one candidate alone is compiled again for the next.
    compiling = max(0.0, seconds[0] - seconds[1]) if executor == FUSED else 0.0
    return float(compiling + steps[0] * per_step), float(compiling * len(tasks) + steps.sum() * per_step)
