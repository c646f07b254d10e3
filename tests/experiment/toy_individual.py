"""Searches and workers that know the toy space of small networks, in processes of their own."""

import io
import sys
from typing import Any

from rich.console import Console

from elenas_jax.experiment import build, session, worker
from elenas_jax.spaces import SPACES
from elenas_jax.tasks import TASKS
from tests.evaluation.toy_networks import make_task, make_toy_networks

WORKER = (sys.executable, "-m", "tests.experiment.toy_individual")


def register() -> None:
    SPACES["toy_networks"], TASKS["toy_data"] = make_toy_networks, make_task
    build.WORKER = WORKER


def unregister() -> None:
    del SPACES["toy_networks"], TASKS["toy_data"]
    build.WORKER = (sys.executable, "-m", "elenas_jax.experiment.worker")


def make_config(**changes: Any) -> dict[str, Any]:
    evaluator = {"batch_size": 16, "epochs": 2, "learning_rate": 0.1, "eval_epochs": 3}
    config: dict[str, Any] = {
        "generations": 3,
        "compilation_cache": "off",
        "ladder": ("toy_data",),
        "space": {"name": "toy_networks"},
        "strategy": {"name": "random_search", "batch_size": 3},
    }
    return config | changes | {"evaluator": evaluator | changes.get("evaluator", {})}


def search(folder: Any, **changes: Any) -> str:
    """Runs a search, or goes on with it; returns what it printed."""
    text = io.StringIO()
    session.run(make_config(**changes), folder, console=Console(file=text, width=300))
    return text.getvalue()


if __name__ == "__main__":
    register()
    if len(sys.argv) == 1:
        worker.main()
    else:
        search(sys.argv[1], evaluator={"workers": int(sys.argv[2])})
