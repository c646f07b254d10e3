"""Searches that end with the first block over a bar, see `bars`."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from elenas_jax.experiment.archive import Row, export_rows
from elenas_jax.experiment.bars import ReferenceBar, Verdict, ladder_passed, memory_bar, without_memory
from elenas_jax.experiment.build import build_space, build_tasks
from elenas_jax.experiment.config import FREE_KEYS, default_values
from elenas_jax.experiment.kept import kept_trainings
from elenas_jax.experiment.run_dir import (
    RunError,
    check_same_config,
    read_json,
    read_metrics,
    run_dir,
    write_json,
)
from elenas_jax.experiment.session import run


def search_for(
    folder: Path, config: dict[str, Any], bar: str, console: Console
) -> tuple[bool, dict[str, Any]]:
    """Runs a search until its first block is over a bar; returns whether it ended, and what came out.

    What came out so far is in found.json of the run folder after every generation: found, bar, seed, seconds,
    evaluations, equations, parameters, graph, metrics (by task, one a seed). Seconds are all there are: those
    of trainings for the bar too, which the search's own clock does not know; config's minutes limit them.

    Args:
      folder: of the run; gone on with if it is there.
      config: resolved.
      bar: "lstm" and "memory" for those of `bars`; every other is the thresholds of the config's ladder.
      console: where to say what happens.

    Raises:
      RunError: if the folder holds another run, or is damaged.
    """
    started = time.perf_counter()
    files = run_dir(folder)
    kept = files.path / "found.json"
    result: dict[str, Any] = dict.fromkeys(("equations", "parameters", "graph", "metrics"))
    result |= {"found": False, "bar": bar, "seed": config["seed"], "seconds": 0.0, "evaluations": 0}
    if kept.exists():
        so_far = read_json(kept)
        kinds = [type(so_far.get(name)) for name in ("found", "seconds")] if isinstance(so_far, dict) else []
        if kinds != [bool, float]:
            raise RunError(
                f"{kept} is damaged: it must say whether a block was found, and the seconds so far."
            )
        result |= so_far
    before, limit = result["seconds"], 60 * config["minutes"]
    if result["found"]:
        check_same_config(files, config, FREE_KEYS, default_values(config))
        return True, result
    resources = contextlib.ExitStack()
    judge: list[Callable[[list[Row]], Verdict | None]] = []

    def until(candidates: list[Row]) -> str:
        if not judge:  # not before the folder is there
            judge.append(_make_judge(bar, config, files.path, resources))
        result["evaluations"] = read_metrics(files)[-1]["total_evaluations"]
        result["seconds"] = round(before + time.perf_counter() - started, 3)
        write_json(kept, result)  # judging may take minutes, and be killed
        verdict = judge[0](candidates)
        result["seconds"] = round(before + time.perf_counter() - started, 3)
        if verdict:
            graph = json.loads(verdict.row.candidate)
            space = build_space(config, build_tasks(config))
            result.update(
                found=True,
                equations=space.describe(space.from_json(graph)),
                parameters=verdict.row.parameters,
                graph=graph,
                metrics=verdict.metrics,
            )
        write_json(kept, result)
        if verdict:
            return "a block over the bar"
        # The search's own limit knows nothing of what was trained for the bar.
        return f"{config['minutes']:g} minutes" if result["seconds"] >= limit else ""

    with resources:
        if done := len(read_metrics(files)):
            check_same_config(files, config, FREE_KEYS, default_values(config))
            # A generation that was saved and not judged when a session was killed; one that was not saved as
            # a whole is searched again.
            rows = [Row(**each, seconds=None) for each in export_rows(folder) if each["generation"] < done]
            if until(rows):
                if not result["found"]:  # it had ended: looking again costs nothing
                    result["seconds"] = before
                    write_json(kept, result)
                return True, result
        ended = bool(run(config, folder, console=console, until=until).why)
    return ended, result


def _make_judge(
    bar: str, config: dict[str, Any], folder: Path, resources: contextlib.ExitStack
) -> Callable[[list[Row]], Verdict | None]:
    """Returns the judge of a bar, which keeps its trainings in `judged` of the folder."""
    if bar not in ("lstm", "memory"):
        return lambda rows: ladder_passed(rows, config)
    settings = {name: config[name] for name in ("seed", "ladder", "tasks", "evaluator")}
    free = tuple(key for key in FREE_KEYS if key.startswith("evaluator."))
    cache = resources.enter_context(kept_trainings(folder / "judged", settings, free, list(config["ladder"])))
    if bar == "memory":
        return memory_bar(config, folder, cache)
    return ReferenceBar(without_memory(config), folder, cache=cache).first_over
