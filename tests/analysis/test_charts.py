import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from elenas_jax.analysis.charts import MEDIUM, MOST_PLACES, Line, line_chart, point_chart, stacked_chart
from elenas_jax.analysis.series import Curve

SVG = "{http://www.w3.org/2000/svg}"


def curve(x, mean, spread=0.0):
    mean = np.array(mean, float)
    return Curve(np.array(x), mean, mean - spread, mean + spread)


def marks(chart, css):
    """The elements of a class, after a look at whether the chart is well-formed and its data plain."""
    json.dumps(chart.hover, allow_nan=False)
    tree = ElementTree.fromstring(chart.svg)
    return [element for element in tree.iter() if css in element.get("class", "").split()]


def points(path):
    return [tuple(map(float, pair.split(","))) for pair in re.findall(r"[-\d.]+,[-\d.]+", path.get("d"))]


def test_lines_lie_in_the_plot_and_higher_values_higher():
    chart = line_chart([Line("a <b>", "s0", curve([0, 1, 4], [0.1, 0.9, 0.5]))], "generation", "score & more")
    (path,) = marks(chart, "line")
    ways = points(path)
    assert len(ways) == 3 and ways[1][1] < ways[2][1] < ways[0][1]
    assert ways[0][0] == MEDIUM.left and ways[-1][0] == MEDIUM.width - MEDIUM.right
    assert all(MEDIUM.top <= y <= MEDIUM.height - MEDIUM.bottom for _, y in ways)
    assert chart.hover["px"] == [x for x, _ in ways]
    assert chart.hover["rows"] == [{"name": "a <b>", "css": "s0", "y": [0.1, 0.9, 0.5]}]
    low, high, start, end = chart.hover["scale"]
    assert [start + (v - low) / (high - low) * (end - start) for v in (0.1, 0.9, 0.5)] == pytest.approx(
        [y for _, y in ways], abs=0.06
    )


def test_a_band_is_drawn_and_told_where_there_are_several_runs():
    chart = line_chart([Line("a", "s0", curve([0, 1], [1, 2], 0.5))], "", "")
    assert len(marks(chart, "band")) == 1
    assert chart.hover["rows"][0]["low"] == [0.5, 1.5] and chart.hover["rows"][0]["high"] == [1.5, 2.5]
    assert not marks(line_chart([Line("a", "s0", curve([0, 1], [1, 2]))], "", ""), "band")


def test_lines_over_different_places_share_an_axis():
    chart = line_chart(
        [Line("a", "s0", curve([0, 2], [1, 2])), Line("b", "s1", curve([1, 2], [3, 4]))], "", ""
    )
    assert chart.hover["x"] == [0, 1, 2]
    assert [row["y"] for row in chart.hover["rows"]] == [[1, None, 2], [None, 3, 4]]


def test_steps_hold_a_value_until_the_next():
    (path,) = marks(line_chart([Line("a", "s0", curve([0, 1], [1, 2]))], "", "", is_step=True), "line")
    (_, first), (_, held), (_, last) = points(path)
    assert first == held > last


def test_one_point_is_a_dot_and_none_is_said():
    assert len(marks(line_chart([Line("a", "s0", curve([5], [0.0]))], "x", "y"), "dot")) == 1
    nothing = line_chart([Line("a", "s0", curve([], []))], "x", "y", missing="no a < b")
    assert ">no a &lt; b</text>" in nothing.svg and nothing.hover == {}


def test_long_curves_are_thinned_and_keep_their_ends():
    x = np.arange(1, 20_001)
    chart = line_chart([Line("a", "s0", curve(x, x / 2))], "", "")
    assert len(chart.hover["x"]) == MOST_PLACES
    assert chart.hover["x"][0] == 1 and chart.hover["x"][-1] == 20_000


@pytest.mark.parametrize("num", (1, 3, 3 * MOST_PLACES))
def test_shares_fill_the_plot(num):
    values = np.linspace(20, 70, num)
    chart = stacked_chart([("valid", "valid", values), ("no", "i0", 100 - values)], "generation", "%")
    lower, upper = marks(chart, "share")
    xs, ys = zip(*points(lower) + points(upper))
    assert (min(xs), max(xs)) == (MEDIUM.left, MEDIUM.width - MEDIUM.right)
    assert (min(ys), max(ys)) == (MEDIUM.top, MEDIUM.height - MEDIUM.bottom)
    first, second = chart.hover["rows"]
    assert (first["name"], second["name"]) == ("no", "valid")  # the uppermost first
    assert np.add(first["y"], second["y"]) == pytest.approx(100)


def test_no_shares_are_said():
    assert "no draws" in stacked_chart([], "", "").svg


def test_points_know_their_places_links_and_front():
    x, y = np.array([100.0, 0.0, 10_000.0]), np.array([0.5, 0.1, 0.4])
    chart = point_chart(x, y, np.array([True, True, False]), ["#a&b", "", ""], "parameters", "score")
    found = {int(mark.get("data-i")): mark for mark in marks(chart, "point")}
    assert set(found) == {0, 1, 2} and {int(m.get("data-i")) for m in marks(chart, "on-front")} == {0, 1}
    at = {i: float(mark.get("cx")) for i, mark in found.items()}
    assert at[1] < at[0] < at[2] and at[0] - at[1] == pytest.approx(at[2] - at[0], abs=0.2)
    tree = ElementTree.fromstring(chart.svg)
    (link,) = tree.iter(f"{SVG}a")
    assert link.get("href") == "#a&b" and link[0].get("data-i") == "0"
    (front,) = marks(chart, "line")
    assert points(front)[0] == (at[1], float(found[1].get("cy")))


def test_no_points_are_said():
    none = np.zeros(0)
    assert "no valid candidates" in point_chart(none, none, none.astype(bool), [], "x", "y").svg
