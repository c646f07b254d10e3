"""The parts of a report about the search: summary, curves, validity, diagnostics, how it was run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elenas_jax.analysis import series, tables
from elenas_jax.analysis.charts import SMALL, Line, line_chart, stacked_chart
from elenas_jax.analysis.load import Run
from elenas_jax.analysis.page import figure, section, text

Hovers = dict[str, Any]  # chart -> what a pointer shows

NUM_INVALID, NUM_FAILED = 9, 5  # colours of reasons and failures, see assets/report.css


def subtitle(runs: Sequence[Run]) -> str:
    """Says in one line what was searched, and how."""
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


def summary(runs: Sequence[Run]) -> str:
    """Returns the cards at the top: a number, what it is, and something about it."""
    draws = sum(row["proposals"] for run in runs for row in run.scores)
    valid = sum(row["valid"] for run in runs for row in run.scores)
    generations = sum(len(run.scores) for run in runs)
    seconds = sum(tables.seconds(run) for run in runs)
    strategy = runs[0].config.get("strategy")
    name = strategy.get("name", "-") if isinstance(strategy, Mapping) else "-"
    last = _last_session(runs[-1].provenance)
    devices = last.get("devices") or ""
    devices = ", ".join(map(str, devices)) if isinstance(devices, list) else str(devices)
    commit, _, changes = str(last.get("commit") or "-").partition("+")
    best = next(iter(tables.best_blocks(runs, 1)), None)
    met = f"block {best['hash'][: tables.HASH_LENGTH]}, generation {best['generation']}" if best else ""
    met += f", seed {best['seed']}" if best and len(runs) > 1 else ""
    together = ", all seeds together" if len(runs) > 1 else ""
    facts = [
        ("best score", tables.number(best["score"] if best else None), met),
        (
            "evaluations",
            tables.count(sum(len(run.evaluation_scores) for run in runs)),
            f"{tables.count(sum(run.num_valid_blocks for run in runs))} different valid candidates",
        ),
        ("valid share", f"{100 * valid / draws:.1f}%" if draws else "-", f"of {tables.count(draws)} draws"),
        (
            "time",
            tables.duration(seconds) if seconds else "-",
            f"{tables.count(generations)} generation{'' if generations == 1 else 's'}{together}",
        ),
        ("strategy", str(name), (_policy(strategy) if isinstance(strategy, Mapping) else "").strip()),
        (
            "commit",
            commit[:7],
            ", ".join(filter(None, (changes and f"with {changes}", devices))),
        ),
    ]
    cards = "".join(
        f'<div class="card"><span>{what}</span><b>{text(value)}</b><small>{text(about)}</small></div>'
        for what, value, about in facts
    )
    return f'<div class="facts" id="summary">{cards}</div>'


def curves(runs: Sequence[Run], hovers: Hovers) -> str:
    """Returns the section of scores over evaluations and generations."""
    missing = _missing(runs)
    best = [Line("best so far", "s0", series.best_so_far(runs))]
    by_generation = [
        Line("best of the generation", "s0", series.score_by_generation(runs, "best_score")),
        Line("mean of its valid candidates", "s1", series.score_by_generation(runs, "mean_score")),
    ]
    charts = (
        (
            "best_so_far",
            "Best score so far",
            best,
            line_chart(
                best,
                "evaluations",
                "score",
                with_zero=True,
                is_step=True,
                is_filled=True,
                missing=missing,
            ),
        ),
        (
            "reward",
            "Score by generation",
            by_generation,
            line_chart(by_generation, "generation", "score", with_zero=True, missing=missing),
        ),
    )
    body = []
    for name, title, lines, chart in charts:
        hovers[name] = chart.hover
        legend = [(line.css, line.label) for line in lines if line.curve.x.size]
        body.append(figure(name, title, chart.svg, legend))
    note = "An evaluation is a valid candidate that was not known before and was trained."
    if len(runs) > 1:
        note += f" Lines are means over {len(runs)} seeds, bands span the smallest to the largest."
    return section("curves", "Course of the search", f'<div class="pair">{"".join(body)}</div>', note)


def _missing(runs: Sequence[Run]) -> str:
    """Says why there are no scores, if there are none."""
    statuses = {row["status"] for run in runs for row in run.statuses}
    if not statuses:
        return "no draws"
    is_trained = any(status == 0 or status >= 100 for status in statuses)
    return "no training gave a score" if is_trained else "no valid candidates"


def validity(runs: Sequence[Run], hovers: Hovers) -> str:
    """Returns the section of what became of the candidates: over time, and counted by reason."""
    shares = series.status_shares(runs)
    percent = shares.percent
    areas = [
        (_reason(status, label), _status_class(status), percent[place])
        for place, (status, label) in enumerate(shares.statuses)
    ]
    chart = stacked_chart(areas, "generation", "% of draws")
    hovers["validity"] = chart.hover
    rows = sorted(tables.count_statuses(runs), key=lambda row: (row["status"] != 0, -row["count"]))
    largest = max((row["count"] for row in rows), default=1)
    bars = "".join(
        f'<div class="reason"><span><i class="key {_status_class(row["status"])}"></i>'
        f"{text(_reason(row['status'], row['status_text']))}</span>"
        f'<i class="track"><i class="{_status_class(row["status"])}" '
        f'style="width:{100 * row["count"] / largest:.2f}%"></i></i>'
        f"<b>{tables.count(row['count'])}</b><small>{100 * row['share']:.1f}%</small></div>"
        for row in rows
    )
    body = (
        f'<div class="pair">{figure("validity", "Validity over time", chart.svg)}'
        f'<div class="card"><b class="caption">Reasons, counted</b>{bars or "<p>None.</p>"}</div></div>'
    )
    note = "A draw is a proposed candidate, valid or not. Failed ones were valid, and their training failed."
    return section("validity", "What became of the candidates", body, note)


def _reason(status: int, status_text: str) -> str:
    if status == 0:
        return "valid"
    return status_text.removeprefix("invalid: ") if status < 100 else f"failed: {status_text}"


def _status_class(status: int) -> str:
    if status == 0:
        return "valid"
    return f"i{(status - 1) % NUM_INVALID}" if status < 100 else f"f{(status - 100) % NUM_FAILED}"


def diagnostics(runs: Sequence[Run], hovers: Hovers) -> str:
    """Returns the section of small charts of all that the strategy reported, and of costs.

    What is 0 throughout is left out: the steps of a policy, say, of a strategy that has none.
    """
    body = []
    for caption, css, found in (
        ("Reported by the strategy", "s0", series.diagnostics(runs)),
        ("Of each generation", "s1", series.costs(runs)),
    ):
        charts = []
        for name, curve in found.items():
            if not (curve.low.any() or curve.high.any()):
                continue
            label, key = name.replace("_", " "), f"{css}.{name}"
            chart = line_chart([Line(label, css, curve)], "", "", frame=SMALL)
            hovers[key] = {**chart.hover, "label": "generation"}
            charts.append(figure(key, label, chart.svg, note=f"last {_significant(curve.mean[-1])}"))
        if charts:
            body.append(f'<h3>{caption}</h3><div class="small">{"".join(charts)}</div>')
    return section(
        "diagnostics",
        "Diagnostics",
        "".join(body) or '<p class="card none">None were written.</p>',
        "Over generations." if body else "",
    )


def _significant(value: float) -> str:
    whole = abs(value) >= 1000 or float(value).is_integer()
    return f"{value:,.0f}" if whole else np.format_float_positional(value, 4, fractional=False, trim="-")


def seeds(runs: Sequence[Run]) -> str:
    """Returns the section that compares runs, if there are several."""
    if len(runs) == 1:
        return ""
    return section(
        "seeds", "Seeds", f'<div class="card scroll">{tables.to_html(tables.summary_table(runs))}</div>'
    )


def provenance(runs: Sequence[Run]) -> str:
    """Returns the section of devices, versions, commit and config."""
    parts = []
    for run in runs:
        name = f" of {run.path.name}" if len(runs) > 1 else ""
        for what, value in (("Versions, devices, commit", run.provenance), ("Config", run.config)):
            words = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            parts.append(f"<details><summary>{what}{text(name)}</summary><pre>{text(words)}</pre></details>")
    table = _session_table(_last_session(runs[-1].provenance))
    return section("run", "How it was run", f'<div class="card">{table}{"".join(parts)}</div>')


def _last_session(record: Mapping[str, Any]) -> Mapping[str, Any]:
    sessions = record.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else record
    return last if isinstance(last, Mapping) else {}


def _session_table(session: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = []
    for key in ("command", "commit", "devices", "platform", "versions"):
        value = session.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = (" " if key == "command" else ", ").join(map(str, value))
        if value:
            rows.append((key, str(value)))
    return tables.to_html(tables.Table("", ("", "last session"), rows)) if rows else ""
