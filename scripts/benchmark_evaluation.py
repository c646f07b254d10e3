r"""Times the training of populations: this package, one `jax.jit` a candidate, and PyTorch eager.

  python scripts/benchmark_evaluation.py                                  # everything: hours
  python scripts/benchmark_evaluation.py --count=64 --steps=60,625 --json=out.json
  python scripts/benchmark_evaluation.py --graphs=mine.json --peers=jit

Trains graphs of tests/golden/graphs64.json (7 inputs, 1 output, width 64, linear head, 32 steps of
time) on random data, batch 32, with Adam at 1e-3. Without --graphs and --count there are three
populations: the 64 graphs, each of them with 16 seeds of weights, and 1,024 different graphs from the
sampler. This package trains in full, on all cores. Peers train at most 64 candidates for at most 20
steps and are scaled, marked "~"; they compile once a graph, however many seeds it has. PyTorch runs
on the CPU, where it is installed, in one process and in one for each core, of one thread each.
First all ways must reach the same losses from the same weights and data, else nothing is timed.

GFLOP/s are of useful work: three times the forward cost of what the last step's output needs, for every
way, whatever it computes besides (peers compute all steps of everything). Their share is of the rate of
matrix products [1024, 64] @ [64, 64] that all cores reach in the same run.
"""

import itertools
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import evaluation_peers as peers
import jax
import numpy as np
from absl import app, flags
from benchmark_machine import machine_line, matmul_rate
from evaluation_peers import Mistake
from evaluation_populations import (
    BATCH,
    FEATURES,
    GOLDEN,
    HIDDEN,
    OUTPUTS,
    TIME_STEPS,
    Population,
    draw_graphs,
    draw_params,
    make_data,
    make_population,
    read_graphs,
)

from elenas_jax.evaluation import fused, interpreted, parallel
from elenas_jax.evaluation.executors import (
    AUTO,
    BATCHED,
    FUSED,
    INTERPRETED,
    SEGMENT_STEPS,
    Setting,
    Trials,
    choose_executor,
)
from elenas_jax.evaluation.together import train_together
from elenas_jax.evaluation.training import TRAIN
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.graphs import Program
from elenas_jax.graphs.program import AFTER, LAYOUTS, TIME, find_layout
from elenas_jax.graphs.schedule import has_loop, make_schedule
from elenas_jax.tasks import make_task
from elenas_jax.types import Task

MOST_BATCHES, SEEDS = 60, 16
PEER_STEPS, PEER_CANDIDATES = 20, 64  # that are timed, at most
CHECKED, CHECK_STEPS, TOLERANCE = 4, 5, 1e-3

_GRAPHS = flags.DEFINE_string("graphs", None, "Time the graphs of this JSON file, of the golden file's form.")
_COUNT = flags.DEFINE_integer(
    "count", None, "Candidates: the first graphs, or all with further seeds of weights.", lower_bound=1
)
_STEPS = flags.DEFINE_list("steps", ["60", "200", "625", "2500"], "Training steps, one or several numbers.")
_PEERS = flags.DEFINE_enum("peers", "all", ["none", "jit", "torch", "all"], "What to compare with.")
_MEMORY = flags.DEFINE_float(
    "memory_gib", 0.0, "Memory that our trainings may use; 0 is four fifths of what there is.", lower_bound=0
)
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file, a JSON list.")


class Timing(NamedTuple):
    """Seconds that a population takes."""

    compile_s: float
    total_s: float  # without compilation
    scaled: bool = False
    shared_compile_s: float = 0.0  # of ours: of programs that all candidates share, once on a machine


# --- populations ---


def make_populations() -> list[Population]:
    """Makes what the flags ask for."""
    graphs = read_graphs(_GRAPHS.value or GOLDEN)
    num, count = len(graphs), _COUNT.value or len(graphs)
    if _GRAPHS.value or _COUNT.value:
        seeds = f" = {num} graphs, with further seeds of weights" if count > num else ""
        return [make_population(f"{count:,} candidates{seeds}", graphs[:count], count)]
    many = SEEDS * num
    seeds = make_population(f"{many:,} candidates = {num} graphs x {SEEDS} seeds of weights", graphs, many)
    # Peers are timed on the same candidates of both.
    first = {"programs": seeds.programs[:num], "weights": seeds.weights[:num]}
    golden = seeds._replace(name=f"{num} candidates", **first)
    drawn = draw_graphs(many, max(int(program.phase_ends[AFTER]) for program in golden.programs))
    return [golden, seeds, make_population(f"{many:,} candidates, all different graphs", drawn, many)]


