r"""einspace on a part of AddNIST, for two cores and an hour.

  python scripts/search.py --config=configs/einspace/reduced.py --run_dir=runs/mix
  python scripts/search.py --config=configs/einspace/reduced.py:scratch --run_dir=runs/scratch --seeds=0..2
  python scripts/search.py --config=configs/einspace/reduced.py:random_search --run_dir=runs/rs --seeds=0..2
  python scripts/retrain_best.py --run_dir=runs/mix

2,000 training images and two epochs. Searches: "mix" (evolution from the four published architectures),
"scratch" (evolution from random ones), "random_search", and "reinforce" (derivations of at most 96 rules,
grown by a policy); all stop after as many trainings. Two worker processes train at a time, and what comes
next is compiled meanwhile: a generation is four candidates, or eight. The limits of the space just let the
four architectures in.
"""

import ml_collections

from elenas_jax.experiment.config import default_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS

_EVOLUTION = {"name": "evolution", "population_size": 16, "batch_size": 4, "tournament_size": 4}
# Strategy and seeds.
SEARCHES = {
    "mix": (_EVOLUTION | {"start": "starts"}, MIXED_SEEDS),
    "scratch": (_EVOLUTION, ()),
    "random_search": ({"name": "random_search", "batch_size": 8}, ()),
    "reinforce": ({"name": "reinforce", "batch_size": 16, "num_trained": 4, "num_minibatches": 2}, ()),
}


def get_config(search: str = "mix") -> ml_collections.ConfigDict:
    if search not in SEARCHES:
        raise ConfigError(f"The search is {search!r}; allowed are {', '.join(SEARCHES)}.")
    strategy, seeds = SEARCHES[search]
    return default_config(
        evaluations=64,
        ladder=("addnist",),
        tasks={"addnist": {"num_train": 2000, "num_valid": 1000, "num_test": 2000}},
        space={
            "name": "einspace",
            "seeds": seeds,
            # A policy's graphs have a node for each rule that there may be.
            "max_nodes": 96 if search == "reinforce" else 512,
            "max_parameters": 12_000_000,
            "max_activations": 4_000_000,
            # The published head averages the features of tokens, which a norm before it makes constant.
            "head_pool": "token_mean",
        },
        strategy=strategy,
        evaluator={
            "name": "individual",
            "batch_size": 32,
            "learning_rate": 0.04,
            "weight_decay": 3e-4,
            "epochs": 2,
            "eval_epochs": 8,
            "workers": 2,
            "memory_gib": 4.0,
            "max_seconds": 180.0,
        },
    )
