r"""PPO with a small network, everything else as in small.py.

  python scripts/search.py --config=configs/elenas/ppo.py --run_dir=runs/ppo

Rewards at the end of an episode only, a policy that starts as the space's sampler, and the best episodes
imitated: a search of some hundred trainings on a few cores. The paper's setting is paper.py.
"""

import ml_collections

from configs.elenas import small
from elenas_jax.experiment.config import default_config


def get_config() -> ml_collections.ConfigDict:
    return default_config(
        small.get_config(),
        strategy={
            "name": "ppo",
            "num_episodes": 64,
            "num_trained": 8,
            "epochs": 4,
            "batch_size": 480,
            "learning_rate": 3e-3,
            "discount": 1.0,
            "max_gradient_norm": 1.0,
            "exploration": 0.05,
            "entropy_weight": 0.03,
            "num_elites": 8,
            "width": 32,
        },
    )
