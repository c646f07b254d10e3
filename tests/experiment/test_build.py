"""What a config is turned into: settings that several objects share."""

import numpy as np
import pytest

from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.experiment.build import build_evaluator, build_space, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.table import all_blocks
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS


def limited(most, **changes):
    tasks = {"reber": {"length": 10, "steps": 4, "valid_samples": 32}}
    space = {"name": "elenas", "num_nodes": 8, "max_parameters": most}
    return check_config({"ladder": ("reber",), "tasks": tasks, "space": space} | changes)


def test_space_and_evaluator_keep_to_the_limit_of_parameters():
    config = limited(100)
    tasks = build_tasks(config)
    elman = KNOWN_BLOCKS["elman"]
    assert int(build_space(config, tasks).status(elman)) == TOO_MANY_PARAMETERS
    found = build_evaluator(config, tasks, MemoryCache()).evaluate(
        ComputationGraph(np.asarray(elman.edges)[None]), 0
    )
    assert found.status.tolist() == [TOO_MANY_PARAMETERS] and not found.train_steps.any()


def test_what_no_limit_of_parameters_goes_with():
    with pytest.raises(ConfigError, match="max_parameters=-1"):
        limited(-1)
    config = limited(100, evaluator={"table": "elenas_v1"})
    with pytest.raises(ConfigError, match=r"max_parameters=100: with a table .* must be 0"):
        build_evaluator(config, build_tasks(config), MemoryCache())
    with pytest.raises(ConfigError, match="a table is of all blocks"):
        all_blocks(config, build_space(config, build_tasks(config)))