# --- this package ---


def train_ours(
    population: Population, places: Sequence[int], data: peers.Data, steps: int, executor: str = AUTO
) -> tuple[np.ndarray, float, float]:
    """Trains candidates with this package, on all devices, as a search does.

    Args:
      population: holds the candidates.
      places: `[C]` of those to train.
      data: `[G, N, T, F]` inputs and `[G, N, O]` targets; step s takes batch s modulo G.
      steps: S, of each candidate.
      executor: one of `EXECUTORS`.

    Returns:
      `[C]` mean losses of the last segment of training; and seconds: those in which all waited for
      candidates that are compiled for themselves, and all.
    """
    setting = make_setting()

    def batches(_: int, kind: int, first: int):
        which = (first * (kind == TRAIN) + np.arange(SEGMENT_STEPS)) % len(data[0])
        return data[0][which], data[1][which]

    # Chunks of those that share compiled programs, as a search has them.
    groups: dict[Any, list[int]] = {}
    for row, place in enumerate(places):
        program = jax.tree.map(lambda leaf: leaf[None], population.programs[place])
        padding = interpreted.find_padding(program, HIDDEN, TIME_STEPS)
        chosen = choose(population.programs[place], executor, steps)
        groups.setdefault((chosen, None if chosen == FUSED else padding), []).append(row)
    losses, compile_s, start = np.full(len(places), np.nan), 0.0, time.perf_counter()
    chunks: dict[bool, list[tuple[str, list[int]]]] = {True: [], False: []}  # by whether they are fused
    for (name, _), rows in groups.items():
        if name == FUSED:  # seeds of a graph after one another: one compilation
            rows.sort(key=lambda row: id(population.programs[places[row]]))
        together = setting.devices * setting.per_device
        cut = [rows[first : first + together] for first in range(0, len(rows), together)]
        chunks[name == FUSED] += [(name, chunk) for chunk in cut]
    # A search trains a chunk of each at the same time: what is fused is compiled beside the other.
    for round_ in itertools.zip_longest(chunks[False], chunks[True]):
        parts = []
        at_once = [each for each in round_ if each is not None]
        for name, chunk in at_once:
            which = [places[row] for row in chunk]
            program = jax.tree.map(lambda *leaves: np.stack(leaves), *(population.programs[c] for c in which))
            weights, steps_of = population.weights[which], np.full(len(which), steps)
            parts.append((name, Trials(program, weights, steps_of, np.zeros(len(which), int))))
        outcomes = train_together(parts, setting, batches)
        for (_, chunk), outcome in zip(at_once, outcomes, strict=True):
            for error in outcome.errors.values():
                raise error
            losses[chunk] = outcome.losses
            compile_s += outcome.compile_seconds
    return losses, compile_s, time.perf_counter() - start


def make_setting() -> Setting:
    """Returns how candidates are trained: on all devices, with the memory that the flag allows."""
    devices = parallel.count_devices()
    memory = parallel.memory_limit(_MEMORY.value, devices)
    lanes = _LANES if parallel.is_cpu() else _ACCELERATOR_LANES
    return Setting(_task(), BATCH, peers.LEARNING_RATE, FEATURES, HIDDEN, devices, lanes, memory)


def choose(program: Program, executor: str, steps: int) -> str:
    """Returns the executor that a search would choose."""
    layout = LAYOUTS[int(find_layout(program))]
    return choose_executor(executor, layout, has_loop(program, TIME_STEPS), steps)


_LANES, _ACCELERATOR_LANES = 32, 1024  # candidates that go through training together on a device


def _task() -> Task:
    """The task whose data are given; one batch of them is the validation data."""
    sizes = dict(in_features=FEATURES, out_features=OUTPUTS, time_steps=TIME_STEPS)
    return make_task("reber", length=TIME_STEPS, valid_samples=BATCH)._replace(**sizes, loss="binary")


