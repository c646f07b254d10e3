"""Searches of einspace in earnest, on stand-ins: every strategy, images and sequences, stopped, resumed."""

import io
import json

import pytest
from rich.console import Console

from elenas_jax.experiment import session
from elenas_jax.experiment.archive import export_rows
from elenas_jax.experiment.retrain_best import retrain_best
from elenas_jax.types import OK

SIZES = {"source": "synthetic", "num_train": 48, "num_valid": 32, "num_test": 32}
SMALL = {"max_nodes": 32, "max_parameters": 20_000, "max_activations": 20_000, "computation_probability": 0.5}
STRATEGIES = {
    "evolution": {"population_size": 4, "batch_size": 2, "tournament_size": 2},
    "random_search": {"batch_size": 2},
    "reinforce": {"batch_size": 8, "num_trained": 2, "num_minibatches": 2, "num_elites": 2, "width": 8},
    "ppo": {"num_episodes": 8, "num_trained": 2, "epochs": 1, "batch_size": 32, "width": 8, "num_heads": 2},
    "successive_halving": {"num_candidates": 4, "eta": 2},
}


def search(folder, strategy="evolution", task="addnist", generations=3):
    config = {
        "generations": generations,
        "compilation_cache": "off",
        "ladder": (task,),
        "tasks": {task: SIZES},
        "space": {"name": "einspace"} | SMALL,
        "strategy": {"name": strategy} | STRATEGIES[strategy],
        "evaluator": {
            "name": "individual",
            "batch_size": 16,
            "epochs": 2,
            "eval_epochs": 1,
            "budgets": (0.5, 1.0) if strategy == "successive_halving" else (1.0,),
        },
    }
    session.run(config, folder, console=Console(file=io.StringIO()))
    return export_rows(folder)


@pytest.mark.parametrize("task", ["addnist", "satellite"])
def test_a_search_that_stops_goes_on_to_the_same_bits_and_its_best_is_tested(tmp_path, task):
    """Images, and sequences in one dimension."""
    whole = search(tmp_path / "whole", task=task)
    assert len(whole) == 6 and any(row["status"] == OK for row in whole)
    search(tmp_path / "halves", task=task, generations=1)
    assert search(tmp_path / "halves", task=task) == whole
    result = retrain_best(tmp_path / "whole")
    assert result["examples"] == 80 and 0 <= result["test"][0] <= 1


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"evolution"}))
def test_every_strategy_searches_einspace_and_goes_on(tmp_path, strategy):
    whole = search(tmp_path / "whole", strategy, generations=2)
    trained = [row for row in whole if row["status"] == OK]
    assert trained and all(json.loads(row["metrics"])["addnist"] >= 0 for row in trained)
    search(tmp_path / "halves", strategy, generations=1)
    assert search(tmp_path / "halves", strategy, generations=2) == whole
