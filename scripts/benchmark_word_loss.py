r"""Times the loss of a language model and its gradient: in parts, and as one array.

  python scripts/benchmark_word_loss.py
  python scripts/benchmark_word_loss.py --widths=64,256 --runs=9 --json=word_loss.json

"in parts" is elenas_jax/evaluation/word_loss.py, "whole" the dense layer and optax's cross entropy under
jax.grad. 32 streams of 35 words, a vocabulary of 10,000, one device; the two take turns, times are medians of
--runs, their ratio is the median of ratios within turns. Losses and gradients must agree, else the exit
status is 1.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from benchmark_machine import machine_line

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.word_loss import mean_word_loss
from elenas_jax.experiment.flags import parse_flags

ROWS, WORDS, STEPS = 32 * 35, 10_000, 4

_WIDTHS = flags.DEFINE_list("widths", ["64", "128", "256"], "Features that the layer reads.")
_RUNS = flags.DEFINE_integer("runs", 5, "Measurements of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the rows to this file, a JSON list.")


def whole_loss(output, x, words):
    logits = x @ output["kernel"] + output["bias"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, words))


def steps_of(loss):
    """Returns a compiled function that takes some steps of gradient descent, as a training does."""

    def step(output, words_and_x):
        words, x = words_and_x
        value, (grads, of_x) = jax.value_and_grad(loss, argnums=(0, 1))(output, x, words)
        output = jax.tree.map(lambda leaf, grad: leaf - grad, output, grads)
        return output, (value, jnp.sum(of_x))

    return jax.jit(lambda output, words, x: jax.lax.scan(step, output, (words, x))[1])


def compare(width: int) -> dict[str, float]:
    """Times both at one width."""
    rng = np.random.default_rng(0)
    output = {
        "kernel": rng.normal(size=(width, WORDS)).astype(np.float32) / np.sqrt(width),
        "bias": np.zeros(WORDS, np.float32),
    }
    words = rng.integers(0, WORDS, (STEPS, ROWS))
    x = rng.normal(size=(STEPS, ROWS, width)).astype(np.float32)
    losses = {"parts": mean_word_loss, "whole": whole_loss}
    found = [jax.value_and_grad(loss, argnums=(0, 1))(output, x[0], words[0]) for loss in losses.values()]
    functions = {name: steps_of(loss) for name, loss in losses.items()}
    for function in functions.values():
        jax.block_until_ready(function(output, words, x))  # compiled
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(_RUNS.value):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(output, words, x))
            seconds[name].append((time.perf_counter() - start) / STEPS)
    ratios = [whole / parts for parts, whole in zip(seconds["parts"], seconds["whole"], strict=True)]
    times = {f"{name}_ms": 1e3 * statistics.median(each) for name, each in seconds.items()}
    # Gradients are means over rows: their largest is the measure of what may differ.
    pairs = zip(*(jax.tree.leaves(each) for each in found), strict=True)
    agree = all(np.max(np.abs(one - other)) <= 1e-4 * np.max(np.abs(other)) for one, other in pairs)
    return {"width": width, **times, "ratio": statistics.median(ratios), "agree": agree}


def main(_: list[str]) -> None:
    if not all(width.isdecimal() and int(width) for width in _WIDTHS.value):
        print(f"error: --widths={','.join(_WIDTHS.value)}: they must be positive.", file=sys.stderr)
        sys.exit(2)
    parallel.configure_devices(1)
    print(machine_line().split("; PyTorch")[0])
    print("width  in parts, ms  whole, ms  whole / parts  losses")
    rows = []
    for width in map(int, _WIDTHS.value):
        row = compare(width)
        rows.append(row)
        print(
            f"{width:>5}  {row['parts_ms']:>12.0f}  {row['whole_ms']:>9.0f}  {row['ratio']:>13.2f}  "
            + ("equal" if row["agree"] else "DIFFERENT"),
            flush=True,
        )
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if all(row["agree"] for row in rows) else 1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
