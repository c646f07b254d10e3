r"""REINFORCE for three minutes: small graphs, short trainings.

  make quickstart
  python scripts/search.py --config=configs/elenas/quickstart.py --run_dir=runs/quickstart

Graphs of 16 nodes (the LSTM needs 26), 32 features, a few hundred steps a task. Negatives are near
misses, so that counting symbols is not enough.
"""

import ml_collections

from elenas_jax.experiment.config import default_config


def get_config() -> ml_collections.ConfigDict:
    return default_config(
        minutes=3.0,
        ladder=("reber", "embedded_reber"),
        tasks={
            "reber": {"negatives": "near_miss", "steps": 200, "valid_samples": 1024, "threshold": 0.6},
            "embedded_reber": {
                "negatives": "near_miss",
                "steps": 200,
                "valid_samples": 1024,
                "threshold": 0.6,
            },
        },
        space={"name": "elenas", "num_nodes": 16},
        # Scores are a few hundredths here: a larger penalty would drown them.
        reward={"invalid": 0.02},
        strategy={"name": "reinforce", "learning_rate": 1e-2, "imitation_weight": 1.0, "width": 32},
        evaluator={"hidden_features": 32},
    )
