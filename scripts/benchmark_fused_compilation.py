r"""Times the compilation of candidates for the fused executor, with nothing that trains beside it.

  python scripts/benchmark_fused_compilation.py
  python scripts/benchmark_fused_compilation.py --count=16 --runs=5 --json=compilation.json

The graphs are those of benchmark_evaluation.py. Each is compiled once and trained for a single step, on all
devices, without the compilation cache. "short" is the level of optimisation that short trainings get,
"optimised" that of long ones (elenas_jax/evaluation/fused.py). Seconds are by the clock, medians of --runs;
in a search most of them pass while other candidates train.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benchmark_evaluation as evaluation
import jax
import numpy as np
from absl import app, flags
from benchmark_machine import machine_line
from evaluation_peers import Mistake

from elenas_jax.evaluation import fused, parallel
from elenas_jax.evaluation.executors import SEGMENT_STEPS, Trials
from elenas_jax.experiment.flags import parse_flags

# Functions of that benchmark are used here; its flags would be accepted and do nothing.
_MEMORY = flags.FLAGS["memory_gib"]
for _flag in list(flags.FLAGS.get_flags_for_module(evaluation)):
    if _flag is not _MEMORY:
        delattr(flags.FLAGS, _flag.name)

_COUNT = flags.DEFINE_integer("count", 64, "Graphs, the first of the file.", lower_bound=1, upper_bound=64)
_RUNS = flags.DEFINE_integer("runs", 3, "Measurements of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file, a JSON list.")

LEVELS = {"short": 0, "optimised": 1}


def compile_all(population: evaluation.Population, level: int) -> float:
    """Returns the seconds in which all candidates were compiled, and took one step each."""
    num = len(population.programs)
    data = evaluation.make_data(SEGMENT_STEPS)
    program = jax.tree.map(lambda *leaves: np.stack(leaves), *population.programs)
    trials = Trials(program, population.weights, np.ones(num, int), np.zeros(num, int))
    fused.forget_compiled()
    start = time.perf_counter()
    outcome = fused.train(trials, evaluation.make_setting(), lambda *_: data, level=level)
    seconds = time.perf_counter() - start
    if outcome.errors:
        raise Mistake(f"A candidate failed: {next(iter(outcome.errors.values()))}.")
    return seconds


def benchmark() -> None:
    """Does what the flags say."""
    jax.config.update("jax_enable_compilation_cache", False)
    parallel.configure_devices()
    print(machine_line().split("; PyTorch")[0])
    count = _COUNT.value
    graphs = evaluation.read_graphs(evaluation.GOLDEN)[:count]
    population = evaluation.make_population("", graphs, count)
    rows = []
    print(f"{'candidates':>10}  {'level':<9}  {'seconds':>7}  {'a candidate':>11}")
    for name, level in LEVELS.items():
        seconds = statistics.median(compile_all(population, level) for _ in range(_RUNS.value))
        rows.append({"candidates": count, "level": name, "seconds": seconds, "each": seconds / count})
        print(f"{count:>10}  {name:<9}  {seconds:>7.2f}  {seconds / count:>11.3f}", flush=True)
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")


def main(_: list[str]) -> None:
    try:
        benchmark()
    except (Mistake, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
