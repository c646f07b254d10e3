import os

import pytest

from elenas_jax.analysis import comparison, load, runs
from elenas_jax.experiment.run_dir import RunError
from tests.analysis.synthetic import configure, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds, and a search with another strategy."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (2, 10):
        configure(write_run(root / "five" / f"seed_{seed}", seed=seed, num_generations=4), generations=4)
    strategy = {"name": "evolution", "population_size": 8}
    configure(write_run(root / "wide", num_generations=2), strategy=strategy, plan={"devices": "1 x cpu"})
    return root


def test_names_and_folders_select_runs(folder):
    rows = runs.list_runs(folder, "best")
    names = [row["name"] for row in comparison.select_runs(rows, ["wide", "five/", "five/seed_2"])]
    assert names == ["wide", "five/seed_2", "five/seed_10"]
    with pytest.raises(RunError, match=r"There is no search 'fiv'; there are .*five/seed_2"):
        comparison.select_runs(rows, ["fiv"])


def test_paths_select_runs(folder, tmp_path, monkeypatch):
    rows = runs.list_runs(folder)
    monkeypatch.chdir(folder.parent)
    (tmp_path / "link").symlink_to(folder / "wide")

    def names(*given):
        return [row["name"] for row in comparison.select_runs(rows, given)]

    relative = f"{folder.name}/five"
    assert names(str(tmp_path / "link"), f"{relative}/seed_10/") == ["wide", "five/seed_10"]
    assert names(relative) == ["five/seed_2", "five/seed_10"]
    assert names(os.path.join("..", folder.parent.name, folder.name, "wide")) == ["wide"]
    for given in ("", f"{relative}/seed_1", str(tmp_path)):
        with pytest.raises(RunError, match="There is no search"):
            names(given)


def test_comparing_shows_results_and_what_differs(folder):
    rows = runs.list_runs(folder)
    first, second = comparison.compare_runs(comparison.select_runs(rows, ["five/seed_2", "wide"]))
    results = ("status", "best_score", "parameters", "evaluations", "generations", "seconds", "commit")
    assert tuple(second)[:8] == ("name", *results)
    assert second["best_score"] == load.load_run(folder / "wide").best[0]["score"]
    differing = {key: value for key, value in first.items() if key.startswith("config.")}
    assert differing == {"config.generations": 4, "config.seed": 2, "config.strategy.name": "reinforce"}
    assert second["config.strategy.population_size"] == 8 and "config.plan.devices" not in second
    with pytest.raises(RunError, match="only 1 run"):
        comparison.compare_runs(rows[:1])


def test_comparing_seeds_shows_the_seed_alone(folder):
    records = comparison.compare_runs(comparison.select_runs(runs.list_runs(folder), ["five"]))
    assert [record["config.seed"] for record in records] == [2, 10]
    assert {key for key in records[0] if key.startswith("config.")} == {"config.seed"}


def test_a_config_that_cannot_be_read_is_named(folder, tmp_path):
    rows = runs.list_runs(folder)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        comparison.compare_runs([*rows, rows[0] | {"path": str(tmp_path)}])


def test_records_are_a_data_frame(folder):
    pytest.importorskip("pandas")
    frame = load.data_frame(comparison.compare_runs(runs.list_runs(folder)))
    assert set(frame["config.seed"]) == {0, 2, 10}
    assert frame["config.strategy.population_size"].count() == 1


def test_the_table_says_what_is_not_set(folder):
    rows = comparison.select_runs(runs.list_runs(folder), ["five/seed_2", "wide"])
    table = comparison.comparison_table(comparison.compare_runs(rows))
    lines = {line[0]: line[1:] for line in table.rows}
    assert table.columns == ("", "five/seed_2", "wide")
    assert lines["config.strategy.population_size"] == ("not set", "8")
    assert lines["config.strategy.name"] == ('"reinforce"', '"evolution"')
    assert lines["seconds"] == ("10 s", "5 s")


def test_equal_configs_are_said_to_be_equal(folder):
    rows = comparison.select_runs(runs.list_runs(folder), ["wide"]) * 2
    assert comparison.comparison_table(comparison.compare_runs(rows)).title.endswith(
        "the configs are the same"
    )
