r"""Searches from nothing until the first block is over a bar, and says when that was.

  python scripts/first_block.py --bar=paper --seed=0 --minutes=10
  python scripts/first_block.py --bar=lstm --seed=0 --minutes=30 --json=found.json
  python scripts/first_block.py --bar=memory --seed=0 --minutes=180

Bars:
  paper          the thresholds of Aichberger and Klambauer (2023) on adding, Reber and embedded Reber with
                 random negatives, at their numbers of samples, one epoch, with a linear head
  paper_no_head  the same without a head: the block's last node is the output
  lstm           near misses; over ten seeds the mean of each task is at least that of the LSTM over the
                 same seeds, less 0.01, with at most half of its parameters
  memory         the same, but nothing less and a quarter of the parameters; and on the memory task, at every
                 length from 20 to 80 over ten seeds, at least the LSTM's mean and the paper's of ELENA2

The recipe is configs/elenas/first_block.py. Evaluations are different candidates that were trained; the
seconds are all there are, trainings of further seeds and of the LSTM included, and --minutes is their
limit, the generation in flight and its judging apart. Interrupted, it goes on when called again, first with
judging what was not judged; what was spent on a judging that was killed is not counted. FILE of --json
holds one object, also when nothing was found: found, bar, seed, seconds, evaluations, equations,
parameters, graph, metrics (by task, one a seed; memory_LENGTH too). The exit status is 0 either way.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.elenas import first_block
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.first_block import search_for
from elenas_jax.experiment.flags import check_writable, parse_flags
from elenas_jax.experiment.run_dir import write_json
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare

_BAR = flags.DEFINE_enum("bar", "paper", first_block.BARS, "What a block has to reach.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the run.", lower_bound=0, upper_bound=2**32 - 1)
_MINUTES = flags.DEFINE_float("minutes", 30.0, "When to stop looking.", lower_bound=0.01)
_JSON = flags.DEFINE_string("json", None, "Also write what came out to this file.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; runs/first_block/BAR_SEED by default.")


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
        check_writable("json", _JSON.value)
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
