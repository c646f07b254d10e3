"""The archive: the cache of the evaluator, and tables that others read."""

import json
import math
import sqlite3

import pytest

from elenas_jax.evaluation.cache import MemoryCache, Record
from elenas_jax.experiment.archive import NUM_BEST, Archive, Block, Row, best_block, export_rows, write_export
from elenas_jax.experiment.run_dir import RunError, run_dir
from tests.experiment.toy import run_toy

META = {"task_names": ("reber",), "reasons": ("valid",)}
RECORD = Record(0.1 + 0.2, (1 / 3, math.nan), 0, 7, 1e30, 12, 0.25)


@pytest.fixture(params=("memory", "archive"))
def cache(request, tmp_path):
    if request.param == "memory":
        yield MemoryCache()
    else:
        with Archive(tmp_path / "archive.sqlite") as archive:
            archive.open(META)
            yield archive


def row(generation, place, score, digest, status=0) -> Row:
    return Row(
        generation, place, digest, 1, status, "ok", 0, 0, score, 1, 1.0, 1, 0.5, '{"reber": 0.5}', "[]"
    )


def test_a_cache_gives_back_what_it_was_given(cache):
    cache.put([(b"a", "hash", RECORD), (b"\0b", "hash", RECORD._replace(score=0.5, metrics=()))])
    found = cache.get([b"a", b"\0b", b"c"])
    assert set(found) == {b"a", b"\0b"}
    assert found[b"a"]._replace(metrics=()) == RECORD._replace(metrics=())
    assert found[b"a"].metrics[0] == 1 / 3 and math.isnan(found[b"a"].metrics[1])
    assert cache.get([]) == {}


def test_the_first_training_stays(cache):
    cache.put([(b"a", "hash", RECORD)])
    cache.put([(b"a", "hash", RECORD._replace(score=9.0))])
    assert cache.get([b"a"])[b"a"].score == RECORD.score


def test_many_keys_at_once(cache):
    keys = [str(number).encode() for number in range(2500)]
    cache.put([(key, "hash", RECORD) for key in keys])
    assert len(cache.get(keys)) == 2500


def test_generations_of_trainings(tmp_path):
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open(META)
        for generation in (0, 1, 2):
            archive.generation = generation
            archive.put([(bytes([generation]), "hash", RECORD)])
        assert archive.trained_in([b"\0", b"\2", b"\7"]) == {b"\0": 0, b"\2": 2}
        assert [archive.num_evaluations(num) for num in range(4)] == [0, 1, 2, 3]


def test_the_best_are_different_and_first_come_first(tmp_path):
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open(META)
        archive.end_generation(
            [row(0, 1, 0.5, "b"), row(0, 0, 0.5, "a"), row(0, 2, 0.9, "failed", status=100)], []
        )
        archive.end_generation([row(1, 0, 0.7, "c"), row(1, 1, 0.5, "a"), row(1, 2, None, "unscored")], [])
        assert archive.best() == [(0.7, 1, 0, "c", 1), (0.5, 0, 0, "a", 1), (0.5, 0, 1, "b", 1)]
        archive.end_generation([row(2, place, 0.8, f"d{place}") for place in range(30)], [])
        assert len(archive.best()) == NUM_BEST


def test_a_transaction_is_whole(tmp_path):
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open(META)
        archive.end_generation([row(0, 0, 0.5, "a")], [Block("a", "y = x", "{}", "[]")])
        with pytest.raises(RunError):
            archive.end_generation([row(1, 0, 0.6, "b"), row(1, 1, 0.6, None)], [])
    rows = export_rows(tmp_path)
    assert [each["generation"] for each in rows] == [0]
    best = best_block(tmp_path)
    assert best is not None and best["text"] == "y = x"


def test_an_archive_of_another_search(tmp_path):
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open(META)
    with Archive(tmp_path / "archive.sqlite") as archive, pytest.raises(RunError, match="task_names"):
        archive.open({**META, "task_names": ("adding",)})


def test_the_schema_is_what_others_read(tmp_path):
    """Names and order of columns are public: data frames and reports depend on them."""
    run_toy(tmp_path, generations=2)
    connection = sqlite3.connect(run_dir(tmp_path).archive)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"meta", "evaluations", "candidates", "blocks"}
    columns = {
        table: [each[1] for each in connection.execute(f"PRAGMA table_info({table})")] for table in tables
    }
    assert columns["candidates"] == list(Row._fields)
    assert columns["blocks"] == list(Block._fields)
    assert columns["evaluations"] == [
        *("key", "hash", "generation", "score", "status", "parameters"),
        *("flops", "train_steps", "seconds", "metrics"),
    ]
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    assert {name: json.loads(value) for name, value in meta.items()} == {
        "schema_version": 1,
        "task_names": ["first", "second"],
        "reasons": ["valid", "sum is a multiple of five"],
    }
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_export_is_json_lines(tmp_path):
    run_toy(tmp_path / "run", generations=2)
    write_export(tmp_path / "run", tmp_path / "export.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "export.jsonl").read_text().splitlines()]
    assert lines[:-1] == export_rows(tmp_path / "run")
    assert lines[-1] == {"best": best_block(tmp_path / "run")}


def test_no_archive():
    with pytest.raises(RunError, match="no archive"):
        export_rows("nowhere")


def test_a_candidate_counts_with_its_largest_budget_and_the_mean_of_its_replicates(tmp_path):
    def trained(generation, place, score, digest, budget=0, replicate=0):
        return row(generation, place, score, digest)._replace(budget=budget, replicate=replicate)

    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.open(META)
        rows = [trained(0, 0, 0.9, "a"), trained(0, 1, 0.6, "b"), trained(0, 2, 0.5, "c")]
        rows += [trained(1, 0, 0.4, "a", 1, 0), trained(1, 1, 0.2, "a", 1, 1), trained(1, 2, 0.8, "b", 0, 1)]
        archive.end_generation(rows, [])
        assert archive.best() == [
            (pytest.approx(0.7), 0, 1, "b", 1),
            (0.5, 0, 2, "c", 1),
            (pytest.approx(0.3), 1, 0, "a", 1),
        ]
    best = best_block(tmp_path)
    assert best is not None and (best["hash"], best["score"]) == ("b", pytest.approx(0.7))


def test_an_archive_of_an_earlier_version_gets_the_index(tmp_path):
    def names():
        with sqlite3.connect(tmp_path / "archive.sqlite") as connection:
            return {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='index'")
            }

    for _ in range(2):
        with Archive(tmp_path / "archive.sqlite") as archive:
            archive.open(META)
            archive.end_generation([row(0, 0, 0.5, "a")], [])
        assert "candidates_by_hash" in names()
        with sqlite3.connect(tmp_path / "archive.sqlite") as connection:
            connection.execute("DROP INDEX candidates_by_hash")
        assert best_block(tmp_path)["hash"] == "a"
