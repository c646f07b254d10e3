"""Exports: files that work without this package, weights that are the evaluator's, mistakes in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from elenas_jax.evaluation.trainer import sample_batches
from elenas_jax.evaluation.training import VALIDATION, data_key
from elenas_jax.experiment.blocks import read_blocks
from elenas_jax.experiment.build import build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.exporting import (
    RECORD,
    check_folder,
    class_name,
    export_block,
    make_request,
    write_files,
)
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError, write_json
from elenas_jax.graphs import (
    KNOWN_BLOCKS,
    ComputationGraph,
    canonical_hash,
    equations,
    from_edges,
    interpret,
    specialise,
    to_edges,
)
from elenas_jax.graphs.weights import flax_params
from elenas_jax.tasks import LOSSES
from tests.graphs.known_programs import IN, WIDTHS, interpret_with_gradients
from tests.graphs.random_graphs import KINDS, QUICK_TO_COMPILE, Widths, draw, kind

SOME = ("lstm", "elena2", "linear_attention")
DRAWN_FOR = Widths(WIDTHS["in_features"], WIDTHS["out_features"], WIDTHS["hidden_features"], "linear", None)
EXAMPLES, STEPS = 2, 5
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported():
    """Blocks by name: graph, exported files and program."""
    graphs = {name: KNOWN_BLOCKS[name] for name in SOME}
    drawn = draw(23, 4, 0, 12, DRAWN_FOR, False, KINDS)
    assert {kind(found.network) for found in drawn} == set(KINDS)
    graphs |= {f"random_{place}": ComputationGraph(found.edges) for place, found in enumerate(drawn)}
    request = make_request("lstm", **WIDTHS)
    return {
        name: (graph, export_block(name, graph, request, class_name(name))) for name, graph in graphs.items()
    }


# Compiling is most of what this takes.
interpret_quickly = jax.jit(interpret_with_gradients.__wrapped__, compiler_options=QUICK_TO_COMPILE)


def case_of(graph, export, program, seed):
    """Returns inputs, a cotangent and what the interpreter makes of them, by the names of `run_exported`."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(EXAMPLES, STEPS, IN)).astype(np.float32)
    shape = jax.eval_shape(interpret, program, export.params, inputs).shape
    num_rows = STEPS if program.recurrent or program.rows[program.output] != 1 else 1
    cotangent = rng.normal(size=shape).astype(np.float32)
    cotangent[:, num_rows:] = 0  # under jit a result of one row stands in all rows
    outputs, of_params, of_inputs = interpret_quickly(program, export.params, inputs, cotangent)
    variables = flatten_dict(flax_params(graph, export.program, jax.device_get(of_params))["params"], sep="/")
    return {
        "inputs": inputs,
        "cotangent": cotangent[:, :num_rows],
        "outputs": outputs[:, :num_rows],
        "of_inputs": of_inputs,
    } | {f"of/{name}": gradient for name, gradient in variables.items()}


def by_layout(exported):
    """Yields name and program; those of a layout are alike, and compiled once."""
    groups: dict[str, list[str]] = {}
    for name, (_, export) in exported.items():
        groups.setdefault(str(specialise(export.program).layout), []).append(name)
    for names in groups.values():
        programs = [exported[name][1].program for name in names]
        together = specialise(jax.tree.map(lambda *leaves: np.stack(leaves), *programs))
        for place, name in enumerate(names):
            yield name, jax.tree.map(lambda leaf, place=place: leaf[place], together)


def test_exported_files_work_alone(exported, tmp_path):
    about = {}
    for seed, (name, program) in enumerate(by_layout(exported)):
        graph, export = exported[name]
        write_files(tmp_path / name, export.files)
        np.savez(tmp_path / name / "case.npz", **case_of(graph, export, program, seed))
        about[name] = [class_name(name), bool(program.recurrent)]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-I", Path(__file__).with_name("run_exported.py"), json.dumps(about)],
        cwd=tmp_path,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in exported}


def test_exported_files_say_what_they_are(exported):
    export = exported["elena2"][1]
    texts = {name: data.decode() for name, data in export.files.items() if not name.endswith(("npz", "hlo"))}
    assert texts["block.txt"].startswith("h = tanh(") and r"y &= (x W_2) \odot h" in texts["block.tex"]
    assert (
        "from block import Elena2" in texts["block.py"]
        and "class Elena2(nn.RNNCellBase)" in texts["block.py"]
    )
    assert "nn.RNN(Elena2()).apply(" in texts["block.py"] and "[N, T, 3] -> [N, T, 2]" in texts["block.py"]
    assert "drawn from seed 0, not trained" in texts["block.py"] and export.origin in texts["block.py"]
    record = json.loads(texts[RECORD])
    assert record["parameters"] == 2 * IN * 5 + 2 * 5 + 6 * 2 and record["weights"] == export.origin
    whole = exported["linear_attention"][1].files["block.py"].decode()
    assert "LinearAttention().apply(" in whole and "[N, T, 3] -> [N, rows, 2]" in whole


