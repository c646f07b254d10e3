"""Searches whose candidates are trained one by one, in this process and in workers; and real kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elenas_jax.evaluation.parallel import usable_core_numbers
from elenas_jax.evaluation.worker_process import WorkerProcess
from elenas_jax.experiment.archive import best_block, export_rows, reading, write_export
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import plain, read_json, read_metrics, run_dir
from elenas_jax.types import TIMED_OUT
from tests.evaluation.test_workers import gone, wait_until
from tests.evaluation.toy_networks import Trap
from tests.experiment.test_search import num_trainings
from tests.experiment.toy_individual import WORKER, make_config, register, search, unregister

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


@pytest.fixture(autouse=True, scope="module")
def toy():
    register()
    yield
    unregister()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search in this process that nothing disturbed; the folder and what it printed."""
    folder, before = tmp_path_factory.mktemp("whole") / "run", Trap.reads
    shown = search(folder)
    assert Trap.reads == before, "a search read test data"
    return folder, shown


def export(folder: Path) -> bytes:
    write_export(folder, folder / "export.jsonl")
    return (folder / "export.jsonl").read_bytes()


def test_a_search_in_one_process(whole):
    folder, shown = whole
    run = run_dir(folder)
    for words in (
        "3 generations",
        "random_search in toy_networks",
        "none, training in this process",
        "at most 8 GiB",
    ):
        assert words in shown
    assert "compiling" in shown and "evaluations/h" in shown and "epochs: 2" in shown
    rows, config = read_metrics(run), read_json(run.config)
    assert config["evaluator"]["name"] == "individual" and config["evaluator"]["workers"] == 0
    assert set(rows[0]["seconds_evaluator"]) == {"compiling", "waiting", "training"}
    assert rows[-1]["total_evaluations"] == num_trainings(folder) > 3
    assert {row["train_steps"] for row in export_rows(folder)} == {6}
    assert best_block(folder)["text"]


def test_workers_change_nothing(whole, tmp_path):
    shown = search(tmp_path, evaluator={"workers": 2})
    assert "2 processes" in shown
    assert export(tmp_path) == export(whole[0])
    # Nor does how many there are when it goes on.
    search(tmp_path, generations=4)
    assert len(read_metrics(run_dir(tmp_path))) == 4


def test_kill_9_changes_nothing_and_leaves_nobody(whole, tmp_path):
    parent = subprocess.Popen(
        [*WORKER, str(tmp_path / "run"), "2"], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    while parent.poll() is None and not num_trainings(tmp_path / "run"):
        time.sleep(0.005)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert num_trainings(tmp_path / "run") > 0 and len(read_metrics(run_dir(tmp_path / "run"))) < 3
    assert len(workers) == 2 or not children.parent.parent.exists()
    wait_until(lambda: all(map(gone, workers)))
    before = trainings(tmp_path / "run")
    search(tmp_path / "run")
    assert export(tmp_path / "run") == export(whole[0])
    assert before.items() <= trainings(tmp_path / "run").items()  # what was kept was not trained again


def trainings(folder: Path) -> dict[bytes, float]:
    """Returns the wall-clock time of each training by its key."""
    with reading(run_dir(folder)) as connection:
        return dict(map(tuple, connection.execute("SELECT key, seconds FROM evaluations")))


class Talk:
    """A conversation with a real worker."""

    def __init__(self, **changes):
        setup = {
            "config": plain(make_config(**changes)),
            "compilation_cache": None,
            "cores": usable_core_numbers()[:1],
        }
        self.worker = WorkerProcess(WORKER, setup, ENVIRONMENT)

    def hear(self) -> dict:
        answers: list[dict] = []
        lives = True

        def heard() -> bool:
            nonlocal answers, lives
            answers, lives = self.worker.answers()
            return bool(answers) or not lives

        wait_until(heard, seconds=120.0)
        return answers[0]


ENDLESS = {"evaluator": {"epochs": 10**6, "max_seconds": 1.0}}
JOB = {"candidate": [3, 1, 0], "hash": "0123456789abcdef" * 2, "budget": 0, "replicate": 0}


def test_a_worker_gives_up_and_ends_with_its_input():
    talk = Talk(**ENDLESS)
    assert talk.hear() == {"ready": True}
    assert os.sched_getaffinity(talk.worker.process.pid) == {usable_core_numbers()[0]}
    talk.worker.send({"prepare": JOB})
    talk.worker.send({"train": JOB})
    answer = talk.hear()
    score, metrics, status, parameters, *_ = answer["record"]
    assert (score, metrics, status, parameters) == (0.0, [None], TIMED_OUT, 27)
    assert answer["training"] + answer["waiting"] >= 1.0 and answer["compiling"] > 0
    # In the middle of the next one.
    talk.worker.send({"train": JOB})
    time.sleep(0.3)
    talk.worker.close()
    assert talk.worker.process.returncode == 0


def test_a_worker_that_cannot_read_ends():
    talk = Talk()
    assert talk.hear() == {"ready": True}
    talk.worker.send({"train": JOB | {"candidate": "nonsense"}})
    assert talk.worker.process.wait(60) == 1
    talk.worker.close()


def test_a_worker_of_another_config(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "elenas_jax.experiment.worker"],
        input=json.dumps({"setup": {"config": make_config(), "cores": [0], "compilation_cache": None}}),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=250,
    )
    assert "space.name='toy_networks': no such name" in json.loads(done.stdout)["error"] or (
        "ladder='toy_data': no such name" in json.loads(done.stdout)["error"]
    )
    assert done.returncode == 0


def test_data_that_cannot_be_used_are_one_line_before_anything_is_written(tmp_path):
    for workers in (0, 1):
        with pytest.raises(
            ConfigError, match="toy_data has 50 training examples; batch_size is 64"
        ) as caught:
            search(tmp_path / "run", evaluator={"batch_size": 64, "workers": workers})
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_settings():
    resolved = check_config(make_config())
    assert resolved["evaluator"]["name"] == "individual"
    assert resolved["evaluator"]["optimiser"] == "sgd" and resolved["evaluator"]["memory_gib"] == 8.0
    assert set(resolved["tasks"]["toy_data"]) == {"threshold", "untrained", "weight"}
    assert set(resolved["space"]) == {"name", "max_width", "seeds"}
    assert check_config(resolved) == resolved
    with pytest.raises(ConfigError, match=r"evaluator.executor is no key .* evaluator.name='individual'"):
        check_config(make_config(evaluator={"executor": "fused"}))
    with pytest.raises(ConfigError, match=r"tasks.toy_data.steps is no key"):
        check_config(make_config(tasks={"toy_data": {"steps": 3}}))
    with pytest.raises(ConfigError, match=r"evaluator.workers=-1"):
        check_config(make_config(evaluator={"workers": -1}))