def time_ours(population: Population, data: peers.Data, steps: int) -> Timing:
    """Times a population; programs that candidates share are compiled before, by one step of each."""
    everyone = range(len(population.programs))
    start = time.perf_counter()
    chosen = [choose(program, AUTO, steps) for program in population.programs]
    shared = [c for c in everyone if chosen[c] == INTERPRETED]
    if shared:
        train_ours(population, shared[:PEER_CANDIDATES], data, 1, INTERPRETED)
    if BATCHED in chosen:  # compiled for the sizes of its chunks
        train_ours(population, [c for c in everyone if chosen[c] == BATCHED], data, 1, BATCHED)
    shared_s = time.perf_counter() - start
    fused.forget_compiled()  # other numbers of steps before this one have compiled the same candidates
    _, compile_s, seconds = train_ours(population, everyone, data, steps)
    return Timing(compile_s, seconds - compile_s, shared_compile_s=shared_s)


# --- peers ---


def time_peer(way: str, processes: int, population: Population, data: peers.Data, steps: int) -> Timing:
    """Times some steps of some candidates, once for all numbers of steps, and scales them."""
    num = len(population.programs)
    some, few = min(num, PEER_CANDIDATES), min(steps, PEER_STEPS)
    key = (way, processes, some, few)
    if key not in population.timed:
        cells, params = _as_peers_take_them(population, range(some))
        population.timed[key] = peers.train(way, cells, params, data, few, processes)[1:]
    compile_s, seconds = population.timed[key]
    scale = num * steps / (some * few)
    return Timing(compile_s * len(set(map(id, population.programs))), seconds * scale, scale > 1)


def check_losses(population: Population, ways: Sequence[str]) -> None:
    """Raises Mistake unless all ways reach the same losses, on a candidate of each layout at least."""
    layouts = [LAYOUTS[int(find_layout(program))] for program in population.programs]
    places = list(range(min(CHECKED, len(layouts))))
    places += [layouts.index(kind) for kind in LAYOUTS if kind in layouts and kind not in layouts[:CHECKED]]
    data = make_data(CHECK_STEPS)
    ours = _losses_of_ours(population, places, data, FUSED)
    for way in (INTERPRETED, *(() if parallel.is_cpu() else (BATCHED,)), *ways):
        if way in (INTERPRETED, BATCHED):
            theirs = _losses_of_ours(population, places, data, way)
        else:
            theirs = np.array(
                peers.train(way, *_as_peers_take_them(population, places), data, CHECK_STEPS)[0]
            )
        right = np.isclose(theirs, ours, rtol=TOLERANCE, atol=1e-6, equal_nan=True)
        for row, step in np.argwhere(~right)[:1]:
            raise Mistake(
                f"Losses differ, so nothing is timed: candidate {places[row]}, step {step + 1}: "
                f"{ours[row, step]:.6f} (ours), {theirs[row, step]:.6f} ({way})."
            )
    print(f"Losses of {len(places)} candidates agree over {CHECK_STEPS} steps: ours, {', '.join(ways)}.")


def _losses_of_ours(population: Population, places, data: peers.Data, executor: str) -> np.ndarray:
    """Returns `[C, CHECK_STEPS]` losses, from the means over the first steps."""
    means = [train_ours(population, places, data, s + 1, executor)[0] for s in range(CHECK_STEPS)]
    sums = np.stack([mean * (s + 1) for s, mean in enumerate(means)], axis=1)
    return np.diff(sums, axis=1, prepend=0.0)


def _as_peers_take_them(population: Population, places: Sequence[int]) -> tuple[list, list]:
    """Returns cells and parameters of candidates; of equal graphs the same cell."""
    programs = [population.programs[c] for c in places]
    cells = {id(program): peers.read_cell(program, TIME_STEPS) for program in programs}
    params = [peers.true_shapes(program, draw_params(population, c)) for c, program in zip(places, programs)]
    return [cells[id(program)] for program in programs], params


# --- tables ---


def useful_flops(program: Program) -> float:
    """Returns the forward cost of one example, of the steps of each value that the last output needs."""
    schedule = make_schedule(program, TIME_STEPS)
    lengths = np.where(program.rows == TIME, TIME_STEPS, program.rows)
    widths = np.where(program.cols == TIME, TIME_STEPS, program.cols)
    cost = 2.0 * program.hidden_features * program.out_features
    for each in (*schedule.constants, *schedule.before, *schedule.inside, *schedule.after):
        steps = 1 if each in schedule.constants else schedule.window[each.out]
        is_product = each.row is not None and each.row.shape_rule == "matmul"
        inner = 2 * int(widths[each.operands[0][0]]) if is_product else 1
        cost += steps * int(lengths[each.out]) * int(widths[each.out]) * inner
    return float(cost)