def test_graphs_come_back(exported, tmp_path):
    for name, (graph, export) in exported.items():
        write_files(tmp_path / name, export.files)
        [found] = read_blocks([str(tmp_path / name / "block.json")]).values()
        assert to_edges(found) == to_edges(graph) and found.num_nodes == graph.num_nodes


def test_exported_modules_are_formatted(exported, tmp_path):
    for name, (_, export) in exported.items():
        (tmp_path / f"{name}.py").write_bytes(export.files["block.py"])
    settings = ["--isolated", "--line-length=100", "--no-cache", tmp_path]
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


# --- what is asked for ---


def run_folder(path, **changes):
    """Writes the config of a run that searched on short sequences."""
    config = check_config(
        {
            "seed": 4,
            "ladder": ("memory", "adding"),
            "tasks": {"adding": {"length": 6, "valid_samples": 64, "steps": 70}, "memory": {"length": 5}},
            "evaluator": {"hidden_features": 8, "batch_size": 16, "learning_rate": 1e-2, "head": "linear"},
        }
    )
    path.mkdir()
    write_json(path / "config.json", config | changes)
    return str(path)


def test_trained_weights_are_those_of_the_evaluator(tmp_path):
    # elena2 with nodes in other places than its representative has, and dead ones.
    moved = {0: 0, 1: 5, 2: 10, 3: 1, 4: 2, 5: 9, 6: 8, 7: 3, 8: 4}
    edges = [(moved[a], moved[b], name) for a, b, name in to_edges(KNOWN_BLOCKS["elena2"])]
    graph = from_edges(13, [*edges, (11, 12, "add")])
    assert canonical_hash(graph) == canonical_hash(KNOWN_BLOCKS["elena2"])
    request = make_request(f"{run_folder(tmp_path / 'run')}:3", task="adding")
    export = export_block("elena2", graph, request, "Elena2")
    (task,) = build_tasks(request.config)
    key = jax.random.fold_in(data_key(jax.random.key(4), 0), VALIDATION)
    inputs, targets = sample_batches(task.sample, 16, task.in_features, key, 0)
    inputs, targets = inputs[:4].reshape(64, 6, 2), targets[:4].reshape(64, 1)
    outputs = interpret(export.program, export.params, jnp.asarray(inputs))[:, -1]
    rules = LOSSES[task.loss]
    accuracy = float(jnp.mean(rules.right_fn(outputs, targets)))
    assert export.origin == f"trained for 70 steps on adding, seed 4, validation accuracy {accuracy:.3f}"
    # Weights in wrong places would do no better than the best constant.
    constant = jnp.full_like(targets, jnp.mean(targets))
    assert jnp.mean(rules.loss_fn(outputs, targets)) < 0.7 * jnp.mean(rules.loss_fn(constant, targets))


def test_requests_follow_from_flags_runs_and_defaults(tmp_path):
    def settings(request):
        evaluator = request.config["evaluator"]
        return (*request.widths.values(), request.time_steps, request.config["seed"], evaluator["batch_size"])

    plain = make_request("lstm")
    assert settings(plain) == (7, 1, 64, "linear", None, 0, 32) and not plain.is_trained
    given = make_request("lstm", in_features=3, head="none", seed=9, time_steps=12)
    assert settings(given) == (3, 1, 64, "none", 12, 9, 32)
    trained = make_request("lstm", task="adding", hidden_features=16)
    assert settings(trained) == (2, 1, 16, "linear", 32, 0, 32) and trained.is_trained
    assert trained.config["tasks"]["adding"]["steps"] == 625
    path = run_folder(tmp_path / "run")
    for name in (path, f"{path}:12"):
        request = make_request(name)
        assert (
            settings(request) == (7, 7, 8, "linear", 5, 4, 16) and not request.is_trained
        )  # memory's widths
    trained = make_request(path, task="adding", seed=1, head="none")
    assert settings(trained) == (2, 1, 8, "none", 6, 1, 16)
    assert trained.config["tasks"]["adding"]["steps"] == 70
    assert trained.config["evaluator"]["learning_rate"] == 1e-2
    assert make_request(path, task="adding", steps=5).config["tasks"]["adding"]["steps"] == 5
    assert make_request(path, task="reber").config["tasks"]["reber"]["steps"] == 625
    # Trained one by one: by another recipe, with the head and the width of the space's defaults.
    path = run_folder(tmp_path / "single", evaluator={"name": "individual", "batch_size": 7})
    assert settings(make_request(path)) == (7, 7, 64, "linear", 5, 4, 32)


