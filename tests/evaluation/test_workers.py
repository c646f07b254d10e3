"""Worker processes: what is lost when one crashes, hangs, grows, or its parent dies."""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from elenas_jax.evaluation import parallel, workers
from elenas_jax.evaluation.workers import Limits, WorkerError, WorkerPool
from elenas_jax.types import CRASHED, OK, OUT_OF_MEMORY, TIMED_OUT

NO_LIMITS = Limits()
COMMAND = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(workers, "PAUSE_SECONDS", 0.05)


def make(folder, number=1, limits=NO_LIMITS, **setup):
    return WorkerPool(COMMAND, {"folder": str(folder), **setup}, number, limits, 2)


def jobs(*names, **settings):
    return [{"name": name, "does": name, "score": place / 4, **settings} for place, name in enumerate(names)]


def run(pool, these):
    with closing(pool):
        return dict(pool.run(these))


def log(folder):
    return (folder / "log").read_text().splitlines()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", (1, 3))
def test_every_job_gets_its_outcome(tmp_path, number):
    found = run(make(tmp_path, number), jobs("a", "b", "c", "d"))
    assert sorted(found) == [0, 1, 2, 3]
    for place, trained in found.items():
        record = trained.record
        assert record[:1] + record[2:] == (place / 4, OK, 7, 14.0, 3, 0.5)
        assert record.metrics[0] == place / 4 and math.isnan(record.metrics[1])
        assert (trained.compiling, trained.waiting, trained.training) == (0.25, 0.125, 1.0)
    assert run(make(tmp_path), []) == {}


def test_the_next_one_is_compiled_ahead(tmp_path):
    run(make(tmp_path), jobs("a", "b", "c"))
    assert log(tmp_path)[1:] == ["train a", "prepare b", "train b", "prepare c", "train c"]


def test_workers_share_the_cores_and_live_on(tmp_path):
    pool = make(tmp_path, 2)
    with closing(pool):
        pool.start()
        pool.start()
        assert dict(pool.run(jobs("a"))) and dict(pool.run(jobs("b", "c")))
    started = [line for line in log(tmp_path) if line.startswith("started")]
    assert len(started) == 2
    cores = [eval(line.partition("cores ")[2]) for line in started]
    assert all(cores) and {core for each in cores for core in each} == set(parallel.usable_core_numbers())
    assert all(gone(int(line.split()[1])) for line in started)


def test_who_is_free_takes_what_another_has_compiled(tmp_path):
    these = jobs("a", "b", "c", "d")
    these[0]["seconds"] = 1.0
    started = time.monotonic()
    order = []
    with closing(make(tmp_path, 2)) as pool:
        pool.start()
        started = time.monotonic()
        for place, _ in pool.run(these):
            order.append(place)
    assert order[-1] == 0 and time.monotonic() - started < 10


def test_a_crash_costs_one_more_try(tmp_path):
    found = run(make(tmp_path), jobs("a", "crash once", "b"))
    assert [found[place].record.status for place in range(3)] == [OK] * 3
    found = run(make(tmp_path / "."), jobs("a", "crash", "b", "c"))
    assert [found[place].record.status for place in range(4)] == [OK, CRASHED, OK, OK]
    record = found[1].record
    assert record.score == 0.0 and len(record.metrics) == 2 and all(map(math.isnan, record.metrics))


@pytest.mark.filterwarnings("error")
def test_a_start_that_fails_is_repeated(tmp_path):
    found = run(make(tmp_path, fails_at=[1, 2]), jobs("a", "crash once", "b"))
    assert [found[place].record.status for place in range(3)] == [OK] * 3
    assert log(tmp_path).count("train crash once") == 2  # what cannot start is not the candidate's fault


def test_the_others_go_on_without_a_worker_that_cannot_start(tmp_path):
    these = jobs("a", "crash", "b", "c")
    these[0]["seconds"] = 1.5
    with closing(make(tmp_path, 2, fails_at=[2, 3, 4])) as pool:
        pool.start()  # both, so that the third start is that of the one that crashed
        with pytest.warns(UserWarning, match=r"1 of 2 workers are left: .* status 4 while"):
            found = dict(pool.run(these))
        assert [found[place].record.status for place in range(4)] == [OK, CRASHED, OK, OK]
        assert (tmp_path / "start 5").exists() and not (tmp_path / "start 6").exists()
        assert sorted(dict(pool.run(jobs("d", "e")))) == [0, 1]
    assert (tmp_path / "start 6").exists()  # another chance


