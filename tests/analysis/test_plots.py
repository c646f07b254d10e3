import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from elenas_jax.analysis import load, plots
from tests.analysis.synthetic import write_run


def test_best_so_far_never_falls_and_ends_at_the_best(seeds_path):
    runs = load.load_runs(seeds_path)
    for some in (runs[:1], runs):
        (line,) = plots.best_so_far_figure(some).axes[0].get_lines()
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert np.all(np.diff(y) >= 0)
        assert x[0] == 1 and x[-1] == max(len(run.evaluation_scores) for run in some)
        assert y[-1] == pytest.approx(np.mean([run.best[0]["score"] for run in some]))


def test_shares_of_a_generation_add_up_to_100(run_path):
    axes = plots.validity_figure((load.load_run(run_path),)).axes[0]
    top = np.asarray(axes.collections[-1].get_paths()[0].vertices)[:, 1]
    assert top.max() == pytest.approx(100)
    assert axes.get_ylim() == (0, 100)


def test_reward_has_best_above_mean(run_path):
    best, mean = plots.reward_figure((load.load_run(run_path),)).axes[0].get_lines()
    assert np.all(np.asarray(best.get_ydata()) >= np.asarray(mean.get_ydata()))


@pytest.mark.parametrize("make", plots.FIGURES.values(), ids=plots.FIGURES)
def test_axes_are_labelled(make, run_path):
    axes = make((load.load_run(run_path),)).axes[0]
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()


@pytest.mark.parametrize("settings", ({"valid_share": 0.0}, {"num_generations": 0}, {"num_generations": 1}))
def test_little_to_show_is_shown(tmp_path, settings):
    run = load.load_run(write_run(tmp_path / "run", **settings))
    paths = plots.write_figures((run,), tmp_path / "figures")
    assert set(paths) == set(plots.FIGURES)
    for path in paths.values():
        ElementTree.parse(path)


def test_the_same_run_gives_the_same_files(run_path, tmp_path):
    runs = (load.load_run(run_path),)
    plots.write_figures(runs, tmp_path / "a")
    plots.write_figures(runs, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "best_so_far.png",
        "best_so_far.svg",
        "reward.png",
        "reward.svg",
        "validity.png",
        "validity.svg",
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
