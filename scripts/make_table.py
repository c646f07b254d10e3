r"""Trains every block of a small space and writes a table that searches look their evaluations up in.

  python scripts/make_table.py --to=elenas_jax/evaluation/tables/elenas_v1.json
  python scripts/make_table.py --to=some.json --limit=30 --config.tasks.reber.steps=100

The space, the ladder and the trainings are those of --config; thresholds of the ladder stop nobody.
Trainings are kept in --run_dir, so calling again after a kill goes on with the chunk that was in flight.
Then: `--config.evaluator.table=some.json` of any search, or scripts/replay_table.py.
"""

import sys
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, with_recipe
from elenas_jax.experiment.progress import duration
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors, prepare
from elenas_jax.experiment.table import make_table

_ROOT = Path(__file__).resolve().parents[1]
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe whose space, ladder and trainings are used; configs/elenas/table.py by default."
)
_TO = flags.DEFINE_string("to", None, "File of the table; ends in .json.")
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/make_table", "Folder of what is trained; made if need be.")
_REPLICATES = flags.DEFINE_integer("replicates", 3, "Trainings of each block.", lower_bound=1)
_LIMIT = flags.DEFINE_integer("limit", 0, "Blocks at most, a random choice; 0 is all of them.", lower_bound=0)


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        to = Path(_TO.value or "").resolve()
        if to.suffix != ".json" or not to.parent.is_dir():
            raise ConfigError(f"--to={_TO.value}: it must be a .json file in a folder that is there.")
        config = check_config(_CONFIG.value)
        prepare(config, console)
        started = time.perf_counter()

        def on_start(num_blocks: int, plan: dict) -> None:
            text = f"{num_blocks} blocks, {_REPLICATES.value} trainings each on {', '.join(config['ladder'])}"
            console.print(f"{text}; {plan['devices']}: {plan['executors']}", soft_wrap=True)

        def on_chunk(done: int, total: int, trained: int) -> None:
            gone = time.perf_counter() - started
            left = f", {duration(gone / trained * (total - done))} left" if trained else ""
            console.print(f"{done} of {total} trainings, {duration(gone)}{left}", soft_wrap=True)

        make_table(
            config,
            Path(_RUN_DIR.value),
            to,
            replicates=_REPLICATES.value,
            limit=_LIMIT.value,
            on_start=on_start,
            on_chunk=on_chunk,
        )
        console.print(f"Table: {to}", soft_wrap=True)


if __name__ == "__main__":
    app.run(main, argv=with_recipe(sys.argv, _ROOT / "configs/elenas/table.py"), flags_parser=parse_flags)
