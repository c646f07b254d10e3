"""Charts as inline SVG: lines with bands, stacked shares, points over a logarithmic axis.

Colours are CSS classes, so that a page may be light or dark; what a pointer shows is in `Chart.hover`,
for the page's script. All text comes out escaped.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elenas_jax.analysis.page import text
from elenas_jax.analysis.scales import (
    Scale,
    linear_range,
    linear_ticks,
    log_range,
    log_ticks,
    tick_labels,
)
from elenas_jax.analysis.series import Curve

MOST_PLACES = 500  # along the x axis; more would not be told apart


class Line(NamedTuple):
    label: str
    css: str  # class of the line's colour
    curve: Curve


class Frame(NamedTuple):
    """The size of a chart and the room around its plot; all in units of the SVG."""

    width: float = 560.0
    height: float = 300.0
    left: float = 54.0
    right: float = 14.0
    top: float = 26.0
    bottom: float = 42.0
    ticks_x: int = 7
    ticks_y: int = 6


MEDIUM = Frame()
SMALL = Frame(width=300, height=150, left=60, right=12, top=12, bottom=24, ticks_x=5, ticks_y=4)


class Chart(NamedTuple):
    svg: str
    hover: dict[str, Any]  # plain data for the page's script


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    frame: Frame = MEDIUM,
    with_zero: bool = False,
    is_step: bool = False,
    is_filled: bool = False,
    missing: str = "no values",
) -> Chart:
    """Draws curves over a common axis of whole numbers.

    Args:
      lines: without points they are left out; their bands are drawn where low and high differ.
      x_label, y_label: may be empty.
      with_zero: the y axis reaches to zero.
      is_step: a value holds until the next x.
      is_filled: the area below the line is tinted.
      missing: what there is not, where no line has a point.
    """
    lines = [Line(label, css, _thin(curve)) for label, css, curve in lines if curve.x.size]
    if not lines:
        return _nothing(frame, missing)
    xs = np.unique(np.concatenate([line.curve.x for line in lines]))
    ends = np.concatenate([np.concatenate([line.curve.low, line.curve.high]) for line in lines])
    x = _x_scale(float(xs[0]), float(xs[-1]), frame)
    y = Scale(*linear_range(ends, with_zero), frame.height - frame.bottom, frame.top)
    parts = [_axes(x, y, frame, x_label, y_label)]
    for _, css, curve in lines:
        if np.any(curve.high > curve.low):
            edge = _walk(x, y, curve.x, curve.high, is_step)
            back = _walk(x, y, curve.x, curve.low, is_step)[::-1]
            parts.append(f'<path class="band {css}" d="{_path(edge + back)}Z"/>')
        elif is_filled:
            edge = _walk(x, y, curve.x, curve.mean, is_step)
            floor = y(max(y.low, 0.0))
            parts.append(
                f'<path class="area {css}" d="{_path([(edge[0][0], floor), *edge, (edge[-1][0], floor)])}Z"/>'
            )
    for _, css, curve in lines:
        points = _walk(x, y, curve.x, curve.mean, is_step)
        parts.append(f'<path class="line {css}" d="{_path(points)}"/>')
        if len(curve.x) == 1:
            parts.append(
                f'<circle class="dot {css}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3.5"/>'
            )
    rows = []
    for label, css, curve in lines:
        place = {value: i for i, value in enumerate(curve.x.tolist())}
        found = [place.get(value) for value in xs.tolist()]
        row: dict[str, Any] = {"name": label, "css": css}
        has_band = bool(np.any(curve.high > curve.low))
        for name, values in (("y", curve.mean), ("low", curve.low), ("high", curve.high)):
            if name == "y" or has_band:
                row[name] = [None if i is None else _short(values[i]) for i in found]
        rows.append(row)
    return Chart(_svg(frame, parts, y_label or lines[0].label), _hover(x, y, xs, x_label, rows))


def stacked_chart(
    shares: Sequence[tuple[str, str, np.ndarray]], x_label: str, y_label: str, frame: Frame = MEDIUM
) -> Chart:
    """Draws percentages that add up to 100 as areas; x counts from 0, each is a step of width 1.

    Args:
      shares: (label, class, `[x]` percentages), the lowest area first.
    """
    num = len(shares[0][2]) if shares else 0
    if not num:
        return _nothing(frame, "no draws")
    places = _places(num)
    # The step of a place reaches to the next one that is drawn.
    edges = np.append(places, num) - 0.5
    x = Scale(-0.5, num - 0.5, frame.left, frame.width - frame.right)
    y = Scale(0.0, 100.0, frame.height - frame.bottom, frame.top)
    parts, bottom = [], np.zeros(len(places))
    for _, css, values in shares:
        top = bottom + values[places]
        if np.any(values > 0):
            edge, back = _stairs(x, y, edges, top), _stairs(x, y, edges, bottom)[::-1]
            parts.append(f'<path class="share {css}" d="{_path(edge + back)}Z"/>')
        bottom = top
    parts.append(_axes(x, y, frame, x_label, y_label, has_grid=False))
    rows = [
        {"name": label, "css": css, "y": [_short(value) for value in values[places]], "unit": "%"}
        for label, css, values in reversed(shares)
    ]
    return Chart(_svg(frame, parts, y_label), _hover(x, y, places, x_label, rows))


def point_chart(
    x_values: np.ndarray,
    y_values: np.ndarray,
    front: np.ndarray,
    links: Sequence[str],
    x_label: str,
    y_label: str,
    frame: Frame = MEDIUM,
) -> Chart:
    """Draws points over a logarithmic x axis, and the front as steps.

    Args:
      x_values, y_values: `[N]` finite; an x below 1 is drawn at 1.
      front: `[N]` booleans.
      links: `[N]`, what a click on the point leads to; may be empty.
    """
    if not len(x_values):
        return _nothing(frame, "no valid candidates")
    x_values = np.maximum(x_values, 1.0)
    x = Scale(*log_range(x_values), frame.left, frame.width - frame.right, is_log=True)
    y = Scale(*linear_range(y_values), frame.height - frame.bottom, frame.top)
    parts = [_axes(x, y, frame, x_label, y_label)]
    order = [i for i in np.lexsort((y_values, x_values)) if front[i]]
    if order:
        corners = _walk(x, y, x_values[order], y_values[order], is_step=True)
        corners.append((frame.width - frame.right, corners[-1][1]))
        parts.append(f'<path class="line front" d="{_path(corners)}"/>')
    marks = []
    for i, (at_x, at_y) in enumerate(zip(x_values, y_values)):
        css, radius = ("point on-front", 4.5) if front[i] else ("point", 3)
        mark = f'<circle class="{css}" cx="{x(at_x):.1f}" cy="{y(at_y):.1f}" r="{radius}" data-i="{i}"/>'
        if links[i]:
            about = f"{y_label} {at_y:.4g}, {x_label} {at_x:,.0f}"
            mark = f'<a href="{text(links[i])}" aria-label="{text(about)}">{mark}</a>'
        marks.append((bool(front[i]), bool(links[i]), mark))
    # The front lies on top.
    parts += [mark for *_, mark in sorted(marks, key=lambda item: item[:2])]
    return Chart(_svg(frame, parts, f"{y_label} against {x_label}", role="group"), {})


# Pieces ---------------------------------------------------------------------------------------


def _x_scale(first: float, last: float, frame: Frame) -> Scale:
    if first == last:
        first, last = first - 0.9, last + 0.9  # so that no other tick is in sight
    return Scale(first, last, frame.left, frame.width - frame.right)


def _places(num: int) -> np.ndarray:
    return np.unique(np.linspace(0, num - 1, min(num, MOST_PLACES)).round().astype(int))


def _thin(curve: Curve) -> Curve:
    places = _places(len(curve.x))
    return Curve(*(values[places] for values in curve))


def _walk(x: Scale, y: Scale, xs: np.ndarray, ys: np.ndarray, is_step: bool) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for at_x, at_y in zip(xs.tolist(), ys.tolist()):
        if is_step and points:
            points.append((x(at_x), points[-1][1]))
        points.append((x(at_x), y(at_y)))
    return points


def _stairs(x: Scale, y: Scale, edges: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    points = []
    for left, right, value in zip(edges[:-1].tolist(), edges[1:].tolist(), values.tolist()):
        points += [(x(left), y(value)), (x(right), y(value))]
    return points


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _axes(x: Scale, y: Scale, frame: Frame, x_label: str, y_label: str, has_grid: bool = True) -> str:
    left, right = frame.left, frame.width - frame.right
    top, bottom = frame.top, frame.height - frame.bottom
    if x.is_log:
        ticks_x = log_ticks(x.low, x.high, frame.ticks_x)
    else:
        ticks_x = linear_ticks(x.low, x.high, frame.ticks_x, whole=True)
    ticks_y = linear_ticks(y.low, y.high, frame.ticks_y)
    parts = []
    for tick, label in zip(ticks_y, tick_labels(ticks_y)):
        at = y(tick)
        if has_grid:
            parts.append(f'<path class="grid" d="M{left:.1f},{at:.1f}H{right:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8:.1f}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for tick, label in zip(ticks_x, tick_labels(ticks_x)):
        at = x(tick)
        parts.append(f'<path class="axis" d="M{at:.1f},{bottom:.1f}v4"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{label}</text>'
        )
    parts.append(f'<path class="axis" d="M{left:.1f},{bottom:.1f}H{right:.1f}"/>')
    if x_label:
        middle, low = (left + right) / 2, frame.height - 6
        parts.append(
            f'<text class="label" x="{middle:.1f}" y="{low:.1f}" text-anchor="middle">{text(x_label)}</text>'
        )
    if y_label:
        parts.append(f'<text class="label" x="4" y="{top - 12:.1f}">{text(y_label)}</text>')
    return "".join(parts)


def _svg(frame: Frame, parts: Sequence[str], about: str, role: str = "img") -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width:g} {frame.height:g}" '
        f'role="{role}" aria-label="{text(about)}">\n{body}\n</svg>'
    )


def _nothing(frame: Frame, missing: str) -> Chart:
    words = (
        f'<text class="label" x="{frame.width / 2:g}" y="{frame.height / 2:g}" text-anchor="middle">'
        f"{text(missing)}</text>"
    )
    return Chart(_svg(frame, [words], missing), {})


def _hover(x: Scale, y: Scale, xs: np.ndarray, x_label: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns values by x and where they are drawn."""
    return {
        "label": x_label,
        "x": xs.tolist(),
        "px": [round(x(value), 1) for value in xs.tolist()],
        "scale": [y.low, y.high, y.start, y.end],
        "rows": rows,
    }


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
