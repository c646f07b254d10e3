import numpy as np
import pytest

from elenas_jax.analysis import load, series
from tests.analysis.synthetic import write_run


def run_of(path, **changes):
    return load.load_run(path)._replace(**changes)


def test_best_so_far_is_a_mean_with_a_band_and_goes_on_level(run_path):
    nan = float("nan")
    runs = [
        run_of(run_path, evaluation_scores=np.array(scores))
        for scores in ([nan, 0.1, 0.3], [0.5, nan, 0.4, 0.7, float("inf")], [nan, nan])
    ]
    curve = series.best_so_far(runs)
    assert curve.x.tolist() == [1, 2, 3, 4, 5]
    assert curve.mean == pytest.approx([0.5, 0.3, 0.4, 0.5, 0.5])
    assert curve.low == pytest.approx([0.5, 0.1, 0.3, 0.3, 0.3])
    assert curve.high == pytest.approx([0.5, 0.5, 0.5, 0.7, 0.7])


def test_score_by_generation_skips_generations_without_valid_candidates(run_path):
    scores = [{"generation": 0, "best_score": 0.2}, {"generation": 2, "best_score": None}]
    scores.append({"generation": 3, "best_score": 0.4})
    curve = series.score_by_generation([run_of(run_path, scores=scores)], "best_score")
    assert (curve.x.tolist(), curve.mean.tolist()) == ([0, 3], [0.2, 0.4])
    assert np.array_equal(curve.low, curve.high)


def test_diagnostics_are_the_finite_numbers_by_name(run_path):
    lines = [
        {
            "generation": 0,
            "strategy": {"loss": None, "entropy": 3.0, "kind": "x", "on": True},
            "seconds": 1.0,
        },
        {"generation": 1, "strategy": {"loss": 0.5, "entropy": 2.0}, "seconds": 3.0, "total_draws": 9},
        {"generation": 2, "seconds": float("nan"), "unique": 4},
    ]
    runs = [run_of(run_path, generations=lines), run_of(run_path, generations=lines[:1])]
    found = series.diagnostics(runs)
    assert {name: curve.x.tolist() for name, curve in found.items()} == {"entropy": [0, 1], "loss": [1]}
    costs = series.costs(runs)
    assert {name: curve.mean.tolist() for name, curve in costs.items()} == {"seconds": [1, 3], "unique": [4]}


def test_shares_count_every_proposal_once(seeds_path):
    runs = load.load_runs(seeds_path)
    shares = series.status_shares(runs)
    assert shares.counts.sum() == sum(row["proposals"] for run in runs for row in run.scores)
    assert shares.statuses[0][0] == 0 and shares.counts.shape == (len(shares.statuses), 9)
    assert shares.percent.sum(axis=0) == pytest.approx(100)


def test_nothing_is_empty_curves(tmp_path):
    runs = [load.load_run(write_run(tmp_path / "run", num_generations=0))]
    for curve in (series.best_so_far(runs), series.score_by_generation(runs, "mean_score")):
        assert all(values.shape == (0,) for values in curve)
    assert series.diagnostics(runs) == {} and series.costs(runs) == {}
    assert series.status_shares(runs).percent.shape == (0, 0)
