"""The ranking on the memory task, and the folder where trainings are kept."""

import numpy as np
import pytest

from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.experiment import ranking
from elenas_jax.experiment.kept import kept_trainings
from elenas_jax.experiment.ranking import Ranking, memory_config, percent, rank, rows_of
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.graphs import KNOWN_BLOCKS, from_edges

BLOCKS = {
    "elena1": KNOWN_BLOCKS["elena1"],
    "cycle": from_edges(5, [(0, 2, "matmul"), (1, 2, "matmul"), (2, 4, "add"), (4, 2, "add")]),
}


def small_configs(*lengths):
    configs = [memory_config(length, steps=3, seed=0) for length in lengths]
    for config in configs:
        config["tasks"]["memory"]["valid_samples"] = 64
        config["evaluator"] |= {"hidden_features": 8, "num_devices": 1}
    return configs


class CountingCache(MemoryCache):
    trained = 0

    def put(self, items):
        self.trained += len(items)
        super().put(items)


def test_every_run_at_every_length():
    cells, cache = [], CountingCache()

    def rank_two_runs():
        return rank(BLOCKS, small_configs(4, 6), 2, cache, lambda *cell: cells.append(cell[:2]) or True)

    found = rank_two_runs()
    assert cells == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found.accuracy.shape == (2, 2, 2)
    assert np.isfinite(found.accuracy[:, 0]).all() and np.isnan(found.accuracy[:, 1]).all()
    assert (found.status[0] == 0).all() and (found.status[1] > 0).all()
    assert found.parameters[0] > 0
    assert cache.trained == 4
    np.testing.assert_array_equal(rank_two_runs().accuracy, found.accuracy)
    assert cache.trained == 4  # nothing was trained again


def test_what_is_stopped_holds_whole_runs():
    stopped = rank(
        BLOCKS, small_configs(4, 6), 3, MemoryCache(), lambda run, place, _: (run, place) != (1, 0)
    )
    assert stopped.accuracy.shape == (1, 2, 2)
    none = rank(BLOCKS, small_configs(4, 6), 3, MemoryCache(), lambda *_: False)
    assert none.accuracy.shape == (0, 2, 2) and none.status.shape == (2, 2)


def test_rows_are_in_order_and_the_papers_are_marked():
    accuracy = np.array([[[0.2, 0.4]], [[0.4, 0.4]]]) + np.array([0.0, 0.5])[None, :, None]
    rows = rows_of(Ranking(accuracy, np.zeros((2, 2)), np.array([10, 20])), ["low", "high"], [20, 25])
    assert rows[:2] == [["high", 20, "80.0 ± 10.0", "90.0 ± 0.0"], ["low", 10, "30.0 ± 10.0", "40.0 ± 0.0"]]
    assert rows[2] == ["LSTM (paper)", None, "73.1 ± 20.2", None]
    assert len(rows) == 2 + len(ranking.PAPER)
    assert all(len(text.split(", ")) == len(ranking.PAPER_LENGTHS) for text in ranking.PAPER.values())


def test_percent():
    assert percent(np.array([0.5])) == "50.0"
    assert percent(np.array([0.5, np.nan, 1.0])) == "failed 1/3"


def test_numbers_out_of_range_are_said():
    with pytest.raises(ConfigError, match=r"tasks\.memory\.steps"):
        memory_config(20, steps=0, seed=0)


def test_the_folder_keeps_trainings_of_one_config(tmp_path):
    config = {"seed": 0, "evaluator": {"num_devices": 1}}
    blocks = {"elena1": BLOCKS["elena1"]}

    def rank_kept(config, on_cell):
        with kept_trainings(tmp_path / "kept", config, ("evaluator.num_devices",), ["memory"]) as cache:
            return rank(blocks, small_configs(4), 1, cache, on_cell)

    found = rank_kept(config, lambda *_: True)
    again = rank_kept({"seed": 0, "evaluator": {"num_devices": 2}}, lambda *_: True)
    np.testing.assert_array_equal(again.accuracy, found.accuracy)
    with pytest.raises(RunError, match="seed"):
        rank_kept({"seed": 1, "evaluator": {"num_devices": 1}}, lambda *_: True)
