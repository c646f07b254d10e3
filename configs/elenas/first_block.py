r"""Search for the first block over a bar, see scripts/first_block.py.

  python scripts/search.py --config=configs/elenas/first_block.py:lstm --run_dir=runs/lstm_class

Evolution on full trainings, the paper's numbers of samples. Bars: `paper`, the paper's thresholds with
random negatives and a linear head; `paper_no_head`, the same without a head; `lstm`, near misses; `memory`,
near misses and memory at a quarter of the LSTM's parameters. The last two are one recipe, a search that ends
at the first block over its bar: thresholds only say who is trained on the next task, and the LSTM says who
is over the bar; what else was tried is in docs/search_notes.md. The ladder of the paper's bars begins with
the adding problem: of random valid recurrent blocks four of five pass the other two, one in a hundred passes
adding.
"""

import ml_collections

from elenas_jax.experiment.config import default_config
from elenas_jax.experiment.rules import ConfigError

BARS = ("paper", "paper_no_head", "lstm", "memory")


def get_config(bar: str = "paper") -> ml_collections.ConfigDict:
    if bar not in BARS:
        raise ConfigError(f"The bar is {bar!r}; allowed are {', '.join(BARS)}.")
    strategy = {"name": "evolution", "population_size": 64, "batch_size": 16, "tournament_size": 6}
    if bar in ("lstm", "memory"):
        # Blocks that are perfect on the grammars and learn no adding are easily found and lead nowhere:
        # so adding comes second, after a low bar, and a quarter of each generation is drawn anew. A short
        # training on memory with the search's rate tells blocks that remember from others, and so does
        # little room: blocks of a quarter of the LSTM's parameters train quickly.
        return default_config(
            ladder=("reber", "adding", "memory", "embedded_reber"),
            tasks={
                "reber": {"negatives": "near_miss", "threshold": 0.6},
                "adding": {"threshold": 0.5},
                "memory": {"length": 40, "steps": 1000, "threshold": 0.75},
                "embedded_reber": {"negatives": "near_miss", "threshold": 0.75},
            },
            # A quarter of the LSTM's at a width of 64, and six outputs more for the memory task.
            space={"name": "elenas", "max_parameters": 4_624 + 6 * 65},
            strategy=strategy | {"population_size": 128, "tournament_size": 12, "num_random": 4},
        )
    return default_config(
        ladder=("adding", "reber", "embedded_reber"),
        tasks={"reber": {"negatives": "random"}, "embedded_reber": {"negatives": "random"}},
        strategy=strategy,
        evaluator={"head": "linear" if bar == "paper" else "none"},
    )
