r"""Times training over program length, width, batch and time steps: where the engine is good, where not.

  python scripts/benchmark_sweep.py --json=sweep.json --plot=sweep.svg    # some ten minutes on two cores
  python scripts/benchmark_sweep.py --quick      # two values a factor, few steps: one or two minutes

One factor is varied at a time around an LSTM of width 64, batch 32, 32 time steps, with 7 inputs, 1
output and a linear head. Length is that of known blocks, in instructions. Their values are rows, and
both executors train them. Blocks of attention, whose values are matrices over the whole sequence, are
trained by the fused executor only, with softmax attention as the default: no search interprets them.
What is fused is optimised by the compiler, as in trainings of many steps.
Lines are printed as they are measured; in the table at the end executors stand beside each other.

Columns of the table:
  steps       of a run: 8, doubled until they last --seconds.
  ms          per step and candidate on all cores, median of --runs: seconds of a run over its steps
              and candidates, which are one block with different weights. Those of a run of one step
              are taken off, so that neither compiling nor drawing weights is in it.
  spread      slowest less fastest run, in parts of the median.
  GFLOP/s     of useful work: three times the forward cost of the block (`elenas_jax.graphs.num_flops`).
  share       of the rate of matrix products [1024, 64] @ [64, 64] that all cores reach in the same run.
  first s     seconds of the first call, which takes one step and compiles what is not compiled yet:
              interpreted, what programs of like size share; fused, this block, once on each device.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benchmark_evaluation as evaluation
import jax
import matplotlib
import numpy as np
from absl import app, flags
from benchmark_machine import machine_line, matmul_rate
from evaluation_peers import LEARNING_RATE, Mistake
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from elenas_jax.analysis.plots import STYLE
from elenas_jax.evaluation import fused, interpreted, parallel
from elenas_jax.evaluation.executors import FUSED, INTERPRETED, SEGMENT_STEPS, Setting, Trials
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, Program, num_flops
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.program import AFTER, trim
from elenas_jax.tasks import make_task

# Functions of that benchmark are used here; its flags would be accepted and do nothing.
for _flag in list(flags.FLAGS.get_flags_for_module(evaluation)):
    delattr(flags.FLAGS, _flag.name)

_CANDIDATES = flags.DEFINE_integer(
    "candidates", 8, "Candidates of a point; rounded up to as many on each device.", lower_bound=1
)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "A run takes as many steps as last so long.", lower_bound=0.01)
_RUNS = flags.DEFINE_integer("runs", 3, "Timed runs of a point.", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "Two values a factor, one run of few steps.")
_JSON = flags.DEFINE_string(
    "json", None, "Also write the rows to this file, a JSON list, as they are measured."
)
_PLOT = flags.DEFINE_string("plot", None, "Also draw them: a file that ends in .png or .svg.")

FEATURES, OUTPUTS = 7, 1


class Point(NamedTuple):
    """What is trained."""

    block: str  # one of KNOWN_BLOCKS
    width: int = 64
    batch: int = 32
    time_steps: int = 32


ROWS, MATRICES = "lstm", "softmax_attention"  # what the other factors are varied with
FACTORS: dict[str, tuple[Any, ...]] = {
    "length": ("elman", "mgu", "gru", "lstm", "darts", "enas", "linear_attention", "softmax_attention"),
    "width": (16, 32, 64, 128, 256),
    "batch": (8, 32, 128),
    "time_steps": (8, 32, 128),
}
SERIES = {  # a line of the plot: executor, block, colour (Okabe and Ito, 2008), marker
    "rows (LSTM), interpreted": (INTERPRETED, ROWS, "#D55E00", "o"),
    "rows (LSTM), fused": (FUSED, ROWS, "#0072B2", "s"),
    "matrices (softmax attention), fused": (FUSED, MATRICES, "#009E73", "^"),
}


def series_points(factor: str, block: str, quick: bool) -> list[Point]:
    """Returns the points of a line; the default is one of them."""
    if factor == "length":
        names = FACTORS[factor]
        points = [Point(name) for name in names if ("attention" in name) == (block == MATRICES)]
    else:
        points = [Point(block)._replace(**{factor: value}) for value in FACTORS[factor]]
    return [points[0], Point(block)] if quick else points


# --- measuring ---


def make_program(point: Point) -> Program:
    """Constructs a block, unbatched, on the host."""
    batch = construct_batch(
        ComputationGraph(stack_graphs([KNOWN_BLOCKS[point.block]])),
        in_features=FEATURES,
        out_features=OUTPUTS,
        hidden_features=point.width,
        head="linear",
        time_steps=point.time_steps,
    )
    program = jax.tree.map(lambda leaf: np.asarray(leaf)[0], parallel.on_host(batch))
    return trim(program, int(program.phase_ends[AFTER]))


def time_point(
    point: Point, executor: str, candidates: int, seconds: float, runs: int, rate: float
) -> dict[str, Any]:
    """Trains candidates several times; returns a record of what it takes."""
    program, devices = make_program(point), parallel.count_devices()
    task = make_task("reber", valid_samples=point.batch)._replace(
        in_features=FEATURES, out_features=OUTPUTS, time_steps=point.time_steps, loss="binary"
    )
    lanes, memory = candidates // devices, parallel.memory_limit(0.0, devices)
    setting = Setting(task, point.batch, LEARNING_RATE, FEATURES, point.width, devices, lanes, memory)
    rng, shape = np.random.default_rng(0), (SEGMENT_STEPS, point.batch)
    inputs = rng.standard_normal((*shape, point.time_steps, FEATURES), np.float32)
    data = inputs, rng.integers(0, 2, (*shape, OUTPUTS)).astype(np.float32)
    weights = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), candidates)))
    programs = jax.tree.map(lambda leaf: np.stack([leaf] * candidates), program)

    def train(num_steps: int) -> float:
        trials = Trials(programs, weights, np.full(candidates, num_steps), np.zeros(candidates, int))
        start = time.perf_counter()
        if executor == FUSED:
            outcome = fused.train(trials, setting, lambda *_: data, level=1)
        else:
            outcome = interpreted.train(trials, setting, lambda *_: data)
        taken = time.perf_counter() - start
        if not outcome.finite.all():  # the rest of its steps are not taken
            raise Mistake(f"{point}, {executor}: a loss is not finite, so its time says nothing.")
        return taken

    fused.forget_compiled()
    first, once = train(1), min(train(1) for _ in range(2))
    steps = 8
    while train(1 + steps) - once < seconds:
        steps *= 2
    each_run = [(train(1 + steps) - once) / (steps * candidates) for _ in range(runs)]
    each = statistics.median(each_run)
    gflops = 3e-9 * point.batch * float(num_flops(program, point.time_steps)) / each
    return {
        **point._asdict(),
        "instructions": int(program.phase_ends[AFTER]),
        "executor": executor,
        "candidates": candidates,
        "steps": steps,
        "ms_per_step_and_candidate": 1e3 * each,
        "spread": (max(each_run) - min(each_run)) / each,
        "gflops": gflops,
        "matmul_gflops": rate,
        "share": gflops / rate,
        "first_s": first,
    }


HEADER = f"{'factor':<10}  {'value':<20}  {'executor':<11}   steps        ms  spread  GFLOP/s  share  first s"


def value_of(row: dict[str, Any]) -> str:
    if row["factor"] == "length":
        return f"{row['block']}, {row['instructions']}"
    return f"{row[row['factor']]}" + (", attention" if row["block"] == MATRICES else "")


def row_line(row: dict[str, Any]) -> str:
    line = f"{row['factor']:<10}  {value_of(row):<20}  {row['executor']:<11}  {row['steps']:>6}  "
    line += f"{row['ms_per_step_and_candidate']:>8.3f}  {row['spread']:>6.0%}  {row['gflops']:>7.2f}  "
    return line + f"{row['share']:>5.0%}  {row['first_s']:>7.1f}"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints a line for each value of a factor, the executors beside each other."""
    lines: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["factor"], value_of(row)), {})[row["executor"]] = row
    print(f"\n{'':<32}  {INTERPRETED:>15}  {FUSED:>15}")
    print(f"{'factor':<10}  {'value':<20}" + 2 * "        ms  share")
    for (factor, value), by_executor in lines.items():
        cells = [
            f"{row['ms_per_step_and_candidate']:>8.3f}  {row['share']:>5.0%}" if row else f"{'':>15}"
            for row in map(by_executor.get, (INTERPRETED, FUSED))
        ]
        print(f"{factor:<10}  {value:<20}  {'  '.join(cells)}")


