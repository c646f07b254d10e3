r"""Searches from nothing until the first block is over a bar, and says when that was.

  python scripts/first_block.py --bar=paper --seed=0 --minutes=10
  python scripts/first_block.py --bar=lstm --seed=0 --minutes=30 --json=found.json

Bars:
  paper          the thresholds of Aichberger and Klambauer (2023) on adding, Reber and embedded Reber with
                 random negatives, at their numbers of samples, one epoch, with a linear head
  paper_no_head  the same without a head: the block's last node is the output
  lstm           near misses; over ten seeds the mean of each task is at least that of the LSTM over the
                 same seeds, less 0.01, with at most half of its parameters

The recipe is configs/elenas/first_block.py. Evaluations are different candidates that were trained; the
seconds are all there are, trainings of further seeds and of the LSTM included, and --minutes is their
limit, the generation in flight apart. Interrupted, it goes on when called again. FILE of --json holds one
object, also when nothing was found: found, bar, seed, seconds, evaluations, equations, parameters, graph,
metrics (by task, one a seed). The exit status is 0 either way.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.elenas import first_block
from elenas_jax.experiment.archive import Row, export_rows
from elenas_jax.experiment.bars import ReferenceBar, Verdict, ladder_passed
from elenas_jax.experiment.build import build_space, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import read_json, read_metrics, run_dir, write_json
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare, run

_BAR = flags.DEFINE_enum("bar", "paper", first_block.BARS, "What a block has to reach.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the run.", lower_bound=0, upper_bound=2**32 - 1)
_MINUTES = flags.DEFINE_float("minutes", 30.0, "When to stop looking.", lower_bound=0.01)
_JSON = flags.DEFINE_string("json", None, "Also write what came out to this file.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; runs/first_block/BAR_SEED by default.")


def search_for(
    folder: Path, config: dict[str, Any], bar: str, console: Console
) -> tuple[bool, dict[str, Any]]:
    """Runs the search; returns whether it came to an end, and what came out."""
    started = time.perf_counter()
    files = run_dir(folder)
    kept = files.path / "found.json"
    result = read_json(kept) if kept.exists() else {"found": False, "bar": bar, "seed": config["seed"]}
    result = dict.fromkeys(("equations", "parameters", "graph", "metrics")) | {"evaluations": 0} | result
    before, limit = result.setdefault("seconds", 0.0), 60 * config["minutes"]
    if result["found"] or before >= limit:
        return True, result
    judge: list[Callable[[list[Row]], Verdict | None]] = []

    def until(candidates: list[Row]) -> str:
        if not judge:  # not before the folder is there
            reference = ReferenceBar(config, files.path) if bar == "lstm" else None
            judge.append(reference.first_over if reference else lambda rows: ladder_passed(rows, config))
            # What a killed session may have found and not said.
            candidates = [Row(**each, seconds=None) for each in export_rows(folder)]
        verdict = judge[0](candidates)
        result["evaluations"] = read_metrics(files)[-1]["total_evaluations"]
        result["seconds"] = round(before + time.perf_counter() - started, 1)
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

    ended = bool(run(config, folder, console=console, until=until).why)
    return ended, result


def show(result: dict[str, Any], console: Console) -> None:
    """Says what came out."""
    spent = f"{result['evaluations']:,} evaluations, {result['seconds']:.0f} s"
    if not result["found"]:
        console.print(f"No block over the bar {result['bar']} after {spent}.")
        return
    console.print(
        f"First block over the bar {result['bar']} after {spent}; {result['parameters']:,} parameters:"
    )
    console.print(result["equations"])
    for name, values in result["metrics"].items():
        spread = f" ± {np.std(values):.3f} over {len(values)} seeds" if len(values) > 1 else ""
        console.print(f"{name}: {np.mean(values):.3f}{spread}")


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        if _JSON.value and not Path(_JSON.value).resolve().parent.is_dir():
            raise ConfigError(
                f"--json={_JSON.value}: there is no folder {Path(_JSON.value).resolve().parent}."
            )
        bar, seed = _BAR.value, _SEED.value
        recipe = first_block.get_config(bar).to_dict()
        config = check_config(recipe | {"seed": seed, "minutes": _MINUTES.value})
        prepare(config, console)
        folder = Path(_RUN_DIR.value or f"runs/first_block/{bar}_{seed}")
        ended, result = search_for(folder, config, bar, console)
        show(result, console)
        if _JSON.value:
            write_json(Path(_JSON.value), result)
        if not ended:
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
