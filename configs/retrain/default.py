r"""Retraining of a block on real data, for a machine with a few cores.

  python scripts/retrain.py --block=gru --task=tox21 --run_dir=runs/gru_tox21 --minutes=30

Depth, batch size and learning rate are tuned on validation data; width, dropout, norms, residual
connections, pooling (--config.stack.pool=max) and whether a piece of text goes on from the one before
(--config.recipe.carry=False) are settings, as in --config.stack.width=128. A wider, longer training for a
GPU is full.py.
"""

import ml_collections

from elenas_jax.experiment.retrain_config import default_retrain_config


def get_config() -> ml_collections.ConfigDict:
    return default_retrain_config()
