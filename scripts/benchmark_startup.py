r"""Times what a search compiles: a first one, and a second one that finds the first one's compilation cache.

  python scripts/benchmark_startup.py                 # two to four minutes on two cores
  python scripts/benchmark_startup.py --json=startup.json --generations=1

Both are searches of the quickstart's config in processes of their own, with a fresh folder of the cache and
different seeds, so that the second one meets other candidates. The first one is long enough to reach every
task. Rows are of that one process:

  tracing, lowering    Python that makes a program; "compiling" is XLA, or reading the cache in its place.
  by the clock         time in which at least one thread did that: the union of intervals. Of these the row
                       "together" is the compile time of a search.
  summed               seconds of all threads; what runs side by side, or inside another (a function that is
                       traced while its caller is), counts as often as it runs.
  programs, cached     how many were asked for, and how many of them came from the cache.

Programs of single candidates (the fused executor) are what a search goes on compiling, not its start: the
rows come with and without them. Intervals are by the clock, so on a machine that others use they grow;
"processor" is the processor time of the whole process, which does not.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from jax import monitoring
from rich.console import Console

from configs.elenas import quickstart
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors, run

_GENERATIONS = flags.DEFINE_integer("generations", 2, "Generations of the second search.", lower_bound=1)
_FIRST = flags.DEFINE_integer("first_generations", 8, "Generations of the first search.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the measurements to this file.")
_ONE = flags.DEFINE_string("one", None, "For the script itself: seed,generations,folder of one search.")

# Names that JAX reports durations under.
_STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
_HIT = "/jax/compilation_cache/cache_hits"
_FUSED = "fused_segment"  # the programs of single candidates, see evaluation/fused.py


class Interval(NamedTuple):
    """A stage of one program."""

    stage: str
    begin: float
    end: float
    is_fused: bool
    is_cached: bool


def listen() -> list[Interval]:
    """Returns a list that grows by what is compiled from now on, in any thread."""
    found: list[Interval] = []
    thread = threading.local()

    def on_event(name: str, **_: Any) -> None:
        if name == _HIT:  # comes before the duration of its program, in the same thread
            thread.hit = True

    def on_duration(name: str, seconds: float, fun_name: str = "", **_: Any) -> None:
        if name in _STAGES:
            now, stage = time.perf_counter(), _STAGES[name]
            is_cached = stage == "compiling" and getattr(thread, "hit", False)
            found.append(Interval(stage, now - seconds, now, _FUSED in fun_name, is_cached))
            thread.hit = thread.__dict__.get("hit", False) and stage != "compiling"

    monitoring.register_event_listener(on_event)
    monitoring.register_event_duration_secs_listener(on_duration)
    return found


def clock(intervals: Iterable[Interval]) -> float:
    """Seconds in which at least one of the intervals runs."""
    total, until = 0.0, 0.0
    for each in sorted(intervals, key=lambda each: each.begin):
        total += max(0.0, each.end - max(each.begin, until))
        until = max(until, each.end)
    return total


def rows_of(intervals: list[Interval]) -> dict[str, dict[str, float]]:
    """Returns the rows of the table by name."""
    rows = {}
    for title, chosen in (
        ("", intervals),
        (" without candidates'", [each for each in intervals if not each.is_fused]),
    ):
        by_stage = {stage: [each for each in chosen if each.stage == stage] for stage in _STAGES.values()}
        for stage, some in (by_stage | {"together": chosen}).items():
            compiled = by_stage["compiling"] if stage == "together" else some
            rows[stage + title] = {
                "clock": clock(some),
                "summed": sum(each.end - each.begin for each in some),
                "programs": len(compiled),
                "cached": sum(each.is_cached for each in compiled),
            }
    return rows


def search_here(seed: int, generations: int, folder: Path) -> dict[str, Any]:
    """Runs one search in this process."""
    config = quickstart.get_config()
    config.seed, config.minutes, config.generations = seed, 0, generations
    config.compilation_cache = str(folder / "xla")
    found = listen()
    started = time.perf_counter()
    run(check_config(config), folder / f"run_{seed}", console=Console(quiet=True))
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time(),
        "rows": rows_of(found),
    }


def search_apart(seed: int, generations: int, folder: str) -> dict[str, Any]:
    """Runs one search in a process of its own."""
    command = [sys.executable, __file__, f"--one={seed},{generations},{folder}"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    if done.returncode:
        raise ConfigError(f"The search of seed {seed} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, found: dict[str, Any]) -> None:
    print(f"{name} search: {found['seconds']:.1f} s, {found['processor']:.1f} s of processor time")
    print(f"  {'':<32}  by the clock, s  summed, s  programs  cached")
    for row, values in found["rows"].items():
        line = f"  {row:<32}  {values['clock']:>15.2f}  {values['summed']:>9.2f}  {values['programs']:>8}"
        has_cache = row.startswith(("compiling", "together"))
        print(line + (f"  {values['cached']:>6}" if has_cache else ""), flush=True)


def main(_: list[str]) -> None:
    with one_line_errors():
        if _ONE.value:
            seed, generations, folder = _ONE.value.split(",", 2)
            print(json.dumps(search_here(int(seed), int(generations), Path(folder))))
            return
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for seed, (name, num) in enumerate((("first", _FIRST.value), ("second", _GENERATIONS.value))):
                found[name] = search_apart(seed, num, folder)
                show(name, found[name])
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