def test_wrong_requests_are_told(tmp_path):
    with pytest.raises(ConfigError, match="--in_features=3: with --task=adding it is 2; leave it out"):
        make_request("lstm", task="adding", in_features=3)
    with pytest.raises(ConfigError, match="hidden_features=0 is out of range"):
        make_request("lstm", hidden_features=0)
    with pytest.raises(ConfigError, match=r"--steps=5: nothing is trained without a task; say --task"):
        make_request("lstm", steps=5)
    with pytest.raises(ConfigError, match="'parity'"):
        make_request("lstm", task="parity")
    path = run_folder(tmp_path / "run", evaluator={"head": "linear"})
    with pytest.raises(RunError, match=r"config\.json is damaged: .* \('hidden_features'\)"):
        make_request(path)


def test_class_names():
    names = ["lstm", "linear_attention", "small:3", "run/7-best", "3x", ""]
    assert [class_name(name) for name in names] == [
        "Lstm",
        "LinearAttention",
        "Small3",
        "Run7Best",
        "Block3x",
        "Block",
    ]


def test_what_cannot_be_exported_is_told():
    request = make_request("lstm", **WIDTHS)
    with pytest.raises(ConfigError, match=r"^found: .*no path from input"):
        export_block("found", from_edges(3, [(1, 2, "add")]), request, "Found")
    with pytest.raises(ConfigError, match=r"^lstm: name is 'my class'"):
        export_block("lstm", KNOWN_BLOCKS["lstm"], request, "my class")


def test_networks_of_one_length_need_it():
    edges = [(0, 2, "add"), (2, 2, "transpose"), (2, 4, "matmul"), (1, 4, "matmul"), (4, 4, "mean_rows")]
    graph = from_edges(7, [*edges, (3, 6, "matmul"), (4, 6, "matmul")])
    with pytest.raises(ConfigError, match="needs a fixed length"):
        export_block("mean", graph, make_request("mean", **WIDTHS), "Mean")
    request = make_request("mean", **WIDTHS, time_steps=4)
    export = export_block("mean", graph, request, "Mean")
    assert export.program.time_steps == 4 and b"[N, 4, 3] -> [N, rows, 2]" in export.files["block.py"]
    assert export_block("elman", KNOWN_BLOCKS["elman"], request, "Elman").program.time_steps is None


def test_folders_of_others_are_left_alone(tmp_path):
    folder = tmp_path / "out"
    check_folder(folder, False)
    record = {"block": "lstm", "class": "Lstm", "parameters": 3, "weights": "drawn", "commit": None}
    write_files(folder, {RECORD: json.dumps(record).encode(), "block.txt": b"old"})
    check_folder(folder, False)  # an export is replaced
    write_files(folder, {"block.txt": b"new"})
    assert (folder / "block.txt").read_bytes() == b"new" and len(list(folder.iterdir())) == 2
    other = tmp_path / "other"
    write_files(other, {"thesis.tex": b"years"})
    with pytest.raises(ConfigError, match="not empty and holds no export"):
        check_folder(other, False)
    check_folder(other, True)
    for below in ("", "a", "a/b"):  # said before a training, not after it
        with pytest.raises(ConfigError, match=r"thesis\.tex is a file; name a folder"):
            check_folder(other / "thesis.tex" / below, True)
    check_folder(other / "a" / "b", False)
    with pytest.raises(RunError, match=r"Cannot write in .*thesis.tex"):
        write_files(other / "thesis.tex", {"block.txt": b""})


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b"\xff", b'{"block": "lstm"}', b"[" * 100_000])
def test_a_file_of_the_name_alone_makes_no_export(tmp_path, content):
    write_files(tmp_path, {RECORD: content})
    with pytest.raises(ConfigError, match="not empty and holds no export"):
        check_folder(tmp_path, False)
    check_folder(tmp_path, True)


def test_names_that_are_no_text(exported):
    name = os.fsdecode(b"run\xff:1")
    files = export_block(name, KNOWN_BLOCKS["elena2"], make_request("elena2", **WIDTHS), "Elena2").files
    assert json.loads(files[RECORD])["block"] == name
    assert r"\section*{run" in files["block.tex"].decode()
    assert files["block.npz"][:2] == exported["elena2"][1].files["block.npz"][:2] == b"PK"


def test_the_script(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / "export.py", *arguments],
            cwd=tmp_path,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    widths = [f"--{name}={value}" for name, value in WIDTHS.items()]
    done = run("--block=elena2", "--out=out", "--name=Cell", *widths)
    assert done.returncode == 0, done.stderr
    *lines, about, files = done.stdout.splitlines()
    assert lines == equations(KNOWN_BLOCKS["elena2"]).splitlines()
    assert about == "52 parameters, drawn from seed 0, not trained"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files.split(": ")[1].split(", ")
    assert (
        "<svg" in (tmp_path / "out" / "block.svg").read_text()
        and "class Cell(" in (tmp_path / "out" / "block.py").read_text()
    )
    (tmp_path / "notes.txt").touch()
    done = run("--block=elena2", "--out=.")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --out=.: it is not empty")