HEADER = (
    f"{'steps':>5}  {'way':<5}  {'processes':>9}  {'compile s':>9}  {'total s':>10}   "
    f"{'ms/step/candidate':>17}  {'GFLOP/s':>8}  {'share':>6}"
)


def time_population(
    population: Population, steps: int, ways: Sequence[tuple[str, int]], rate: float
) -> Iterator[dict[str, Any]]:
    """Times a number of steps; prints rows and yields their records, ours first."""
    num, data = len(population.programs), make_data(min(steps, MOST_BATCHES))
    flops, seconds = sum(map(useful_flops, population.programs)), []  # of peers
    for way, processes in (("ours", 1), *ways):
        if way == "ours":
            timing = ours = time_ours(population, data, steps)
        else:
            timing = time_peer(way, processes, population, data, steps)
            seconds.append(timing.compile_s + timing.total_s)
        each = 1e3 * timing.total_s / (steps * num)
        gflops = 3e-9 * BATCH * flops * steps / timing.total_s
        print(
            f"{steps:>5}  {way:<5}  {processes:>9}  {timing.compile_s:>9.1f}  {timing.total_s:>10.2f}"
            f"{'~' if timing.scaled else ' '}  {each:>17.3f}  {gflops:>8.2f}  {gflops / rate:>6.1%}",
            flush=True,
        )
        yield {
            "way": way,
            "population": population.name,
            "graphs": num,
            "steps": steps,
            "processes": processes,
            **timing._asdict(),
            "ms_per_step_and_candidate": each,
            "gflops": gflops,
            "matmul_gflops": rate,
        }
    if ways:
        whole = ours.compile_s + ours.total_s
        print(
            f"       better peer / ours: {min(seconds) / whole:.2f}, compilations of candidates included; "
            f"{min(seconds) / (whole + ours.shared_compile_s):.2f} with the {ours.shared_compile_s:.1f} s "
            "of programs compiled once on a machine",
            flush=True,
        )


def chosen_ways() -> list[tuple[str, int]]:
    """Returns the peers that the flags ask for, and their numbers of processes."""
    ways = [("jit", 1)] if _PEERS.value in ("jit", "all") else []
    if _PEERS.value in ("torch", "all"):
        if peers.torch_version():
            ways += [("torch", processes) for processes in sorted({1, parallel.usable_cores()})]
        elif _PEERS.value == "torch":
            raise Mistake("--peers=torch: PyTorch is not installed.")
        else:
            print("PyTorch is not installed; it is left out.")
    return ways


def benchmark() -> None:
    """Does what the flags say."""
    if not _STEPS.value or not all(re.fullmatch("[1-9][0-9]*", each) for each in _STEPS.value):
        raise Mistake(f"--steps={','.join(_STEPS.value)}: it must be positive whole numbers.")
    # Times of compiling are to be those of a first run.
    jax.config.update("jax_enable_compilation_cache", False)
    parallel.configure_devices()
    ways, steps = chosen_ways(), [int(each) for each in _STEPS.value]
    records: list[dict[str, Any]] = []
    if _JSON.value:  # a file that cannot be written is better known now
        Path(_JSON.value).write_text("[]\n")
    print(machine_line(), flush=True)
    populations = make_populations()
    if ways:
        check_losses(populations[0], list(dict.fromkeys(way for way, _ in ways)))
    rate = matmul_rate()
    print(f"Matrix products [1024, 64] @ [64, 64] on all cores: {rate:.1f} GFLOP/s")
    work = sum(len(population.programs) for population in populations) * sum(steps)
    for population in populations:
        print(f"\n{population.name}\n{HEADER}")
        for num in steps:
            for record in time_population(population, num, ways, rate):
                records.append(record)
                if len(records) == 1:
                    minutes = record["ms_per_step_and_candidate"] * work / 6e4
                    print(f"       at this rate all rows of ours take {minutes:.1f} minutes", flush=True)
                if _JSON.value:
                    Path(_JSON.value).write_text(json.dumps(records, indent=1) + "\n")


def main(_: list[str]) -> None:
    try:
        benchmark()
    except (Mistake, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
