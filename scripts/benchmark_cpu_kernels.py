r"""Times convolutions and whole networks on XLA's CPU backend, by how and where they are computed.

  python scripts/benchmark_cpu_kernels.py             # some minutes on two cores
  python scripts/benchmark_cpu_kernels.py --runs=5 --json=kernels.json

Why networks of einspace have some convolutions as products with patches
(elenas_jax/spaces/einspace_convolution.py), and why large networks are trained by a call a step instead of
a compiled loop (elenas_jax/evaluation/network_training.py). First single convolutions, gradients with
respect to inputs and weights: XLA's own, the product with patches, and XLA's own within a loop of steps.
Then a training step of published architectures at 3x28x28, called, and as one of two in a loop. Seconds
are of the processor, medians of --runs.
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
from absl import app, flags
from benchmark_machine import machine_line

from elenas_jax.evaluation import parallel
from elenas_jax.experiment.flags import check_writable, parse_flags
from elenas_jax.experiment.session import one_line_errors
from elenas_jax.spaces.einspace_canonical import simplify
from elenas_jax.spaces.einspace_convolution import convolve
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_network import make_network
from elenas_jax.spaces.einspace_seeds import make_seed
from elenas_jax.spaces.einspace_typing import infer, state_of

_BATCH = flags.DEFINE_integer("batch", 64, "Examples of a step.", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", 3, "Measurements of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file, a JSON list.")

LOOP_STEPS, CLASSES = 2, 10
NETWORKS = ("resnet18_no_maxpool", "transformer", "mlp_mixer")


class Case(NamedTuple):
    """A convolution."""

    about: str
    channels: int
    side: int
    width: int
    kernel: int
    stride: int = 1
    copies: int = 0  # side by side, with weights of their own


CASES = (
    Case("3x3, more places than the output", 512, 2, 512, 3),
    Case("3x3, one for each of 4 copies", 64, 14, 64, 3, copies=4),
    Case("8x8 windows that do not overlap", 3, 64, 64, 8, stride=8),
    Case("3x3, any other", 64, 14, 64, 3),
)


def processor_seconds(run: Callable[[], Any]) -> float:
    """Returns the median time of a call, after one that compiles."""
    jax.block_until_ready(run())
    found = []
    for _ in range(_RUNS.value):
        start = time.process_time()
        jax.block_until_ready(run())
        found.append(time.process_time() - start)
    return statistics.median(found)


def gradient_of(case: Case, way: str) -> Callable:
    """Returns `(inputs, weights) -> gradients` of a sum of squares of the outputs."""
    padding = ((case.kernel // 2,) * 2,) * 2 if case.stride == 1 else ((0, 0),) * 2

    def apply(inputs, weights):
        if way == "product":
            return convolve(inputs, weights, (case.kernel,) * 2, case.stride, padding, stacked=True)
        shaped = weights.reshape(case.channels, case.kernel, case.kernel, case.width)
        numbers = ("NCHW", "IHWO", "NCHW")
        return jax.lax.conv_general_dilated(
            inputs, shaped, (case.stride,) * 2, padding, dimension_numbers=numbers
        )

    whole = jax.vmap(apply) if case.copies else apply
    return jax.grad(lambda inputs, weights: jnp.sum(jnp.square(whole(inputs, weights))), argnums=(0, 1))


def looped(step: Callable) -> Callable:
    """Returns a function that takes steps of gradient descent in one compiled loop."""

    def run(inputs, weights):
        def body(_, weights):
            gradient = step(inputs, weights)
            return jax.tree.map(lambda leaf, slope: leaf - 1e-3 * slope, weights, gradient[1])

        return jax.lax.fori_loop(0, LOOP_STEPS, body, weights)

    return run


def time_case(case: Case) -> dict[str, Any]:
    """Times a convolution in three ways."""
    front = (case.copies,) if case.copies else ()
    inputs = jax.random.normal(jax.random.key(0), (*front, _BATCH.value, case.channels, case.side, case.side))
    size = case.channels * case.kernel**2
    weights = 0.01 * jax.random.normal(jax.random.key(1), (*front, size, case.width))
    own = gradient_of(case, "own")
    times = {
        "own": compiled(own, inputs, weights),
        "product": compiled(gradient_of(case, "product"), inputs, weights),
        "looped": compiled(looped(own), inputs, weights) / LOOP_STEPS,
    }
    return {"what": case.about, **times}


def compiled(fn: Callable, *arguments: Any) -> float:
    """Returns the time of a call of a function that is compiled as trainings are."""
    run = parallel.compile_on(0, jax.jit(fn).trace(*arguments), parallel.compiler_options())
    return processor_seconds(lambda: run(*arguments))


def time_network(name: str) -> dict[str, Any]:
    """Times a training step of a published architecture, called and in a loop."""
    shape = (3, 28, 28)
    typed = simplify(infer(make_seed(name, make_einspace_grammar()), state_of(shape)))
    network = make_network(typed, out_features=CLASSES)
    params, state = network.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_BATCH.value, *shape))
    labels = jax.nn.one_hot(jnp.arange(_BATCH.value) % CLASSES, CLASSES)

    def loss(inputs, params):
        outputs, _ = network.apply(params, state, inputs, train=True)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(outputs) * labels, axis=-1))

    step = jax.grad(loss, argnums=(0, 1))
    called = compiled(step, inputs, params)
    return {
        "what": name,
        "own": called,
        "product": None,
        "looped": compiled(looped(step), inputs, params) / LOOP_STEPS,
    }


def main(_: list[str]) -> None:
    with one_line_errors():
        check_writable("json", _JSON.value)
        parallel.configure_devices(1)
        print(machine_line().split("; PyTorch")[0])
        print(f"{'milliseconds of the processor':<34}  {'called':>8}  {'product':>8}  {'in a loop':>9}")
        rows = []
        for measure, cases in ((time_case, CASES), (time_network, NETWORKS)):
            for case in cases:
                rows.append(row := measure(case))
                product = "-" if row["product"] is None else f"{1e3 * row['product']:.1f}"
                print(
                    f"{row['what']:<34}  {1e3 * row['own']:>8.1f}  {product:>8}  {1e3 * row['looped']:>9.1f}",
                    flush=True,
                )
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
