r"""Stacks a block and trains it on real data: tuned on validation data, trained on some seeds, tested once.

  python scripts/retrain.py --block=gru --task=tox21 --run_dir=runs/gru_tox21 --minutes=30
  python scripts/retrain.py --block=runs/small:1 --task=mnist_rows --run_dir=runs/small_mnist --seeds=5
  python scripts/retrain.py --block=found.json --task=csv:mine.csv --run_dir=runs/mine
  python scripts/retrain.py --block=lstm --task=ptb --run_dir=runs/lstm_ptb --config.stack.width=200 \
      --config.stack.dropout=0.2 --minutes=60

A block is a known one, a JSON file with a graph, or a run folder and a rank, best first. Tasks: ptb, tox21,
mnist_rows, mnist_pixels, csv:PATH, npz:PATH, ts:PATH/NAME. Their data are looked for in --data_dir, and
downloaded where there is an official source.

--minutes bounds tuning and training, down to the fewest steps there can be; reading data, and the test at the
end, come on top. Killed or stopped, it goes on when called again. The last line names block, parameters,
validation and test metric.
"""

import shlex
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis.retraining import save_curves
from elenas_jax.experiment.blocks import read_blocks
from elenas_jax.experiment.flags import parse_flags, parse_settings, require, with_recipe
from elenas_jax.experiment.retrain import last_line, retrain
from elenas_jax.experiment.retrain_config import check_retrain_config
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors

_RECIPE = Path(__file__).resolve().parents[1] / "configs" / "retrain" / "default.py"
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, configs/retrain/default.py by default; see --config.key=value too."
)
_BLOCK = flags.DEFINE_string("block", None, "Name of a known block, JSON file, or run folder[:rank].")
_TASK = flags.DEFINE_string("task", None, "Data set, see above.")
_SETTINGS = flags.DEFINE_list(
    "task_settings", [], "Settings of the data set: length=64,validation=fold of tox21."
)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; made if need be.")
_MINUTES = flags.DEFINE_float("minutes", None, "For tuning and training; 5 by default.", lower_bound=0.01)
_SEEDS = flags.DEFINE_integer("seeds", None, "Trainings of the tuned block; 3 by default.", lower_bound=1)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of data files; $ELENAS_DATA_DIR, else ~/.cache/elenas_jax/data, by default."
)


def main(_: list[str]) -> None:
    console = Console(highlight=False, markup=False)
    with one_line_errors():
        require("block", "task", "run_dir")
        given = _CONFIG.value.to_dict()
        given |= {"minutes": _MINUTES.value} if _MINUTES.value else {}
        given |= {"seeds": _SEEDS.value} if _SEEDS.value else {}
        config = check_retrain_config(given, _TASK.value, parse_settings(_SETTINGS.value))
        [(name, graph)] = read_blocks([_BLOCK.value]).items()
        folder = Path(_RUN_DIR.value)
        result = retrain(name, graph, config, folder, data_dir=_DATA_DIR.value, console=console)
        if result is None:
            command = shlex.join([Path(sys.executable).name, *sys.argv])
            console.print(f"Stopped; what was trained is kept. To go on: {command}", soft_wrap=True)
            sys.exit(INTERRUPTED)
        console.print(f"Curves: {save_curves(folder)}", soft_wrap=True)
        console.print(last_line(result), soft_wrap=True)


if __name__ == "__main__":
    app.run(main, argv=with_recipe(sys.argv, _RECIPE), flags_parser=parse_flags)
