r"""Times populations on one device and on several, and of 64 to 4,096 candidates.

  python scripts/benchmark_scaling.py --json=scaling.json        # a quarter of an hour on two cores
  python scripts/benchmark_scaling.py --counts=64 --steps=60

The graphs are those of benchmark_evaluation.py, with further seeds of weights where there are more
candidates than graphs; how they are trained is said there. Every measurement is a process of its own, pinned
to as many cores as it has devices. What all candidates share is compiled before the
clock starts; what is compiled for one candidate is in the time. Runs with one device and with
several take turns, --runs of each; times are medians, their ratio is the median of ratios within turns.

"possible" is how many times the work of one process so many processes of one device each do in the same time,
on a core each: more than that no program can gain on a machine that others use too.

Losses must be the same bits on any number of devices, else the exit status is 1.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benchmark_evaluation as evaluation
import jax
from absl import app, flags
from benchmark_machine import machine_line
from evaluation_peers import Mistake

from elenas_jax.evaluation import fused, parallel
from elenas_jax.evaluation.executors import AUTO, INTERPRETED
from elenas_jax.experiment.flags import parse_flags

# Functions of that benchmark are used here; its flags would be accepted and do nothing.
_MEMORY = flags.FLAGS["memory_gib"]
for _flag in list(flags.FLAGS.get_flags_for_module(evaluation)):
    if _flag is not _MEMORY:
        delattr(flags.FLAGS, _flag.name)

_COUNTS = flags.DEFINE_list("counts", ["64", "256", "1024", "4096"], "Numbers of candidates.")
_STEPS = flags.DEFINE_list("steps", ["60", "625"], "Training steps, for the fewest candidates.")
_FLAT_STEPS = flags.DEFINE_integer(
    "flat_steps", 20, "Training steps, for all numbers of candidates.", lower_bound=1
)
_DEVICES = flags.DEFINE_integer(
    "devices", 0, "Devices to compare one with; 0 for one on each core.", lower_bound=0
)
_RUNS = flags.DEFINE_integer("runs", 3, "Measurements of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file, a JSON list.")
_ONE = flags.DEFINE_string("one", None, "For the script itself: count,steps,devices of one measurement.")

_FIRST_CORE = flags.DEFINE_integer("first_core", 0, "For the script itself: of one measurement.")


def measure_here(count: int, steps: int) -> dict[str, Any]:
    """Trains one population on all devices of this process."""
    graphs = evaluation.read_graphs(evaluation.GOLDEN)
    population = evaluation.make_population("", graphs[:count], count)
    data = evaluation.make_data(min(steps, evaluation.MOST_BATCHES))
    shared = [c for c in range(min(count, len(graphs))) if _is_interpreted(population, c, steps)]
    if shared:
        evaluation.train_ours(population, shared, data, 1, INTERPRETED)
    fused.forget_compiled()
    losses, _, seconds = evaluation.train_ours(population, range(count), data, steps)
    return {"seconds": seconds, "losses": hashlib.sha256(losses.tobytes()).hexdigest()}


def _is_interpreted(population: evaluation.Population, place: int, steps: int) -> bool:
    return evaluation.choose(population.programs[place], AUTO, steps) == INTERPRETED


def measure(count: int, steps: int, devices: int, copies: int = 1) -> dict[str, Any]:
    """Measures in a process of its own, on as many cores as devices; of several at once, the slowest."""
    command = [sys.executable, __file__, f"--one={count},{steps},{devices}", f"--memory_gib={_MEMORY.value}"]
    # As many threads for all, else products add up in another order (see `parallel.configure_devices`).
    environment = os.environ | {"NPROC": str(parallel.usable_cores())}
    running = [
        subprocess.Popen(
            [*command, f"--first_core={copy * devices}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for copy in range(copies)
    ]
    found = []
    for process in running:
        out, err = process.communicate()
        if process.returncode:
            raise Mistake(f"{count} candidates, {steps} steps, {devices} devices: {err.strip()[-500:]}")
        found.append(json.loads(out.splitlines()[-1]))
    return max(found, key=lambda each: each["seconds"])


def compare(count: int, steps: int, many: int) -> dict[str, Any]:
    """Measures on one device, on many, and on one in many processes at once, in turns."""
    turns = [
        {
            1: measure(count, steps, 1),
            many: measure(count, steps, many),
            0: measure(count, steps, 1, copies=many),
        }
        for _ in range(_RUNS.value)
    ]
    times = {which: [turn[which]["seconds"] for turn in turns] for which in (1, many, 0)}
    return {
        "candidates": count,
        "steps": steps,
        "devices": many,
        "seconds_on_one": statistics.median(times[1]),
        "seconds": statistics.median(times[many]),
        "speedup": statistics.median(one / more for one, more in zip(times[1], times[many], strict=True)),
        # That many independent processes, each on a core, do that many times the work: what cores give.
        "possible": many
        * statistics.median(one / all_ for one, all_ in zip(times[1], times[0], strict=True)),
        "same_losses": len({turn[devices]["losses"] for turn in turns for devices in turn}) == 1,
        "ms_per_candidate": 1e3 * statistics.median(times[many]) / count,
    }


HEADER = "candidates  steps  one device, s  devices        s  speedup  possible  ms a candidate  losses"


def row_line(row: dict[str, Any]) -> str:
    line = f"{row['candidates']:>10,}  {row['steps']:>5}  {row['seconds_on_one']:>13.1f}  {row['devices']:>7}"
    line += f"  {row['seconds']:>7.1f}  {row['speedup']:>7.2f}  {row['possible']:>8.2f}  "
    return line + f"{row['ms_per_candidate']:>14.1f}  " + ("equal" if row["same_losses"] else "DIFFERENT")


def benchmark() -> int:
    """Does what the flags say; returns the exit status."""
    counts, steps = ([_positive(each, flag) for each in flag.value] for flag in (_COUNTS, _STEPS))
    parallel.configure_devices(_DEVICES.value)
    many = parallel.count_devices()
    if many < 2:
        raise Mistake("There is one device; scaling takes two or more.")
    if many > parallel.usable_cores():
        raise Mistake(f"--devices={many}: there are {parallel.usable_cores()} cores to pin them to.")
    print(machine_line().split("; PyTorch")[0])
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    points = [(min(counts), each) for each in steps] + [(count, _FLAT_STEPS.value) for count in counts]
    for count, num in points:
        rows.append(compare(count, num, many))
        print(row_line(rows[-1]), flush=True)
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["same_losses"] for row in rows) else 1


def _positive(text: str, flag: flags.FlagHolder) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise Mistake(f"--{flag.name}={','.join(flag.value)}: it must be positive whole numbers.")
    return int(text)


def main(_: list[str]) -> None:
    try:
        if _ONE.value:
            count, steps, devices = map(int, _ONE.value.split(","))
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[_FIRST_CORE.value : _FIRST_CORE.value + devices])
            jax.config.update("jax_enable_compilation_cache", False)
            parallel.configure_devices()
            print(json.dumps(measure_here(count, steps)))
            return
        status = benchmark()
    except (Mistake, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