# --- drawing ---


def draw(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Draws ms per step, above, and share of peak, below, against each factor."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(2, len(FACTORS), sharex="col", sharey="row", width_ratios=(1.8, 1, 1, 1))
    titles = ("Program length", "Width", "Batch", "Time steps")
    for (above, below), factor, title_of_panel in zip(panels.T, FACTORS, titles):
        mine = [row for row in rows if row["factor"] == factor]
        for label, (_, _, colour, marker) in SERIES.items():
            line = [row for row in mine if row["series"] == label]
            for axes, column in ((above, "ms_per_step_and_candidate"), (below, "share")):
                places, values = [_place(row) for row in line], [row[column] for row in line]
                axes.plot(places, values, color=colour, marker=marker, markersize=6, label=label)
        _set_ticks(below, factor, mine)
        above.set_title(title_of_panel)
    above, below = panels[:, 0]
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    above.yaxis.set_minor_locator(NullLocator())
    above.set_ylabel("ms per step and candidate")
    below.set_ylim(bottom=0)
    below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    below.set_ylabel("share of the matmul rate")
    figure.legend(handles=above.get_lines(), loc="upper right", ncols=len(SERIES))
    figure.suptitle(title, fontsize=9, color="#5f6670", x=0.01, ha="left")
    return figure


def _place(row: dict[str, Any]) -> int:
    """Where a row stands on the x axis: blocks side by side, those of matrices after a gap."""
    if row["factor"] == "length":
        return FACTORS["length"].index(row["block"]) + ("attention" in row["block"])
    return row[row["factor"]]


def _set_ticks(axes: Axes, factor: str, rows: Sequence[dict[str, Any]]) -> None:
    labels = {_place(row): str(row.get(factor)) for row in rows}
    if factor == "length":
        labels = {_place(row): f"{row['block'].split('_')[0]}\n{row['instructions']}" for row in rows}
        axes.set_xlabel("block and its instructions (linear, softmax: attention)")
    else:
        axes.set_xscale("log", base=2)
        axes.set_xlabel({"width": "hidden features", "batch": "examples", "time_steps": "steps"}[factor])
    axes.set_xticks(list(labels), list(labels.values()), fontsize=9)
    axes.xaxis.set_minor_locator(NullLocator())


# --- the script ---


def benchmark() -> None:
    """Does what the flags say."""
    json_path, plot_path = (flag.value and Path(flag.value) for flag in (_JSON, _PLOT))
    if plot_path and plot_path.suffix not in (".png", ".svg"):
        raise Mistake(f"--plot={plot_path}: it must end in .png or .svg.")
    for path in (json_path, plot_path):
        if path and not path.parent.is_dir():  # better known now
            raise Mistake(f"{path}: there is no folder {path.parent}.")
    parallel.configure_devices()
    devices = parallel.count_devices()
    candidates = -(-_CANDIDATES.value // devices) * devices
    runs, seconds = (1, 0.1) if _QUICK.value else (_RUNS.value, _SECONDS.value)
    rate = matmul_rate()
    title = machine_line().split("; PyTorch")[0] + f"\n{candidates} candidates a point; "
    title += f"matrix products [1024, 64] @ [64, 64] on all cores: {rate:.1f} GFLOP/s"
    print(f"{title}\n\n{HEADER}", flush=True)
    rows: list[dict[str, Any]] = []
    known: dict[tuple[Point, str], dict[str, Any]] = {}  # the default is a point of every factor
    for factor in FACTORS:
        for label, (executor, block, _, _) in SERIES.items():
            for point in series_points(factor, block, _QUICK.value):
                if (point, executor) not in known:
                    known[point, executor] = time_point(point, executor, candidates, seconds, runs, rate)
                rows.append({"factor": factor, "series": label, **known[point, executor]})
                print(row_line(rows[-1]), flush=True)
                if json_path:
                    json_path.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Matrix products at the end: {matmul_rate():.1f} GFLOP/s")
    print_table(rows)
    if plot_path:
        with matplotlib.rc_context(STYLE):
            draw(rows, title).savefig(plot_path, dpi=160)


def main(_: list[str]) -> None:
    try:
        benchmark()
    except (Mistake, MemoryError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