def test_no_worker_is_left(tmp_path):
    """What is in training is still collected."""
    these = jobs("a", "crash", "b")
    these[0]["seconds"], these[2]["does"] = 1.0, "crash"
    found = {}
    with closing(make(tmp_path, 2, fails_at=list(range(2, 20)))) as pool, pytest.warns(UserWarning):
        pool.start()
        with pytest.raises(WorkerError, match=r"No worker is left, and none can be started: .*status 4"):
            for place, trained in pool.run(these):
                found[place] = trained.record.status
        assert found[0] == OK and set(found) <= {0, 1}
        assert (tmp_path / "start 7").exists() and not (tmp_path / "start 8").exists()


def test_a_process_that_cannot_be_made(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(workers, "WorkerProcess", fail)
    pool = make(tmp_path)
    with pytest.raises(WorkerError, match="cannot be made: Cannot allocate memory"):
        pool.start()
    with (
        pytest.raises(WorkerError, match=r"none can be started: .*Cannot allocate"),
        pytest.warns(UserWarning),
    ):
        list(pool.run(jobs("a")))


def test_a_second_try_is_alone(tmp_path, monkeypatch):
    """What is compiled beside it may be what crashes."""
    sent, real = [], workers.WorkerProcess.send

    def send(self, message):
        sent.extend(f"{what} {job.get('name', '')}".strip() for what, job in message.items())
        real(self, message)

    monkeypatch.setattr(workers.WorkerProcess, "send", send)
    run(make(tmp_path), jobs("crash", "a"))
    assert sent == ["setup", "train crash", "prepare a", "setup", "train crash", "setup", "train a"]


def test_what_takes_too_long(tmp_path):
    started = time.monotonic()
    found = run(make(tmp_path, limits=Limits(seconds=0.2)), jobs("hang", "a"))
    assert [found[place].record.status for place in range(2)] == [TIMED_OUT, OK]
    assert found[0].record.seconds > 0.3 and time.monotonic() - started < 50
    assert log(tmp_path).count("train hang") == 1  # another try would take as long


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_what_takes_too_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "RUNTIME_BYTES", 2**24)
    found = run(make(tmp_path, limits=Limits(memory=2**24)), jobs("a", "grow", "b"))
    assert [found[place].record.status for place in range(3)] == [OK, OUT_OF_MEMORY, OK]
    assert log(tmp_path).count("train grow") == 2


def test_a_stop_lets_what_has_begun_end(tmp_path):
    these = jobs("a", "b", "c", "d", "e", seconds=0.2)
    found = {}
    with closing(make(tmp_path, 2)) as pool:
        for place, trained in pool.run(these):
            found[place] = trained
            pool.stop()
        assert len(found) == 2 and set(found) == {0, 1}
        assert sorted(dict(pool.run(these[2:]))) == [0, 1, 2]


def test_who_stops_listening_leaves_nobody_behind(tmp_path):
    pool = make(tmp_path, 2)
    outcomes = pool.run(jobs("a", "hang", "b"))
    next(outcomes)
    outcomes.close()
    pool.close()
    assert all(gone(int(line.split()[1])) for line in log(tmp_path) if line.startswith("started"))


@pytest.mark.filterwarnings("ignore:.* workers are left")
@pytest.mark.parametrize(
    "fails, words", (("with words", "there are no data"), ("silently", "status 4 while"))
)
def test_workers_that_cannot_start(tmp_path, fails, words):
    pool = make(tmp_path, 2, fails=fails)
    with pytest.raises(WorkerError, match=words):
        pool.start()
    with pytest.raises(WorkerError, match=words), closing(pool):
        list(pool.run(jobs("a")))


PARENT = """
import sys
from elenas_jax.evaluation.workers import Limits, WorkerPool
pool = WorkerPool({command!r}, {{"folder": {folder!r}}}, 2, Limits(), 2)
list(pool.run([{{"name": n, "does": "hang", "score": 0.0}} for n in "ab"]))
"""


def test_workers_do_not_outlive_their_parent(tmp_path):
    """Those that read when it dies; that real ones do in the middle of a training, see test_worker."""
    code = PARENT.format(command=COMMAND, folder=str(tmp_path)).replace('"hang"', '"nothing", "seconds": 1.0')
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_until(lambda: (tmp_path / "log").exists() and sum("train" in line for line in log(tmp_path)) == 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers_of_it = [int(line.split()[1]) for line in log(tmp_path) if line.startswith("started")]
    wait_until(lambda: all(map(gone, workers_of_it)))
