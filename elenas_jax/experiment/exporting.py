"""Exports a block with weights: equations, LaTeX, a Flax module, JSON, StableHLO.

Weights are those that the evaluator trains, from the same data and initial weights, or freshly drawn.
Widths, head and settings of a training follow from the run a block is of, where it is of one.
"""

import json
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation.parallel import on_host
from elenas_jax.evaluation.training import VALIDATION
from elenas_jax.experiment import run_dir as runs
from elenas_jax.experiment.build import build_sequence_tasks, training_steps
from elenas_jax.experiment.config import INDIVIDUAL_NAME, check_config
from elenas_jax.experiment.longer import LongerTrial, Setting
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.graphs import (
    KNOWN_BLOCKS,
    REASONS,
    ComputationGraph,
    Program,
    equations,
    flax_source,
    init_params,
    is_recurrent,
    num_parameters,
    pack_params,
    unpack_params,
)
from elenas_jax.graphs.canonical import canonical_renaming
from elenas_jax.graphs.export import compiled_construct
from elenas_jax.graphs.latex import latex_document
from elenas_jax.graphs.stablehlo import stablehlo
from elenas_jax.graphs.statements import rounded
from elenas_jax.graphs.weights import flax_params, weights_file
from elenas_jax.spaces.elenas import to_json
from elenas_jax.types import OK, explain_status

RECORD = "export.json"  # says what a folder holds and how it was made; the first file written
_RECORD_KEYS = {"block", "class", "parameters", "weights"}  # that every record has
STEPS = 625  # of a training where neither a run nor the user says otherwise
_WIDTHS = {"in_features": 7, "out_features": 1, "time_steps": None}
_EVALUATOR = ("head", "hidden_features", "batch_size", "learning_rate")


class Request(NamedTuple):
    """What a block is exported for."""

    config: dict[str, Any]  # resolved; its first task is the one to train on
    is_trained: bool
    in_features: int
    out_features: int
    time_steps: int | None  # of networks that fit one length only; all others take any

    @property
    def widths(self) -> dict[str, Any]:
        """All that a program is constructed for but the length."""
        settings = {key: self.config["evaluator"][key] for key in ("hidden_features", "head")}
        return {"in_features": self.in_features, "out_features": self.out_features, **settings}


class Exported(NamedTuple):
    """An exported block."""

    files: dict[str, bytes]  # by name
    program: Program
    params: dict[str, Any]  # packed
    origin: str  # of the weights, in words


