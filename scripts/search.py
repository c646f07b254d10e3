r"""Runs a search, or goes on with it where it was interrupted.

  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/small
  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/small --seeds=0..4
  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/wide \
      --config.evaluator.hidden_features=128 --config.minutes=30

Calling it again on the same folder goes on, with the same version to the same bits. Ctrl-C ends it with
everything saved. `scripts/report.py --run_dir=...` draws what came out.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # recipes import their parents as configs.elenas...

from elenas_jax.experiment.archive import write_export
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, parse_seeds, require
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, run

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file in configs/; see --config.key=value too."
)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; made if need be.")
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Seeds of repeated runs, 0..4 or 0,3,5: folders seed_0, ... in --run_dir."
)
_EXPORT = flags.DEFINE_string(
    "export", None, "Also write all candidates, without times, as JSON lines to this file."
)


def main(_: list[str]) -> None:
    with one_line_errors():
        require("config", "run_dir")
        root = Path(_RUN_DIR.value)
        seeds = parse_seeds(_SEEDS.value) if _SEEDS.value else [None]
        for seed in seeds:
            config = check_config(_CONFIG.value) | ({} if seed is None else {"seed": seed})
            folder = root if seed is None else root / f"seed_{seed}"
            if not run(config, folder).why:
                sys.exit(INTERRUPTED)
            if _EXPORT.value:
                name = Path(_EXPORT.value)
                write_export(folder, name if seed is None else name.with_stem(f"{name.stem}_{seed}"))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
