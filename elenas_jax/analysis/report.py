"""The report of a run: figures, drawn best blocks and one HTML file that needs nothing else."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from elenas_jax.analysis import tables
from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.load import Run, load_runs
from elenas_jax.analysis.plots import write_figures
from elenas_jax.experiment.run_dir import RunError, run_dir, write_atomically

_STYLE = """
body { margin: 0; background: #f5f6f8; color: #26292e; }
body { font: 15px/1.5 -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 34px 0 10px; }
p { margin: 4px 0 10px; }
.subtitle, .none, .note { color: #5f6670; }
.card, .facts div { background: #fff; border: 1px solid #e1e4e8; border-radius: 8px; }
.card { padding: 14px 16px; margin: 0 0 14px; overflow-x: auto; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.facts div { padding: 9px 13px; }
.facts b { display: block; font-size: 18px; font-weight: 600; }
.facts span { color: #5f6670; font-size: 13px; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eef0f2; }
th { color: #5f6670; font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.figure { width: 100%; max-width: 720px; display: block; margin: 0 auto; }
pre { background: #f5f6f8; border-radius: 6px; padding: 9px 12px; margin: 8px 0 0; overflow-x: auto; }
pre { font: 13px/1.45 Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: 8px 0; }
summary { cursor: pointer; color: #3d4a5c; }
"""


def write_report(path: str | os.PathLike, num_blocks: int = 5) -> Path:
    """Writes figures/ and report.html into a run folder, or the folder of several seeds.

    Args:
      path: the folder of a run, or one that holds `seed_0`, `seed_1`, ...
      num_blocks: how many of the best blocks are drawn.

    Returns:
      The path of report.html.

    Raises:
      RunError: if the folder holds no run, is damaged or cannot be written; one line.
    """
    root = run_dir(path)
    runs = load_runs(path, num_best=max(20, num_blocks))
    try:
        pictures = _draw_blocks(runs, num_blocks)
        figures = write_figures(runs, root.figures)
        for old in root.figures.glob("block_*.svg"):
            old.unlink()
        for rank, picture in pictures.items():
            write_atomically(root.figures / f"block_{rank}.svg", picture)
        write_atomically(root.report, _page(root.path, runs, figures, pictures, num_blocks))
    except OSError as error:
        raise RunError(f"Cannot write the report to {root.path}: {error.strerror or error}.") from error
    return root.report


def print_summary(path: str | os.PathLike, num_blocks: int = 5) -> None:
    """Prints what a run found: setting, runs, what became of the candidates, best blocks, equations."""
    runs = load_runs(path, num_best=max(20, num_blocks))
    print(_subtitle(runs), end="\n\n")
    for table in (
        tables.summary_table(runs),
        tables.reasons_table(runs),
        tables.best_blocks_table(runs, num_blocks),
    ):
        tables.show(table)
        print()
    for block in tables.best_blocks(runs, 1):
        if block["text"]:
            print(f"Equations of block {block['hash'][: tables.HASH_LENGTH]}")
            print("\n".join(f"  {line}" for line in block["text"].splitlines()))


def _draw_blocks(runs: Sequence[Run], num_blocks: int) -> dict[int, str]:
    """Returns the picture of each of the best blocks by its rank."""
    pictures = {}
    for block in tables.best_blocks(runs, num_blocks):
        if block["drawing"] is not None:
            try:
                pictures[block["rank"]] = draw_block(block["drawing"], _title(block, len(runs) > 1))
            except ValueError as error:
                raise RunError(f"The archive is damaged: block {block['hash']}: {error}") from error
    return pictures


def _title(block: Mapping[str, Any], several: bool) -> str:
    seed = f", seed {block['seed']}" if several else ""
    name = block["hash"][: tables.HASH_LENGTH]
    score, parameters = tables.number(block["score"]), tables.count(block["parameters"])
    return f"{block['rank']}. block {name}: score {score}, {parameters} parameters{seed}"


# The page -------------------------------------------------------------------------------------


def _page(
    path: Path, runs: Sequence[Run], figures: Mapping[str, Path], pictures: Mapping[int, str], num_blocks: int
) -> str:
    name = _text(path.name)
    figure_cards = "\n".join(
        _figure_card(figures[figure], figure) for figure in ("best_so_far", "reward", "validity")
    )
    several = '<section class="card">' + tables.to_html(tables.summary_table(runs)) + "</section>"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Search report: {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Search report: {name}</h1>
<p class="subtitle">{_text(_subtitle(runs))}</p>
{_facts(runs)}
<h2>Runs</h2>
{several}
<h2>Best blocks</h2>
<section class="card">{tables.to_html(tables.best_blocks_table(runs, max(10, num_blocks)))}</section>
{_block_cards(runs, pictures, num_blocks)}
<h2>Course of the search</h2>
{figure_cards}
<h2>What became of the candidates</h2>
<section class="card">{tables.to_html(tables.reasons_table(runs))}
<p class="note">A draw is a proposed candidate, valid or not. An evaluation is a valid
candidate that was not known before and was trained.</p></section>
<h2>How it was run</h2>
{_provenance(runs)}
</main>
</body>
</html>
"""
    # Names of files may hold bytes that are no text.
    return page.encode("utf-8", "replace").decode("utf-8")


def _text(value: Any) -> str:
    """Returns `value` as text of a page, without what XML cannot hold."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(value)))


def _subtitle(runs: Sequence[Run]) -> str:
    config = runs[0].config
    space, strategy = (config.get(key) for key in ("space", "strategy"))
    parts = [
        f"space {space.get('name', '-')}" if isinstance(space, Mapping) else "",
        f"strategy {strategy.get('name', '-')}{_policy(strategy)}" if isinstance(strategy, Mapping) else "",
        "tasks " + ", ".join(runs[0].task_names) if runs[0].task_names else "",
        f"{len(runs)} seeds" if len(runs) > 1 else f"seed {runs[0].seed}",
    ]
    return ", ".join(part for part in parts if part)


def _policy(strategy: Mapping[str, Any]) -> str:
    """Says where a policy comes from, if the strategy learns one."""
    if "pretrained" not in strategy:
        return ""
    return f" pre-trained in {strategy['pretrained']}" if strategy["pretrained"] else " from scratch"


def _facts(runs: Sequence[Run]) -> str:
    draws = sum(row["proposals"] for run in runs for row in run.scores)
    valid = sum(row["valid"] for run in runs for row in run.scores)
    best = max((run.best[0]["score"] for run in runs if run.best), default=None)
    facts = [
        ("best score", tables.number(best)),
        ("evaluations", tables.count(sum(len(run.evaluation_scores) for run in runs))),
        ("draws", tables.count(draws)),
        ("valid draws", f"{100 * valid / draws:.1f}%" if draws else "-"),
        ("generations", tables.count(sum(len(run.scores) for run in runs))),
        ("time", tables.duration(sum(tables.seconds(run) for run in runs))),
    ]
    return (
        '<div class="facts">'
        + "".join(f"<div><b>{_text(b)}</b><span>{a}</span></div>" for a, b in facts)
        + "</div>"
    )


def _figure_card(path: Path, name: str) -> str:
    # As an image, so that the names inside one figure cannot meet those of another.
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    about = name.replace("_", " ")
    image = f'<img class="figure" alt="{about}" src="data:image/svg+xml;base64,{data}"/>'
    return f'<section class="card">{image}</section>'


def _block_cards(runs: Sequence[Run], pictures: Mapping[int, str], num_blocks: int) -> str:
    cards = []
    for block in tables.best_blocks(runs, num_blocks):
        metrics = ", ".join(
            f"{name} {tables.number(value, 3)}"
            for name, value in block["metrics"].items()
            if value is not None
        )
        picture = pictures.get(block["rank"], '<p class="none">No drawing is stored for this block.</p>')
        equations = f"<pre>{_text(block['text'])}</pre>" if block["text"] else ""
        line = f'<p class="note">{_text(metrics)}</p>' if metrics else ""
        cards.append(f'<section class="card">{picture}{line}{equations}</section>')
    return "\n".join(cards)


def _provenance(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        name = f" of {run.path.name}" if len(runs) > 1 else ""
        for what, value in (("Versions, devices, commit", run.provenance), ("Config", run.config)):
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            parts.append(f"<details><summary>{what}{_text(name)}</summary><pre>{_text(text)}</pre></details>")
    return f'<section class="card">{_devices(runs)}{"".join(parts)}</section>'


def _devices(runs: Sequence[Run]) -> str:
    """Returns the last session's devices, commit and versions as a small table."""
    provenance = runs[-1].provenance
    sessions = provenance.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else provenance
    if not isinstance(last, Mapping):
        return ""
    rows: list[tuple[str, ...]] = []
    for key in ("devices", "commit", "platform", "command", "versions"):
        value = last.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = (" " if key == "command" else ", ").join(map(str, value))
        if value:
            rows.append((key, str(value)))
    return tables.to_html(tables.Table("", ("", "last session"), rows)) if rows else ""