def make_request(
    block: str, *, task: str | None = None, steps: int | None = None, seed: int | None = None, **given: Any
) -> Request:
    """Resolves what a block is exported for: what is given, then what its run says, then defaults.

    Args:
      block: its name as for `read_blocks`; that of a run folder may have a rank behind it.
      task: to train on; None draws weights.
      steps: of the training.
      seed: of the training, or of drawn weights.
      **given: in_features, out_features, time_steps, hidden_features or head, None where not given.

    Raises:
      ConfigError: for an unknown name, a value out of range or a width that is not the task's.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if steps is not None and not task:
        raise ConfigError(f"--steps={steps}: nothing is trained without a task; say --task=... too.")
    config = _run_config(block)
    widths: dict[str, Any] = dict(_WIDTHS)
    if task:
        settings = {"steps": STEPS, **config.get("tasks", {}).get(task, {})}
        config |= {"ladder": (task,), "tasks": {task: settings | ({"steps": steps} if steps else {})}}
    if seed is not None:
        config["seed"] = seed
    chosen = {key: given[key] for key in _EVALUATOR if key in given}
    has_task = "ladder" in config
    config = check_config(config | {"evaluator": config.get("evaluator", {}) | chosen})
    if has_task:
        first = build_sequence_tasks(config)[0]
        widths = {key: getattr(first, key) for key in _WIDTHS}
    for key in widths:
        if task and given.get(key, widths[key]) != widths[key]:
            raise ConfigError(f"--{key}={given[key]}: with --task={task} it is {widths[key]}; leave it out.")
    return Request(config, bool(task), **widths | {key: given[key] for key in widths if key in given})


def class_name(block: str) -> str:
    """Returns a name for the class of a block: "linear_attention" becomes LinearAttention."""
    name = "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", block))
    return name if name.isidentifier() else f"Block{name}"


def export_block(block: str, graph: ComputationGraph, request: Request, name: str) -> Exported:
    """Trains or draws the weights of a block, and writes it in all forms.

    Args:
      block: what it is called.
      graph: of the block.
      request: see `make_request`.
      name: of the class.

    Raises:
      ConfigError: for a graph that is no network for these widths, with the reason, for a name that
        no class can have, or if the training diverged.
    """
    try:
        program = _construct(graph, request)
        widths = {**request.widths, "time_steps": program.time_steps}
        source = flax_source(graph, name, **widths)
    except ValueError as error:
        raise ConfigError(f"{block}: {error}") from error
    if request.is_trained:
        params, origin = _train(block, graph, program, request)
    else:
        seed = request.config["seed"]
        params, origin = init_params(jax.random.key(seed), program), f"drawn from seed {seed}, not trained"
    params, head = on_host(params), program.head
    record = {
        "block": block,
        "class": name,
        **widths,
        "parameters": num_parameters(program),
        "weights": origin,
        **{key: value for key, value in runs.session("").items() if key in ("commit", "versions", "command")},
    }
    texts = {
        RECORD: json.dumps(runs.plain(record), indent=2, sort_keys=True) + "\n",
        "block.txt": equations(graph, head) + "\n",
        "block.tex": latex_document(graph, head, block),
        "block.py": _described(name, program, origin) + source,
        "block.json": json.dumps(to_json(graph)) + "\n",
    }
    binary = {
        "block.npz": weights_file(flax_params(graph, program, params)),
        "block.stablehlo": stablehlo(program, params),
    }
    # Names of folders may hold bytes that are no text.
    files = {key: text.encode(errors="replace") for key, text in texts.items()}
    return Exported(files | binary, program, params, origin)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raises ConfigError if no export can be written there, or if something else would be in its way.

    Args:
      folder: may be missing; then it is made when the export is written.
      overwrite: whether files that are no export may be there.
    """
    nearest = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), Path("/"))
    if not nearest.is_dir():
        raise ConfigError(f"--out={folder}: {nearest} is a file; name a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"--out={folder}: {nearest} cannot be written; choose another folder.")
    if overwrite or nearest != folder:
        return
    there = {path.name for path in folder.iterdir()} - {_draft(RECORD)}
    if there and not _is_record(folder / RECORD):
        raise ConfigError(
            f"--out={folder}: it is not empty and holds no export; choose another folder, or say --overwrite."
        )


def _is_record(path: Path) -> bool:
    """Whether an export wrote this file; others are named export.json, too."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.keys() >= _RECORD_KEYS


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes each file as a whole or not at all; other files of the folder stay.

    Raises:
      RunError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            draft = folder / _draft(name)
            draft.write_bytes(data)
            os.replace(draft, folder / name)
    except OSError as error:
        raise runs.RunError(f"Cannot write in {folder}: {error.strerror}; choose another --out.") from error


def _draft(name: str) -> str:
    return f".{name}.tmp"


def _run_config(block: str) -> dict[str, Any]:
    """Returns what an export takes from the config of the run a block is of; empty if it is of none."""
    run = runs.run_dir(re.sub(r":\d+$", "", block))
    if block in KNOWN_BLOCKS or not run.config.exists():
        return {}
    stored = runs.read_json(run.config)
    try:
        config = {key: stored[key] for key in ("seed", "ladder", "tasks")}
        if stored["evaluator"].get("name") == INDIVIDUAL_NAME:
            return config  # its recipe is another one, and its head and widths are the defaults
        return config | {"evaluator": {key: stored["evaluator"][key] for key in _EVALUATOR}}
    except (AttributeError, KeyError, TypeError) as error:
        raise runs.RunError(f"{run.config} is damaged: it is no config of a search ({error}).") from error


def _construct(graph: ComputationGraph, request: Request) -> Program:
    """Returns the program, for any length if the network is the same for all, on the host."""

    def construct(time_steps: int | None) -> Program:
        return on_host(compiled_construct(rounded(graph), **request.widths, time_steps=time_steps))

    program = construct(None)
    if request.time_steps is None or program.status == OK:
        return program
    return construct(request.time_steps)


def _train(
    block: str, graph: ComputationGraph, program: Program, request: Request
) -> tuple[dict[str, Any], str]:
    """Returns packed parameters after the training that an evaluator would do, and what it was."""
    config = request.config
    tasks = build_sequence_tasks(config)
    (steps,) = training_steps(config, tasks)
    settings = {key: config["evaluator"][key] for key in _EVALUATOR}
    trial = LongerTrial(
        graph, tasks[0], tasks, Setting(jax.random.key(config["seed"]), steps, **settings), kind=VALIDATION
    )
    state, measured = trial.train(0)
    if state is None or measured.status != OK:
        raise ConfigError(
            f"{block}: there are no weights to export after {steps} steps on {tasks[0].name}: "
            f"{explain_status(measured.status, REASONS)}."
        )
    # What is trained is the representative, whose nodes have other numbers.
    flat = np.asarray(state.params)
    trained: dict[int | str, np.ndarray] = {}
    for node, value in unpack_params(trial.program, init_params(jax.random.key(0), trial.program)).items():
        trained[node] = flat[: value.size].reshape(value.shape)
        flat = flat[value.size :]
    renaming = canonical_renaming(graph, program.head)
    named = {node: trained.pop(other) for node, other in renaming.items() if other in trained}
    origin = (
        f"trained for {steps} steps on {tasks[0].name}, seed {config['seed']}, "
        f"validation accuracy {measured.accuracies[0]:.3f}"
    )
    return pack_params(program, named | trained), origin


def _described(name: str, program: Program, origin: str) -> str:
    """Returns the docstring of the module's file, with how its weights are loaded."""
    steps = "T" if program.time_steps is None or program.recurrent else str(program.time_steps)
    shapes = f"[N, {steps}, {program.in_features}] -> [N, rows, {program.out_features}]"
    model, params = f"{name}()", "params"
    if is_recurrent(program):
        shapes = shapes.replace("rows", "T")
        model, params = f"nn.RNN({name}())", '{"cell": params}'
    lines = [
        '"""A block of elenas_jax; its weights are in block.npz.',
        "",
        *textwrap.wrap(f"They were {origin}.", 92),
        "",
        "    import flax.linen as nn",
        "    import numpy as np",
        "    from block import " + name,
        "    from flax.traverse_util import unflatten_dict",
        "",
        '    params = unflatten_dict(dict(np.load("block.npz")), sep="/")',
        f'    outputs = {model}.apply({{"params": {params}}}, inputs)  # {shapes}',
        '"""',
    ]
    return "\n".join(lines) + "\n\n"
