"""Figures of a run, or of the same search with several seeds: reward, validity, best so far."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from elenas_jax.analysis.load import Run
from elenas_jax.analysis.series import Curve, best_so_far, score_by_generation, status_shares

# Colours that differ for all common kinds of colour blindness (Okabe and Ito, 2008; Tol, 2021).
BEST, MEAN = "#0072B2", "#D55E00"
VALID = "#117733"
INVALID = ("#88CCEE", "#DDCC77", "#CC6677", "#AA4499", "#332288", "#999933", "#882255", "#44AA99", "#EE7733")
FAILED = ("#444444", "#777777", "#999999", "#BBBBBB", "#DDDDDD")

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5f6670",
    "axes.labelcolor": "#26292e",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": "#5f6670",
    "ytick.color": "#5f6670",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "white",
    "svg.hashsalt": "elenas_jax",  # the same run gives the same file
}


def reward_figure(runs: Sequence[Run]) -> Figure:
    """Best and mean score of each generation's valid candidates."""
    figure, axes = _new_figure("Generation", "Score (no unit)")
    for name, label, colour in (("best_score", "best", BEST), ("mean_score", "mean of valid", MEAN)):
        _mean_and_band(axes, score_by_generation(runs, name), len(runs) > 1, label, colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, runs, "Score by generation")
    return figure


def validity_figure(runs: Sequence[Run]) -> Figure:
    """Share of the proposals of each generation that were valid, invalid by reason, or failed."""
    figure, axes = _new_figure("Generation", "Share of proposals (%)")
    statuses, counts = shares = status_shares(runs)
    if statuses:
        # A generation is a step of width 1, so that a single one is seen too.
        edges = np.arange(counts.shape[1] + 1) - 0.5
        axes.stackplot(
            edges,
            np.concatenate([shares.percent, shares.percent[:, -1:]], axis=1),
            labels=[
                f"{'valid' if status == 0 else text} ({100 * counts[i].sum() / counts.sum():.1f}%)"
                for i, (status, text) in enumerate(statuses)
            ],
            colors=[_status_colour(status) for status, _ in statuses],
            step="post",
            linewidth=0,
        )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 100)
        axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, runs, "Validity by reason", outside=True)
    return figure


def best_so_far_figure(runs: Sequence[Run]) -> Figure:
    """Best score found so far against the number of trained candidates."""
    figure, axes = _new_figure("Evaluations (trained candidates)", "Best score so far (no unit)")
    _mean_and_band(axes, best_so_far(runs), len(runs) > 1, "best so far", BEST, step=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.set_ylim(bottom=0)
    _finish(axes, runs, "Best score against evaluations")
    return figure


FIGURES: Mapping[str, Callable[[Sequence[Run]], Figure]] = {
    "best_so_far": best_so_far_figure,
    "reward": reward_figure,
    "validity": validity_figure,
}


def write_figures(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Writes every figure to `folder` as SVG and PNG; returns the SVG files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    with matplotlib.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make(runs)
            for suffix in ("png", "svg"):
                # Drawn in memory first: an error leaves no half-drawn file.
                drawn = io.BytesIO()
                figure.savefig(
                    drawn, format=suffix, dpi=160, metadata={"Date": None} if suffix == "svg" else None
                )
                path = folder / f"{name}.{suffix}"
                path.write_bytes(drawn.getvalue())
                paths[name] = path
    return paths


def _new_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _finish(axes: Axes, runs: Sequence[Run], title: str, outside: bool = False) -> None:
    if len(runs) > 1:
        title += f", {len(runs)} seeds" + ("" if outside else " (mean, smallest to largest)")
    axes.set_title(title)
    if not axes.get_legend_handles_labels()[0]:
        axes.text(0.5, 0.5, "no valid candidates", transform=axes.transAxes, ha="center", color="#5f6670")
    elif outside:  # in the order of the areas, top first
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), reverse=True, handlelength=1.2)
    else:
        axes.legend(loc="best")


def _status_colour(status: int) -> str:
    if status == 0:
        return VALID
    if status < 100:
        return INVALID[(status - 1) % len(INVALID)]
    return FAILED[(status - 100) % len(FAILED)]


def _mean_and_band(
    axes: Axes, curve: Curve, several: bool, label: str, colour: str, step: bool = False
) -> None:
    if not curve.x.size:
        return
    marker = "o" if len(curve.x) == 1 else ""
    drawn = "steps-post" if step else "default"
    axes.plot(curve.x, curve.mean, label=label, color=colour, marker=marker, drawstyle=drawn)
    if several:
        axes.fill_between(
            curve.x,
            curve.low,
            curve.high,
            color=colour,
            alpha=0.18,
            linewidth=0,
            step="post" if step else None,
        )
