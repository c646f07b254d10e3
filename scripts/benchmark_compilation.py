r"""Times what an einspace network costs to compile, by the form that it is compiled in.

  python scripts/benchmark_compilation.py                      # about ten minutes on two cores
  python scripts/benchmark_compilation.py --samples=0 --capped=0 --runs=1 --json=compilation.json
  python scripts/benchmark_compilation.py --samples=0 --runs=0              # budgets and the cache alone

A program is one training step: forward, backward and gradient descent. Forms, each with those above it:

  plain      patches are unfolded, multiplied and folded; copies of branches and repeats stand one by one
  folded     ... are convolutions
  stacked    copies of a shared branch are one layer under vmap
  scanned    what a sequence repeats is one layer under scan; as networks are built by default

First the published architectures: seconds of tracing and lowering, of XLA, of compiling the drawing of
weights, instructions that XLA is given, and the median time of a step. Then random architectures (strict
rules, budgets of the space): mean, median and 95% quantile of tracing, lowering and XLA together. Last what
budgets and the cache save: as many random architectures under each of several budgets, compiled each
time they are drawn, and once for each different network. Compiler
options are those of training. Seconds are of the processor, so that a busy machine changes them little;
XLA compiles in several threads, and by the clock it takes less.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from elenas_jax.evaluation import parallel
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors
from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_network import Form, make_network
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, make_seed
from elenas_jax.spaces.einspace_typing import Typed, infer, state_of
from elenas_jax.types import Network

_BATCH = flags.DEFINE_integer("batch", 64, "Examples of a step.", lower_bound=1)
_INPUT = flags.DEFINE_string("input", "3x28x28", "Shape of an example, CxHxW.")
_RUNS = flags.DEFINE_integer(
    "runs", 3, "Timed steps of the published architectures; 0 leaves them out.", lower_bound=0
)
_SAMPLES = flags.DEFINE_integer("samples", 40, "Random architectures.", lower_bound=0)
_CAPPED = flags.DEFINE_integer("capped", 200, "Random architectures for each of the budgets.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the random architectures.")
_JSON = flags.DEFINE_string("json", None, "Also write the measurements to this file.")

CLASSES = 10
BUDGET = Budget(nodes=512, parameters=50_000_000, activations=32_000_000, depth=100)
# Most nodes, parameters and activations; the last two are of configs/einspace.
CAPS = (BUDGET, Budget(512, 12_000_000, 4_000_000, 100), Budget(512, 2_000_000, 150_000, 100))
FORMS = {
    "plain": Form(fold_convolutions=False, stack_branches=False, scan_repeats=False),
    "folded": Form(stack_branches=False, scan_repeats=False),
    "stacked": Form(scan_repeats=False),
    "scanned": Form(),
}


class Measured(NamedTuple):
    """What one program costs; seconds."""

    lowering: float
    compiling: float
    initialising: float
    instructions: int
    step: float  # by the clock; NaN if it was not run


def measure(network: Network, shape: tuple[int, ...], batch: int, runs: int) -> Measured:
    """Compiles a training step of a network, and runs it `runs` times."""

    def loss_of(params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = network.apply(params, state, inputs, train=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(chosen), state

    def step(params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        gradient, state = jax.grad(loss_of, has_aux=True)(params, state, inputs, labels)
        return jax.tree.map(lambda leaf, slope: leaf - 0.01 * slope, params, gradient), state

    options = parallel.compiler_options()
    key = jax.random.key(0)
    initialising, (params, state) = seconds_of(lambda: jax.block_until_ready(network.init(key)))
    inputs, labels = jnp.ones((batch, *shape)), jnp.zeros(batch, jnp.int32)
    lowering, lowered = seconds_of(lambda: jax.jit(step).lower(params, state, inputs, labels))
    instructions = lowered.as_text().count(" = ")
    compiling, compiled = seconds_of(lambda: lowered.compile(compiler_options=options))
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        jax.block_until_ready(compiled(params, state, inputs, labels))
        times.append(time.perf_counter() - started)
    median = statistics.median(times) if times else float("nan")
    return Measured(lowering, compiling, initialising, instructions, median)


def seconds_of(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def network_of(typed: Typed, form: Form) -> Network:
    return make_network(simplify(typed), out_features=CLASSES, form=form)


def show_seeds(shape: tuple[int, ...]) -> dict[str, Any]:
    """Prints the table of published architectures."""
    grammar = make_einspace_grammar(num_axes=len(shape))
    print(f"{'network':<20}  {'form':<8}  lower s  compile s  init s  instructions  step ms")
    rows = {}
    for name in MIXED_SEEDS:
        typed = infer(make_seed(name, grammar), state_of(shape), grammar=grammar)
        for form_name, form in FORMS.items():
            found = measure(network_of(typed, form), shape, _BATCH.value, _RUNS.value)
            rows[f"{name}, {form_name}"] = found._asdict()
            print(
                f"{name:<20}  {form_name:<8}  {found.lowering:>7.2f}  {found.compiling:>9.2f}  "
                f"{found.initialising:>6.2f}  {found.instructions:>12,}  {1000 * found.step:>7.0f}",
                flush=True,
            )
    return rows


def show_samples(shape: tuple[int, ...]) -> dict[str, Any]:
    """Prints the table of random architectures."""
    grammar = make_einspace_grammar(num_axes=len(shape))
    options, rng = make_options(grammar, "strict"), np.random.default_rng(_SEED.value)
    drawn = [draw(rng, options, state_of(shape), budget=BUDGET).typed for _ in range(_SAMPLES.value)]
    print(f"\n{_SAMPLES.value} random networks, seconds to compile a step of each")
    print(f"{'form':<8}   mean  median    95%    max")
    rows = {}
    for name, form in FORMS.items():
        found = [measure(network_of(typed, form), shape, _BATCH.value, 0) for typed in drawn]
        seconds = [each.lowering + each.compiling for each in found]
        rows[name] = {
            "mean": statistics.fmean(seconds),
            "median": statistics.median(seconds),
            "95%": float(np.quantile(seconds, 0.95)),
            "max": max(seconds),
        }
        mean, median, high, most = rows[name].values()
        print(f"{name:<8}  {mean:>5.2f}  {median:>6.2f}  {high:>5.2f}  {most:>5.2f}", flush=True)
    return rows


def show_caps(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Prints the table of budgets, each with and without a cache of networks."""
    grammar = make_einspace_grammar(num_axes=len(shape))
    options = make_options(grammar, "strict")
    print(f"\n{_CAPPED.value} random networks under each budget, seconds to compile a step of each")
    print(" parameters  activations   mean    95%  different  mean with a cache")
    rows = []
    for budget in CAPS:
        rng, seconds, kept = np.random.default_rng(_SEED.value), [], {}
        for _ in range(_CAPPED.value):
            typed = draw(rng, options, state_of(shape), budget=budget).typed
            form = network_text(simplify(typed))
            if form not in kept:
                found = measure(network_of(typed, FORMS["scanned"]), shape, _BATCH.value, 0)
                kept[form] = found.lowering + found.compiling
            seconds.append(kept[form])
        rows.append(
            {
                "parameters": budget.parameters,
                "activations": budget.activations,
                "mean": statistics.fmean(seconds),
                "95%": float(np.quantile(seconds, 0.95)),
                "different": len(kept),
                "cached": sum(kept.values()) / len(seconds),
            }
        )
        parameters, activations, mean, high, different, cached = rows[-1].values()
        print(
            f"{parameters:>11,}  {activations:>11,}  {mean:>5.2f}  {high:>5.2f}  {different:>9}  "
            f"{cached:>17.2f}",
            flush=True,
        )
    return rows


def shape_of(text: str) -> tuple[int, ...]:
    sides = text.split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"--input is {text!r}; it must be channels, rows and columns, say 3x28x28.")
    return tuple(int(side) for side in sides)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    with one_line_errors():
        shape = shape_of(_INPUT.value)
        print(f"JAX {jax.__version__}, {_BATCH.value} examples of {_INPUT.value}")
        found: dict[str, Any] = {"seeds": show_seeds(shape)} if _RUNS.value else {}
        if _SAMPLES.value:
            found["samples"] = show_samples(shape)
        if _CAPPED.value:
            found["caps"] = show_caps(shape)
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
