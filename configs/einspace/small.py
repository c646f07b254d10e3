r"""Small networks of einspace on a part of AddNIST: from random ones, for two cores and a quarter of an hour.

  python scripts/search.py --config=configs/einspace/small.py:scratch --run_dir=runs/scratch --seeds=0..2
  python scripts/search.py --config=configs/einspace/small.py:random_search --run_dir=runs/random

As reduced.py, but networks of at most 150,000 activations, eight epochs and 200 candidates a search.
Searches: "scratch" (evolution from random networks), "random_search" and "reinforce". Most random networks
learn nothing, so the population is larger: as in Ericsson et al. (2024), whose tournaments are of 10 of
100, the best of a population is the parent of about ten of those that are born before it dies.
"""

import ml_collections

from configs.einspace import reduced
from elenas_jax.experiment.rules import ConfigError

SEARCHES = ("scratch", "random_search", "reinforce")


def get_config(search: str = "scratch") -> ml_collections.ConfigDict:
    if search not in SEARCHES:
        raise ConfigError(f"The search is {search!r}; allowed are {', '.join(SEARCHES)}.")
    config = reduced.get_config(search)
    config.evaluations = 200
    config.evaluator.epochs = 8
    config.space.max_activations = 150_000
    config.space.max_parameters = 2_000_000
    if search == "scratch":
        config.strategy.population_size, config.strategy.tournament_size = 32, 12
    return config
