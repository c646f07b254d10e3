r"""Random search, everything else as in small.py: what a strategy has to beat.

python scripts/search.py --config=configs/elenas/random_search.py --run_dir=runs/random_search
"""

import ml_collections

from configs.elenas import small
from elenas_jax.experiment.config import default_config


def get_config() -> ml_collections.ConfigDict:
    return default_config(small.get_config(), strategy={"name": "random_search"})
