"""Searches of ELENAS in earnest, with short trainings: every strategy, stopped and gone on with."""

import io
import json

import pytest
from rich.console import Console

from elenas_jax.experiment import session
from elenas_jax.experiment.archive import export_rows
from elenas_jax.types import OK

TASK = {"negatives": "near_miss", "length": 10, "steps": 4, "valid_samples": 32, "threshold": 0.1}
PPO = {"name": "ppo", "num_episodes": 4, "epochs": 1, "batch_size": 16, "width": 8, "num_heads": 2}
REINFORCE = {"name": "reinforce", "batch_size": 8, "num_trained": 4, "num_minibatches": 2, "width": 8}
STRATEGIES = {
    "evolution": ({"name": "evolution", "population_size": 4, "batch_size": 4, "tournament_size": 2}, {}),
    "random search": ({"name": "random_search", "batch_size": 4}, {}),
    "successive halving": ({"name": "successive_halving", "num_candidates": 4, "eta": 2}, {}),
    "REINFORCE": (REINFORCE, {}),
    "REINFORCE, a graph that grows": (
        REINFORCE | {"generations_per_stage": 2},
        {"stages": (6, 8), "masks": True},
    ),
    "PPO": (PPO | {"num_trained": 2}, {}),
    "PPO, rewards after every step": (PPO | {"rewards": "step"}, {}),
}


def search(folder, name, generations):
    strategy, space = STRATEGIES[name]
    config = {
        "generations": generations,
        "compilation_cache": "off",
        "ladder": ("reber",),
        "tasks": {"reber": TASK},
        "space": {"name": "elenas", "num_nodes": 8} | space,
        "strategy": strategy,
        "evaluator": {
            "hidden_features": 8,
            "batch_size": 8,
            "num_devices": 1,
            "budgets": (0.5, 1.0) if name == "successive halving" else (1.0,),
        },
    }
    session.run(config, folder, console=Console(file=io.StringIO()))
    return export_rows(folder)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_that_stops_goes_on_to_the_same_bits(tmp_path, name):
    whole = search(tmp_path / "whole", name, 3)
    trained = [row for row in whole if row["status"] == OK]
    assert trained and all(json.loads(row["metrics"])["reber"] >= 0 for row in trained)
    search(tmp_path / "halves", name, 1)
    assert search(tmp_path / "halves", name, 3) == whole
