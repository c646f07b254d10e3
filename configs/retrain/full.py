r"""Retraining at the sizes of the paper's tables, for a GPU.

  python scripts/retrain.py --config=configs/retrain/full.py --block=elena2 --task=tox21 --run_dir=runs/full
  python scripts/retrain.py --config=configs/retrain/full.py --block=elena2 --task=ptb \
      --run_dir=runs/full_ptb --config.stack.max_parameters=6180000

Aichberger and Klambauer (2023) tuned depth, batch size and learning rate of every block alike and trained
ten times; hours and the grid are this project's choice.
"""

import ml_collections

from elenas_jax.experiment.retrain_config import default_retrain_config


def get_config() -> ml_collections.ConfigDict:
    return default_retrain_config(
        minutes=240.0,
        seeds=10,
        stack={"width": 256, "dropout": 0.2},
        recipe={"evaluations": 30},
        tuning={
            "depths": (1, 2, 3),
            "batch_sizes": (64, 32, 128),
            "learning_rates": (3e-3, 1e-2, 1e-3, 3e-4),
            "share": 0.6,
        },
    )
