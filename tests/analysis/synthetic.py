"""Run folders and drawings made up for tests: the files of a search without the search."""

import json
import random
from pathlib import Path
from typing import Any

from elenas_jax.evaluation.cache import Record
from elenas_jax.experiment.archive import Archive, Block, Row
from elenas_jax.experiment.run_dir import append_metrics, read_json, run_dir, write_json
from elenas_jax.graphs import ComputationGraph, to_edges
from elenas_jax.ops import COMBINING, COMBINING_BY_NAME, TRANSFORMING, TRANSFORMING_BY_NAME

TASKS = ("reber", "embedded_reber")
STATUSES = {
    1: "invalid: no path from input",
    2: "invalid: no final node",
    4: "invalid: shapes do not fit",
    100: "diverged",
}


def draw_graph(graph: ComputationGraph) -> dict[str, Any]:
    """A drawing of all nodes of a graph that have edges, dead ones too; the last node is the output."""
    triples = to_edges(graph)
    names = {target: name for source, target, name in triples if source == target}
    edges = [
        (source, target, COMBINING_BY_NAME[name]) for source, target, name in triples if source != target
    ]
    used = sorted({0} | {node for source, target, _ in edges for node in (source, target)})
    feeding = {source for source, _, row in edges if not row.delayed}
    final = max((node for node in used if node and node % 2 == 0 and node not in feeding), default=used[-1])
    nodes = []
    for node in used:
        kind = "input" if node == 0 else "initial" if node % 2 else "intermediate"
        row = TRANSFORMING_BY_NAME[names.get(node, "identity")]
        label = "x" if node == 0 else f"{'w' if node % 2 else 'h'}{node}"
        operation = row.name if kind == "intermediate" else ""
        nodes.append(
            dict(
                id=node,
                kind=kind,
                label=label,
                operation=operation,
                colour=row.colour,
                is_output=node == final,
            )
        )
    return {
        "nodes": nodes,
        "edges": [
            dict(
                source=source,
                target=target,
                operation=row.name,
                symbol=row.symbol,
                colour=row.colour,
                delayed=row.delayed,
            )
            for source, target, row in edges
        ],
        "legend": [{"label": row.name, "colour": row.colour} for row in (*COMBINING[1:], *TRANSFORMING)],
    }


def random_drawing(seed: int, num_nodes: int, num_edges: int) -> dict[str, Any]:
    """A drawing with edges between any nodes: cycles, loops and parallel edges included."""
    numbers = random.Random(seed)
    nodes = []
    for node in range(num_nodes):
        kind = "input" if node == 0 else numbers.choice(("initial", "intermediate", "intermediate"))
        operation = numbers.choice(TRANSFORMING)
        label = f"n{node}" * numbers.choice((1, 1, 1, 9))
        nodes.append(
            dict(
                id=f"node {node}",
                kind=kind,
                label=label,
                operation=operation.name if kind == "intermediate" else "",
                colour=operation.colour,
                is_output=node == num_nodes - 1,
            )
        )
    edges = []
    for _ in range(num_edges):
        row = numbers.choice(COMBINING[1:])
        source, target = numbers.randrange(num_nodes), numbers.randrange(num_nodes)
        edges.append(
            dict(
                source=f"node {source}",
                target=f"node {target}",
                operation=row.name,
                symbol=row.symbol,
                colour=row.colour,
                delayed=row.delayed or numbers.random() < 0.1,
            )
        )
    legend = [{"label": row.name, "colour": row.colour} for row in (*COMBINING[1:], *TRANSFORMING)]
    return {"nodes": nodes, "edges": edges, "legend": legend}


def write_run(
    path: Path,
    *,
    seed: int = 0,
    num_generations: int = 12,
    num_proposals: int = 20,
    valid_share: float = 0.4,
    drawings: tuple[dict[str, Any], ...] = (),
    texts: tuple[str, ...] = (),
) -> Path:
    """Writes the files of a run whose scores rise with the generations, through the run's own writers.

    `texts` describe what `drawings` show; by default equations are made up.
    """
    numbers = random.Random(seed)
    files = run_dir(path)
    files.path.mkdir(parents=True, exist_ok=True)
    config = {"seed": seed, "space": {"name": "elenas", "num_nodes": 12}, "strategy": {"name": "reinforce"}}
    write_json(files.config, config)
    session = {
        "devices": ["cpu:0"],
        "commit": "0123abc",
        "versions": {"jax": "0.10.2"},
        "command": ["search.py"],
    }
    write_json(files.provenance, {"seed": seed, "sessions": [session]})
    drawings = drawings or tuple(random_drawing(seed + i, 8, 12) for i in range(3))
    known: dict[str, Record] = {}
    with Archive(files.archive) as archive:
        archive.open(
            {
                "task_names": list(TASKS),
                "reasons": ["valid", *(t.removeprefix("invalid: ") for t in STATUSES.values())],
            }
        )
        for generation in range(num_generations):
            archive.generation = generation
            rows, blocks = [], []
            for place in range(num_proposals):
                is_valid = numbers.random() < valid_share * (0.4 + 1.2 * generation / num_generations)
                digest = f"{numbers.randrange(60) * 37 % 61 + 128 * is_valid:02x}{seed:030x}"
                is_new = is_valid and digest not in known
                if is_new:
                    status = 0 if numbers.random() < 0.95 else 100
                    score = (
                        0.4 * numbers.random() * (0.4 + generation / num_generations) if status == 0 else 0.0
                    )
                    metrics = (0.5 + score, 0.4 + score if score > 0.2 else float("nan"))
                    known[digest] = Record(score, metrics, status, 4_000 + place, 1e5, 625, 0.5)
                    archive.put([(digest.encode(), digest, known[digest])])
                if is_valid:
                    record = known[digest]
                else:
                    status = numbers.choice((1, 1, 2, 4))
                    record = Record(0.0, (float("nan"),) * len(TASKS), status, 0, 0.0, 0, 0.0)
                values = [None if value != value else value for value in record.metrics]
                rows.append(
                    Row(
                        generation=generation,
                        place=place,
                        hash=digest,
                        is_new=int(is_new),
                        status=record.status,
                        status_text=STATUSES.get(record.status, "ok"),
                        budget=0,
                        replicate=0,
                        score=record.score,
                        parameters=record.parameters,
                        flops=record.flops,
                        train_steps=record.train_steps,
                        seconds=record.seconds,
                        metrics=json.dumps(dict(zip(TASKS, values))),
                        candidate=json.dumps({"edges": []}),
                    )
                )
                if is_new and record.status == 0:
                    drawing = drawings[len(known) % len(drawings)]
                    text = f"h{place} = tanh(x @ w1 + w3)\ny = h{place} * h{place} < 1"
                    text = texts[len(known) % len(drawings)] if texts else text
                    blocks.append(Block(digest, text, json.dumps(drawing), "{}"))
            archive.end_generation(rows, blocks)
            line = {"generation": generation, "proposals": num_proposals, "seconds": 2.5}
            strategy = {
                "entropy": 3 / (1 + generation),
                "gradient_norm": float("nan") if generation % 5 == 4 else 0.1,
            }
            append_metrics(files, line | {"total_evaluations": len(known), "strategy": strategy})
    return files.path


def configure(path: Path, **changes: Any) -> Path:
    """Gives a run the keys that a resolved config has, and these."""
    config = {"ladder": list(TASKS), "generations": 0, "evaluations": 0, "minutes": 0.0}
    write_json(path / "config.json", read_json(path / "config.json") | config | changes)
    return path
