r"""Compares strategies at equal numbers of evaluations, over several seeds.

  python scripts/compare_strategies.py --run_dir=runs/compare --evaluations=96 --seeds=0..2

Runs every strategy on the tasks of --config (the quickstart's unless told otherwise), then prints,
for each, the best score after a quarter, half and all of the evaluations, and the mean score of the
last half: mean and spread over seeds. An evaluation is a valid candidate that was not met before
and was trained; draws are printed beside. Interrupted, it goes on when called again.
"""

import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis import candidates
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, parse_seeds
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, run
from elenas_jax.strategies import STRATEGIES

_ROOT = Path(__file__).resolve().parents[1]
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(_ROOT / "configs/elenas/quickstart.py"), "Recipe whose tasks and space are used."
)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/compare", "Folder of the runs; made if need be.")
_STRATEGIES = flags.DEFINE_list("strategies", ["random_search", "reinforce"], "Names of strategies.")
_EVALUATIONS = flags.DEFINE_integer("evaluations", 96, "Evaluations of each run.", lower_bound=4)
_SEEDS = flags.DEFINE_string("seeds", "0..2", "Seeds, 0..2 or 0,3,5; at least two.")


def scores_in_order(folder: Path, num: int) -> tuple[np.ndarray, int]:
    """Returns the scores of the first `num` evaluations of a run, and the draws they took."""
    rows = candidates(folder)
    new = [place for place, row in enumerate(rows) if row["is_new"]][:num]
    if len(new) < num:
        raise ConfigError(f"{folder} holds {len(new)} evaluations, not {num}: budgets would be unequal.")
    return np.array([rows[place]["score"] for place in new]), new[-1] + 1


def main(arguments: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        if len(arguments) > 1:
            raise ConfigError(f"{arguments[1]!r} is no flag; see --helpshort.")
        seeds = parse_seeds(_SEEDS.value)
        if len(seeds) < 2:
            raise ConfigError(f"--seeds={_SEEDS.value}: single seeds are not compared.")
        for name in _STRATEGIES.value:
            if name not in STRATEGIES:
                raise ConfigError(f"--strategies: {name!r} is unknown; known are {', '.join(STRATEGIES)}.")
        num = _EVALUATIONS.value
        marks = (num // 4, num // 2, num)
        table = Table(title=f"{num} evaluations a run, seeds {_SEEDS.value}: score, mean ± spread over seeds")
        columns = [f"best of {mark}" for mark in marks]
        for column in ("strategy", *columns, "mean of last half", "draws"):
            table.add_column(column, justify="left" if column == "strategy" else "right")
        for name in _STRATEGIES.value:
            found = []
            for seed in seeds:
                config = _CONFIG.value.copy_and_resolve_references()
                settings = config.strategy if config.strategy.name == name else {"name": name}
                resolved = check_config(
                    config.to_dict()
                    | {"strategy": dict(settings), "seed": seed, "evaluations": num, "minutes": 0.0}
                )
                folder = Path(_RUN_DIR.value) / name / f"seed_{seed}"
                if not run(resolved, folder, console=console).why:
                    sys.exit(INTERRUPTED)
                found.append(scores_in_order(folder, num))
            best = np.array([[scores[:mark].max() for mark in marks] for scores, _ in found])
            late = np.array([scores[num // 2 :].mean() for scores, _ in found])
            cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(best.mean(0), best.std(0), strict=True)]
            draws = np.mean([draws for _, draws in found])
            table.add_row(name, *cells, f"{late.mean():.4f} ± {late.std():.4f}", f"{draws:,.0f}")
        console.print(table)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
