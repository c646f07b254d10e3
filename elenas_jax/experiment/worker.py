"""A worker process: trains the candidates that its parent sends, one line of JSON each.

  python -m elenas_jax.experiment.worker

The first line of its input holds the resolved config, the cores to keep to and the compilation cache;
`evaluation.worker_process` says what follows. It ends when its input ends: when the parent closes it, or
dies, however it dies.
"""

import json
import math
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

import jax

from elenas_jax.evaluation.individual_trainer import IndividualTrainer, Job, Trained
from elenas_jax.evaluation.parallel import configure_devices, pin_to_cores
from elenas_jax.experiment.build import build_space, build_tasks, build_trainer
from elenas_jax.experiment.config import check_config
from elenas_jax.types import SearchSpace

CACHE_SECONDS = 0.5  # of compiling, from which programs go to the compilation cache


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    setup = json.loads(sys.stdin.readline())["setup"]
    try:
        space, trainer = _set_up(setup)
    except ValueError as error:
        _answer(answers, {"error": " ".join(str(error).split())})
        return
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(space, trainer, jobs), daemon=True).start()
    _answer(answers, {"ready": True})
    while True:
        _answer(answers, _as_json(trainer.train(jobs.get())))


def _set_up(setup: Mapping[str, Any]) -> tuple[SearchSpace, IndividualTrainer]:
    pin_to_cores(setup["cores"])
    configure_devices(1)
    if setup["compilation_cache"]:
        jax.config.update("jax_compilation_cache_dir", setup["compilation_cache"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHE_SECONDS)
    config = check_config(setup["config"])
    tasks = build_tasks(config)
    space = build_space(config, tasks)
    trainer = build_trainer(config, tasks, space)
    trainer.load()
    return space, trainer


def _listen(space: SearchSpace, trainer: IndividualTrainer, jobs: queue.SimpleQueue[Job]) -> None:
    """Reads what the parent sends; ends the process, in the middle of whatever it does, when that ends."""
    try:
        for line in sys.stdin:
            ((what, told),) = json.loads(line).items()
            job = Job(**told | {"candidate": space.from_json(told["candidate"])})
            if what == "prepare":
                trainer.prepare(job)
            else:
                jobs.put(job)
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _as_json(trained: Trained) -> dict[str, Any]:
    score, metrics, *others = trained.record
    record = [score, [metric if math.isfinite(metric) else None for metric in metrics], *others]
    return trained._asdict() | {"record": record}


def _answer(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
