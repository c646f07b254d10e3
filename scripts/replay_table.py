r"""Replays strategies against a table of trainings: how good the best block is after so many evaluations.

  python scripts/replay_table.py --strategies=random_search,evolution --seeds=0..99
  python scripts/replay_table.py --strategies=random_search,evolution,reinforce --seeds=0..19 \
      --evaluations=150 --plot=docs/replays.png --results=results/replays.json
  python scripts/replay_table.py --table=some.json --seeds=0..9 --evaluations=10

An evaluation is a valid block that was not met before; all strategies have as many. The search with
seed s sees the table's replicate s modulo their number. Modifiers behind a name, such as
reinforce-positions, are those of elenas_jax/experiment/variants.py. Settings of strategies, the space and
the ladder are those of configs/elenas/table.py. Printed are the mean best score so far and half of its 95%
confidence interval, the regret against the best of the table, and the rank of the block that a search
would hand over among all blocks by mean score, all of them means over seeds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.elenas import table as recipe
from elenas_jax.analysis.intervals import half_width
from elenas_jax.analysis.replays import Panel, write_replay_figure
from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.analysis.tables import Table, show
from elenas_jax.evaluation import parallel
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import check_writable, parse_flags, parse_seeds
from elenas_jax.experiment.replay import Ground, make_ground, replay, summarise
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import write_json
from elenas_jax.experiment.session import one_line_errors, prepare
from elenas_jax.experiment.variants import apply_changes, parse_variant
from elenas_jax.strategies import LEARNING, STRATEGIES

_TABLE = flags.DEFINE_string("table", "elenas_v1", "Name or path of the table.")
_STRATEGIES = flags.DEFINE_list("strategies", ["random_search", "evolution"], "Names of strategies.")
_SEEDS = flags.DEFINE_string("seeds", "0..99", "Seeds, 0..99 or 0,3,5; at least two.")
_EVALUATIONS = flags.DEFINE_integer("evaluations", 150, "Evaluations of each search.", lower_bound=4)
_PLOT = flags.DEFINE_string("plot", None, "Also draw the curves: a file that ends in .png or .svg.")
_JSON = flags.DEFINE_string("json", None, "Also write what is printed, and the curves, to this file.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")

_SECTIONS = ("ladder", "tasks", "space", "reward", "strategy")  # of the config, that results depend on
_NOTE = """Best score so far, mean ± half of its 95% confidence interval; regret against the best of the
table, and rank of the block handed over, the best is 1, means over seeds. Draws are candidates that
were asked for until then, valid or not, new or not; what a sampler draws again until it is valid is not
counted."""


def check_flags() -> list[int]:
    """Returns the seeds."""
    seeds = parse_seeds(_SEEDS.value)
    if len(seeds) < 2:
        raise ConfigError(f"--seeds={_SEEDS.value}: single seeds are not compared.")
    if len(set(_STRATEGIES.value)) < len(_STRATEGIES.value) or not _STRATEGIES.value:
        raise ConfigError(f"--strategies={','.join(_STRATEGIES.value)}: name each strategy once.")
    for name, value in (("plot", _PLOT.value), ("json", _JSON.value), ("results", _RESULTS.value)):
        check_writable(name, value)
    if _PLOT.value and Path(_PLOT.value).suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot={_PLOT.value}: it must end in .png or .svg.")
    return seeds


def _ground_of(config: dict, grounds: dict[str, Ground]) -> Ground:
    key = json.dumps([config["space"], config["reward"]], sort_keys=True)
    if key not in grounds:
        grounds[key] = make_ground(config)
    return grounds[key]


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        seeds, num = check_flags(), _EVALUATIONS.value
        configs = {}
        for name in _STRATEGIES.value:
            variant = parse_variant(name, STRATEGIES, LEARNING)
            if variant.pretrained:
                raise ConfigError(f"--strategies: {name!r}: no known block fits into graphs of the table.")
            config = apply_changes(check_config(recipe.get_config(variant.strategy)), variant)
            configs[name] = {**config, "evaluator": {**config["evaluator"], "table": _TABLE.value}}
        first = next(iter(configs.values()))
        prepare(first, console)
        grounds: dict[str, Ground] = {}  # of spaces that differ in how graphs grow
        ground = _ground_of(first, grounds)
        num_blocks = len(ground.table.places)
        scores = np.asarray(ground.evaluations.score)
        optimum = float(scores.max(axis=1)[np.array(seeds) % len(scores)].mean())
        text = f"{len(seeds)} seeds, {num} evaluations a search, {num_blocks} blocks in {ground.table.name}"
        marks = list(dict.fromkeys((max(1, num // 10), num // 4, num // 2, num)))
        columns = (*(f"best of {mark}" for mark in marks), "regret", "rank", "draws", "s a search")
        lines, found, curves = [], {}, {}
        for name, config in configs.items():
            started = time.perf_counter()
            try:
                made = replay(config, _ground_of(config, grounds), seeds, num)
            except ValueError as error:  # budgets would be unequal
                raise ConfigError(f"{name}: {error}") from error
            seconds = (time.perf_counter() - started) / len(seeds)
            console.print(f"{name}: {len(seeds)} searches in {seconds * len(seeds):.0f} s", soft_wrap=True)
            rows = [summarise(made, ground, seeds, mark) for mark in marks]
            cells = [f"{row['mean']:.4f} ± {half_width(np.array(row['best'])):.4f}" for row in rows]
            last = rows[-1]
            cells += [f"{last['regret']:.4f}", f"{last['rank']:.1f}", f"{last['draws']:,.0f}"]
            lines.append((name, *cells, f"{seconds:.2f}"))
            found[name] = {"marks": rows, "curve": made.best.mean(axis=0)}
            curves[name] = made.best
        title = f"{text}; best score {optimum:.4f}"
        show(Table(title, ("strategy", *columns), lines, frozenset(columns)))
        if _JSON.value:
            settings = {"table": ground.table.digest, "seeds": seeds, "evaluations": num, "optimum": optimum}
            write_json(Path(_JSON.value), settings | {"strategies": found})
        if _RESULTS.value:
            result = make_result(
                title=title,
                columns=("strategy", *columns),
                rows=lines,
                note=_NOTE,
                cores=parallel.usable_cores(),
                devices=parallel.describe_devices(1),
                seeds={"there": len(seeds), "planned": len(seeds)},
                config={
                    "table": ground.table.digest,
                    **{name: {each: config[each] for each in _SECTIONS} for name, config in configs.items()},
                },
            )
            write_result(Path(_RESULTS.value), result)
        if _PLOT.value:
            panel = Panel("Evaluations (different blocks)", np.arange(1, num + 1), curves)
            write_replay_figure(Path(_PLOT.value), [panel], optimum, text)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
