r"""Regularised evolution, everything else as in small.py.

python scripts/search.py --config=configs/elenas/evolution.py --run_dir=runs/evolution
"""

import ml_collections

from configs.elenas import small
from elenas_jax.experiment.config import default_config


def get_config() -> ml_collections.ConfigDict:
    return default_config(small.get_config(), strategy={"name": "evolution"})
