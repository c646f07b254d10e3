"""Tables and curves of searches for networks, from small searches that were really run."""

import numpy as np
import pytest

from elenas_jax.analysis.load import candidates
from elenas_jax.analysis.network_searches import load_network_searches, network_panels, networks_table
from elenas_jax.analysis.replays import write_replay_figure
from elenas_jax.experiment.retrain_best import retrain_best
from elenas_jax.experiment.run_dir import RunError, write_json
from tests.experiment.toy_individual import register, search, unregister

STARTS = {"name": "evolution", "population_size": 4, "batch_size": 2, "start": "starts"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of random search, and one of a search from starts, with tests of the latter."""
    register()
    folder = tmp_path_factory.mktemp("networks")
    for seed in (0, 1):
        search(folder / "random" / f"seed_{seed}", seed=seed, evaluations=5, generations=0)
    search(folder / "starts", strategy=STARTS, evaluations=5, generations=0)
    write_json(folder / "starts" / "test.json", retrain_best(folder / "starts", seeds=[0, 1]))
    write_json(folder / "starts" / "test_large.json", retrain_best(folder / "starts", start="large"))
    yield folder
    unregister()


def test_tables_show_the_best_of_each_search_and_what_it_started_from(runs):
    columns, rows = networks_table(load_network_searches([runs / "random", runs / "starts"]))
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [(row["search"], row["network"]) for row in table] == [
        ("random", "best found"),
        ("random", "mean of all"),
        ("starts", "best found"),
        ("starts", "large"),
    ]
    best = [
        max(row["metrics"]["toy_data"] for row in candidates(runs / "random" / f"seed_{seed}"))
        for seed in (0, 1)
    ]
    spread = f"{50 * sum(best):.1f} ± {100 * abs(best[0] - best[1]) / np.sqrt(2):.1f}"
    assert table[0]["validation"] == spread and table[0]["seeds"] == 2 and table[0]["test"] is None
    values = [
        [row["metrics"]["toy_data"] or 0.0 for row in candidates(runs / "random" / f"seed_{seed}")]
        for seed in (0, 1)
    ]
    means = np.array([np.mean(each) for each in values])
    assert table.pop(1)["validation"] == f"{100 * means.mean():.1f} ± {100 * means.std(ddof=1):.1f}"
    assert int(table[0]["an hour"].replace(",", "")) > 0 and table[0]["compiling"].endswith("%")
    rows = [row for row in candidates(runs / "starts") if row["is_new"]]
    assert table[1]["trained"] == str(len(rows)) and len(rows) >= 5
    assert table[1]["images"] == f"{16 * sum(row['train_steps'] for row in rows):,}"
    tested = retrain_best(runs / "starts", seeds=[0, 1])
    assert table[1]["test"] == f"{100 * np.mean(tested['test']):.1f}"
    assert table[1]["parameters"] == tested["parameters"]
    large = next(row for row in candidates(runs / "starts") if row["candidate"] == [4, 2, 0])
    assert table[2]["validation"] == f"{100 * large['metrics']['toy_data']:.1f}"
    assert table[2]["parameters"] == large["parameters"] and table[2]["test"] is not None


def test_curves_rise_to_the_best_at_the_end_of_both_budgets(runs, tmp_path):
    searches = load_network_searches([runs / "random", runs / "starts"])
    for panel in network_panels(searches):
        assert panel.curves["random"].shape == (2, len(panel.x))
        for one in searches:
            curves = panel.curves[one.name]
            np.testing.assert_allclose(curves[:, -1], [100 * np.nanmax(run.values) for run in one.runs])
            assert np.isnan(curves[:, 0]).all()  # nothing has been trained
            assert np.all(np.diff(curves[0][np.isfinite(curves[0])]) >= 0)
    write_replay_figure(tmp_path / "networks.png", network_panels(searches), None, "title", "accuracy")
    assert (tmp_path / "networks.png").stat().st_size > 10_000


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    search(tmp_path / "longer", evaluations=6, generations=0)
    with pytest.raises(RunError, match="longer differs in 'evaluations' of its config"):
        load_network_searches([runs / "random", tmp_path / "longer"])
    search(tmp_path / "stopped", evaluations=50, generations=1)
    with pytest.raises(RunError, match=r"has trained \d of 50 candidates: it has not ended"):
        load_network_searches([tmp_path / "stopped"])
    search(tmp_path / "unlimited", generations=1)
    with pytest.raises(RunError, match="has no limit of evaluations"):
        load_network_searches([tmp_path / "unlimited"])
    search(tmp_path / "random", evaluations=5, generations=0)
    with pytest.raises(RunError, match="Two searches have the same name"):
        load_network_searches([runs / "random", tmp_path / "random"])
    search(tmp_path / "two" / "seed_0", evaluations=5, generations=0)
    (tmp_path / "two" / "seed_1").mkdir()
    with pytest.raises(RunError, match="1 of 2 seeds have not begun"):
        load_network_searches([tmp_path / "two"])
    with pytest.raises(RunError, match="There is no run folder"):
        load_network_searches([tmp_path / "nothing"])


def test_tests_must_be_of_the_best_and_of_as_many_epochs(tmp_path):
    search(tmp_path / "run", evaluations=5, generations=0)
    write_json(tmp_path / "run" / "test.json", {"test": [0.5]})
    with pytest.raises(RunError, match=r"test\.json lacks epochs, hash, parameters, rank, start, valid"):
        load_network_searches([tmp_path / "run"])
    found = retrain_best(tmp_path / "run", epochs=1)
    write_json(tmp_path / "run" / "test.json", found)
    write_json(tmp_path / "run" / "test_second.json", retrain_best(tmp_path / "run", rank=2, epochs=1))
    (one,) = load_network_searches([tmp_path / "run"])
    assert [each["rank"] for each in one.runs[0].tested] == [1]
    for wrong in ({"test": "0.5"}, {"test": ["0.5"]}, {"valid": "0.5"}):
        write_json(tmp_path / "run" / "test.json", found | wrong)
        with pytest.raises(RunError, match=r"test\.json is damaged: valid must be a number"):
            load_network_searches([tmp_path / "run"])
    write_json(tmp_path / "run" / "test.json", found | {"hash": "of before"})
    with pytest.raises(RunError, match="is of a candidate that is not the best any more"):
        load_network_searches([tmp_path / "run"])
    write_json(tmp_path / "run" / "test.json", found)
    write_json(tmp_path / "run" / "test_again.json", retrain_best(tmp_path / "run", epochs=2))
    with pytest.raises(RunError, match="retrained for 1 and for 2 epochs"):
        load_network_searches([tmp_path / "run"])


def test_tests_are_a_number_a_run_and_say_how_many_runs_have_one(runs):
    (search,) = load_network_searches([runs / "random"])
    tested = {"start": "", "rank": 1, "parameters": 3, "valid": 0.5, "epochs": 2}
    one = search.runs[0]._replace(tested=[{**tested, "test": [0.5, 0.7]}, {**tested, "test": [0.9]}])
    for others, shown in (
        ([search.runs[1]], "70.0 (1 of 2)"),
        ([search.runs[1]._replace(tested=[{**tested, "test": [0.8]}])], "75.0 ± 7.1"),
    ):
        columns, rows = networks_table([search._replace(runs=[one, *others])])
        assert dict(zip(columns, rows[0], strict=True))["test"] == shown
