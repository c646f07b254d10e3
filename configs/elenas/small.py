r"""REINFORCE on near misses, short trainings, for a machine with a few cores.

  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/small
  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/small --seeds=0..2

The paper's ladder, width 64 and graphs of 32 nodes, so that the LSTM is in the space. The other recipes
of this folder that are variants of it differ in the strategy alone.
"""

import ml_collections

from elenas_jax.experiment.config import default_config


def get_config() -> ml_collections.ConfigDict:
    return default_config(
        evaluations=1000,
        ladder=("reber", "embedded_reber", "adding"),
        tasks={
            "reber": {"negatives": "near_miss", "steps": 300},
            "embedded_reber": {"negatives": "near_miss", "steps": 300},
            "adding": {"steps": 300},
        },
        space={"name": "elenas", "num_nodes": 32},
        strategy={"name": "reinforce"},
        evaluator={"hidden_features": 64},
    )
