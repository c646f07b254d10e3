"""The figure of replays against a table: best so far by evaluations, a line a strategy."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from elenas_jax.analysis.plots import STYLE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def replay_figure(curves: Mapping[str, np.ndarray], optimum: float, title: str) -> Figure:
    """Draws means over seeds with 95% confidence bands of the mean.

    Args:
      curves: `[S, n]` best score so far by strategy, S seeds, n evaluations.
      optimum: best score there is, mean over seeds.
      title: of the figure.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, values) in enumerate(curves.items()):
        x = np.arange(1, values.shape[1] + 1)
        mean = values.mean(axis=0)
        half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        axes.plot(x, mean, color=colour, label=name, marker=mark, markevery=max(1, len(x) // 8))
        axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(optimum, color="#5f6670", linestyle="--", linewidth=1, label="best of the table")
    axes.set_xlabel("Evaluations (different blocks)")
    axes.set_ylabel("Best score so far (no unit)")
    axes.set_title(title)
    axes.legend(loc="lower right")
    return figure


def write_replay_figure(path: Path, curves: Mapping[str, np.ndarray], optimum: float, title: str) -> None:
    """Writes `replay_figure` to a .png or .svg file."""
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = replay_figure(curves, optimum, title)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(drawn, format=path.suffix[1:], dpi=160, metadata=metadata)
    path.write_bytes(drawn.getvalue())
