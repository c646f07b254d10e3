r"""Retrains the best candidate of a search on training and validation data, and tests it once.

  python scripts/retrain_best.py --run_dir=runs/mixed --json=runs/mixed/test.json
  python scripts/retrain_best.py --run_dir=runs/mixed --rank=2 --seeds=0..2 --epochs=16
  python scripts/retrain_best.py --run_dir=runs/mixed --start=transformer

For searches whose candidates are trained one by one on a data set (evaluator.name is "individual"). Epochs
are evaluator.eval_epochs of the run's config unless --epochs says otherwise. The last line names parameters
and test metric; --json is a file for all of it. Killed, it goes on from the last finished epoch when called
again.
"""

import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.evaluation.parallel import configure_devices
from elenas_jax.experiment.flags import check_writable, parse_flags, parse_seeds, require
from elenas_jax.experiment.retrain_best import last_line, retrain_best
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import write_json
from elenas_jax.experiment.session import one_line_errors

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the search.")
_RANK = flags.DEFINE_integer("rank", 1, "Of the candidate, the best is 1.", lower_bound=1)
_START = flags.DEFINE_string(
    "start", "", "An architecture that the search started from (space.seeds), instead of a rank."
)
_SEEDS = flags.DEFINE_string("seeds", "0", "Trainings, 0..2 or 0,3: weights and order of examples differ.")
_EPOCHS = flags.DEFINE_integer("epochs", None, "Instead of those of the config.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for the result.")


def main(_: list[str]) -> None:
    console = Console(highlight=False, markup=False)
    with one_line_errors():
        require("run_dir")
        if _START.value and _RANK.present:
            raise ConfigError(f"--start={_START.value} --rank={_RANK.value}: give one of the two.")
        seeds = parse_seeds(_SEEDS.value)
        check_writable("json", _JSON.value)  # better known now than after the training
        configure_devices(1)

        def on_epoch(seed: int, done: int, epochs: int) -> None:
            console.print(f"seed {seed}: epoch {done} of {epochs}")

        def on_result(result: dict[str, Any]) -> None:
            console.print(last_line(result), soft_wrap=True)
            if _JSON.value:
                write_json(Path(_JSON.value), result)

        retrain_best(
            _RUN_DIR.value,
            _RANK.value,
            seeds,
            start=_START.value,
            epochs=_EPOCHS.value,
            on_epoch=on_epoch,
            on_result=on_result,
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
