r"""Compares strategies on real trainings, over several seeds: at equal evaluations and at equal time.

  python scripts/compare_strategies.py --evaluations=96 --seeds=0..4
  python scripts/compare_strategies.py --strategies=random_search,evolution,reinforce,ppo,ppo+pretrained \
      --evaluations=256 --seeds=0..4 --plot=compare.png --results=results/strategies.json

Runs every strategy on the tasks and the space of --config (the quickstart's unless told otherwise). The
table has the best score after a quarter, half and all of the evaluations, at the time at which the fastest
run was through, and the mean score of the last half: mean and half of a 95% confidence interval over seeds.
The figure has the curves over evaluations and over time. An evaluation is a valid candidate that was not
met before and was trained; draws are printed beside. Time is that of a run's generations, what is compiled
included, and means something only where nothing else ran and no run was interrupted. Interrupted, it goes
on when called again.

Modifiers behind a name (elenas_jax/experiment/variants.py): +pretrained starts from a policy that is
pre-trained first, in --run_dir, whose time is not counted; -positions, -subgraphs and -shaping leave out
what they say; -elites imitates no episodes; +masks forbids what can only lead to invalid graphs.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis import candidates
from elenas_jax.analysis.intervals import half_width
from elenas_jax.analysis.replays import Panel, write_replay_figure
from elenas_jax.analysis.results import make_result, write_result
from elenas_jax.analysis.tables import Table, show
from elenas_jax.evaluation import parallel
from elenas_jax.experiment.build import build_space, build_strategy, build_tasks
from elenas_jax.experiment.config import PRETRAINED, check_config
from elenas_jax.experiment.flags import check_writable, parse_flags, parse_seeds, with_recipe
from elenas_jax.experiment.pretrained import pretrain
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import read_metrics, run_dir
from elenas_jax.experiment.session import INTERRUPTED, one_line_errors, prepare, run
from elenas_jax.experiment.variants import Variant, apply_changes, parse_variant
from elenas_jax.strategies import LEARNING, STRATEGIES

_ROOT = Path(__file__).resolve().parents[1]
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe whose tasks and space are used; configs/elenas/quickstart.py by default."
)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/compare", "Folder of the runs; made if need be.")
_STRATEGIES = flags.DEFINE_list(
    "strategies", ["random_search", "reinforce"], "Names of strategies, with modifiers."
)
_EVALUATIONS = flags.DEFINE_integer("evaluations", 96, "Evaluations of each run.", lower_bound=4)
_SEEDS = flags.DEFINE_string("seeds", "0..2", "Seeds, 0..2 or 0,3,5; at least two.")
_PLANNED = flags.DEFINE_integer("planned_seeds", 5, "Seeds of a full table, for --results.", lower_bound=2)
_UPDATES = flags.DEFINE_integer("pretraining_updates", 300, "Of +pretrained.", lower_bound=1)
_PLOT = flags.DEFINE_string("plot", None, "Also draw the curves: a file that ends in .png or .svg.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")

# A strategy that --config does not name has its defaults, with those of the quickstart's size below.
_SETTINGS: dict[str, dict[str, Any]] = {
    "evolution": {"population_size": 32},
    "ppo": {
        "num_episodes": 64,
        "num_trained": 8,
        "epochs": 4,
        "batch_size": 448,
        "learning_rate": 3e-3,
        "discount": 1.0,
        "max_gradient_norm": 1.0,
        "exploration": 0.1,
        # Of 0.03 and 0.3, by seeds 10 and 11. Without elites 0.3 hardly leaves the sampler.
        "entropy_weight": 0.03,
        "num_elites": 8,
        "width": 32,
    },
}


_SECTIONS = ("evaluations", "ladder", "tasks", "space", "reward", "strategy", "evaluator")  # of a config

_NOTE = """Evaluations are different blocks that were trained. Draws are candidates that were asked for until
then, valid or not, new or not; what a sampler draws again until it is valid is not counted. Time counts
compiling; that of pre-training is not counted."""


class Found(NamedTuple):
    """What one run found; n evaluations."""

    scores: np.ndarray  # [n] in the order of evaluation
    draws: int
    seconds: np.ndarray  # [G] since the start, at the end of each generation
    best: np.ndarray  # [G] best score by then, NaN before the first


def read_run(folder: Path, num: int) -> Found:
    """Reads the first `num` evaluations of a run.

    Raises:
      ConfigError: if there are fewer: budgets would be unequal.
    """
    rows = candidates(folder)
    new = [place for place, row in enumerate(rows) if row["is_new"]][:num]
    if len(new) < num:
        raise ConfigError(f"{folder} holds {len(new)} evaluations, not {num}: budgets would be unequal.")
    metrics = read_metrics(run_dir(folder))
    metrics = metrics[: 1 + next(i for i, row in enumerate(metrics) if row["total_evaluations"] >= num)]
    best = [np.nan if row["best_score"] is None else row["best_score"] for row in metrics]
    seconds = np.cumsum([row["seconds"] for row in metrics])
    return Found(np.array([rows[place]["score"] for place in new]), new[-1] + 1, seconds, np.array(best))


def at_time(found: Found, seconds: np.ndarray) -> np.ndarray:
    """Returns the best score at each of `[n]` times; 0 before the first generation ended."""
    place = np.searchsorted(found.seconds, seconds, side="right") - 1
    return np.where(place >= 0, np.nan_to_num(found.best[np.maximum(place, 0)]), 0.0)


def config_of(variant: Variant) -> dict[str, Any]:
    """Returns the resolved config of a variant, seed 0, from scratch; ConfigError if it cannot be built."""
    given = _CONFIG.value.to_dict()
    if given["strategy"]["name"] != variant.strategy:
        given["strategy"] = {"name": variant.strategy, **_SETTINGS.get(variant.strategy, {})}
    config = check_config(given | {"evaluations": _EVALUATIONS.value, "minutes": 0.0, "generations": 0})
    config = apply_changes(config, variant)
    if variant.pretrained:
        config["strategy"] = config["strategy"] | {PRETRAINED: ""}
    build_strategy(config, build_space(config, build_tasks(config)))
    return config


def pretrained(config: dict[str, Any], name: str, console: Console) -> dict[str, Any]:
    """Pre-trains the policy of a config; returns the config that starts from it."""
    folder = Path(_RUN_DIR.value) / f"policy_of_{name}_{_UPDATES.value}"
    space = build_space(config, build_tasks(config))
    console.print(f"Pre-training the policy of {name} in {folder}", soft_wrap=True)
    pretrain(config, space, build_strategy(config, space), folder, updates=_UPDATES.value, learning_rate=1e-3)
    return config | {"strategy": config["strategy"] | {PRETRAINED: str(folder)}}


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        seeds = parse_seeds(_SEEDS.value)
        if len(seeds) < 2:
            raise ConfigError(f"--seeds={_SEEDS.value}: single seeds are not compared.")
        for name, value in (("plot", _PLOT.value), ("results", _RESULTS.value)):
            check_writable(name, value)
        if _PLOT.value and Path(_PLOT.value).suffix not in (".png", ".svg"):
            raise ConfigError(f"--plot={_PLOT.value}: it must end in .png or .svg.")
        variants = [parse_variant(name, STRATEGIES, LEARNING) for name in _STRATEGIES.value]
        if len(set(_STRATEGIES.value)) < len(variants) or not variants:
            raise ConfigError(f"--strategies={','.join(_STRATEGIES.value)}: name each strategy once.")
        prepare(check_config(_CONFIG.value), console)
        num = _EVALUATIONS.value
        configs = {variant.name: config_of(variant) for variant in variants}
        found: dict[str, list[Found]] = {}
        for variant in variants:
            config = configs[variant.name]
            if variant.pretrained:
                config = pretrained(config, variant.name, console)
            found[variant.name] = []
            for seed in seeds:
                folder = Path(_RUN_DIR.value) / variant.name / f"seed_{seed}"
                if not run(config | {"seed": seed}, folder, console=console).why:
                    sys.exit(INTERRUPTED)
                found[variant.name].append(read_run(folder, num))
        marks = (num // 4, num // 2, num)
        shortest = min(each.seconds[-1] for runs in found.values() for each in runs)
        columns = ("strategy", *(f"best of {mark}" for mark in marks), f"best after {shortest:.0f} s")
        columns += ("mean of last half", "draws")
        rows = []
        for name, runs in found.items():
            best = np.array([[each.scores[:mark].max() for mark in marks] for each in runs])
            timed = np.array([at_time(each, np.array([shortest])) for each in runs])
            late = np.array([[each.scores[num // 2 :].mean()] for each in runs])
            numbers = np.concatenate([best, timed, late], axis=1)
            cells = [
                f"{m:.4f} ± {h:.4f}" for m, h in zip(numbers.mean(axis=0), half_width(numbers), strict=True)
            ]
            rows.append((name, *cells, f"{np.mean([each.draws for each in runs]):,.0f}"))
        title = f"{num} evaluations a run, {len(seeds)} seeds: score, mean ± half of a 95% interval"
        show(Table(title, columns, rows, frozenset(columns[1:])))
        if _RESULTS.value:
            result = make_result(
                title=title,
                columns=columns,
                rows=rows,
                note=_NOTE,
                cores=parallel.usable_cores(),
                devices=parallel.describe_devices(parallel.count_devices()),
                seeds={"there": len(seeds), "planned": max(len(seeds), _PLANNED.value)},
                config={
                    "pretraining_updates": _UPDATES.value,
                    **{n: {each: c[each] for each in _SECTIONS} for n, c in configs.items()},
                },
            )
            write_result(Path(_RESULTS.value), result)
        if _PLOT.value:
            times = np.linspace(0.0, shortest, 200)
            by_count = {n: np.maximum.accumulate([e.scores for e in r], axis=1) for n, r in found.items()}
            by_time = {n: np.stack([at_time(e, times) for e in r]) for n, r in found.items()}
            panels = [
                Panel("Evaluations (different blocks)", np.arange(1, num + 1), by_count),
                Panel("Seconds of search", times, by_time),
            ]
            title = f"{len(seeds)} seeds, {num} evaluations a run"
            write_replay_figure(Path(_PLOT.value), panels, None, title)


if __name__ == "__main__":
    app.run(
        main, argv=with_recipe(sys.argv, _ROOT / "configs/elenas/quickstart.py"), flags_parser=parse_flags
    )
