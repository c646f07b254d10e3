"""The figure of a comparison of strategies: best score so far, a line and a band a strategy."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elenas_jax.analysis.intervals import half_width
from elenas_jax.analysis.plots import STYLE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
FEWEST_OF_BANDS = 5  # seeds; confidence bands of fewer hide everything else
MARKS = ("o", "s", "^", "D", "v", "P", "X")


class Panel(NamedTuple):
    """Curves over one kind of budget."""

    label: str  # of the budget
    x: np.ndarray  # [n]
    curves: Mapping[str, np.ndarray]  # [S, n] best score so far by strategy, S seeds; NaN before the first


def replay_figure(
    panels: Sequence[Panel], optimum: float | None, title: str, label: str = "Best score so far (no unit)"
) -> Figure:
    """Draws means over seeds with 95% confidence bands of the mean, or thin lines of few seeds.

    Args:
      panels: side by side.
      optimum: best score there is, mean over seeds, where it is known.
      title: of the figure.
      label: of what is drawn.
    """
    figure = Figure(figsize=(7.2 if len(panels) == 1 else 11.0, 4.6), layout="constrained")
    figure.suptitle(title)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel, optimum)
        axes.set_ylabel(label)
    # Below, where it hides nothing.
    handles, names = figure.axes[0].get_legend_handles_labels()
    most = 5 if len(panels) > 1 or len(names) <= 5 else 3  # columns that the width has room for
    figure.legend(handles, names, loc="outside lower center", ncols=min(most, len(names)))
    return figure


def _draw(axes: Axes, panel: Panel, optimum: float | None) -> None:
    x = panel.x
    shade = 0.2 if len(panel.curves) < 5 else 0.08
    for place, (name, values) in enumerate(panel.curves.items()):
        mean = values.mean(axis=0)
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        style = "-" if place < len(COLOURS) else ":"
        axes.plot(
            x, mean, color=colour, linestyle=style, label=name, marker=mark, markevery=max(1, len(x) // 8)
        )
        if 1 < len(values) < FEWEST_OF_BANDS:
            axes.plot(x, values.T, color=colour, linestyle=style, linewidth=0.8, alpha=0.5)
        elif len(values) > 1:
            half = half_width(values)
            axes.fill_between(x, mean - half, mean + half, color=colour, alpha=shade, linewidth=0)
    if optimum is not None:
        axes.axhline(optimum, color="#5f6670", linestyle="--", linewidth=1, label="best of the table")
    axes.set_xlabel(panel.label)


def write_replay_figure(
    path: Path,
    panels: Sequence[Panel],
    optimum: float | None,
    title: str,
    label: str = "Best score so far (no unit)",
) -> None:
    """Writes `replay_figure` to a .png or .svg file."""
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = replay_figure(panels, optimum, title, label)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(drawn, format=path.suffix[1:], dpi=160, metadata=metadata)
    path.write_bytes(drawn.getvalue())
