import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.marks import text_width
from elenas_jax.graphs import from_edges
from elenas_jax.graphs.known_blocks import KNOWN_BLOCKS
from tests.analysis.synthetic import draw_graph, random_drawing

SVG = "{http://www.w3.org/2000/svg}"


def groups(svg: str, kind: str) -> list[ElementTree.Element]:
    return [group for group in ElementTree.fromstring(svg).iter(f"{SVG}g") if group.get("class") == kind]


def titles(svg: str, kind: str) -> list[str]:
    return [group.findtext(f"{SVG}title") or "" for group in groups(svg, kind)]


def box(group: ElementTree.Element) -> tuple[float, float, float, float]:
    rect = group.find(f"{SVG}rect")
    assert rect is not None
    x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def check(drawing: dict) -> str:
    svg = draw_block(drawing)
    root = ElementTree.fromstring(svg)
    boxes = [box(group) for group in groups(svg, "node")]
    assert len(boxes) == len(drawing["nodes"])
    for (a0, b0, a1, b1), (c0, d0, c1, d1) in itertools.combinations(boxes, 2):
        assert a1 <= c0 + 0.2 or c1 <= a0 + 0.2 or b1 <= d0 + 0.2 or d1 <= b0 + 0.2
    left, top, width, height = map(float, root.get("viewBox", "").split())
    for x0, y0, x1, y1 in boxes:
        assert left <= x0 and top <= y0 and x1 <= left + width and y1 <= top + height
    labels = {node["id"]: node["label"] for node in drawing["nodes"]}
    wanted = sorted(
        f"{labels[edge['source']]} \u2192 {labels[edge['target']]}: {edge['operation']}"
        + (" (value of the previous step)" if edge["delayed"] else "")
        for edge in drawing["edges"]
    )
    assert sorted(titles(svg, "edge")) == wanted
    for group in groups(svg, "node"):  # what is written in a box fits into it
        x0, _, x1, _ = box(group)
        for text in group.iter(f"{SVG}text"):
            assert text_width(text.text or "", float(text.get("font-size", ""))) <= x1 - x0
    return svg


@pytest.mark.parametrize("name", KNOWN_BLOCKS)
def test_known_blocks(name):
    check(draw_graph(KNOWN_BLOCKS[name]))


@pytest.mark.parametrize("num_nodes", (1, 2, 4, 9, 17, 32, 60))
@pytest.mark.parametrize("seed", range(6))
def test_random_drawings_have_all_nodes_and_edges_and_no_overlap(num_nodes, seed):
    check(random_drawing(seed, num_nodes, num_nodes * (1 + seed % 3) // 2 + seed))


def test_delayed_edges_are_dashed_and_others_are_not():
    svg = draw_block(draw_graph(KNOWN_BLOCKS["lstm"]))
    for group in groups(svg, "edge"):
        path = group.find(f"{SVG}path")
        assert path is not None
        is_delayed = "previous step" in (group.findtext(f"{SVG}title") or "")
        assert (path.get("stroke-dasharray") is not None) == is_delayed


def test_legend_lists_what_is_drawn_and_nothing_else():
    svg = draw_block(draw_graph(KNOWN_BLOCKS["elman"]))
    entries = [
        "".join(text.text or "" for text in group.findall(f"{SVG}text")[-1:])
        for group in groups(svg, "legend")
    ]
    assert entries == ["matmul", "add", "recursion (previous step)", "identity", "tanh", "parameter"]


def test_the_output_is_marked():
    svg = draw_block(draw_graph(KNOWN_BLOCKS["lstm"]))
    assert len(groups(svg, "output")) == 1
    assert sum("(output)" in title for title in titles(svg, "node")) == 1


def test_the_arrow_out_of_the_block_is_apart_from_edges_that_enter_from_its_side():
    drawing = draw_graph(from_edges(5, [(0, 2, "add"), (2, 4, "add"), (4, 2, "recursion")]))
    for node in drawing["nodes"]:
        node["is_output"] = node["id"] == 2
    svg = draw_block(drawing)
    (arrow,) = groups(svg, "output")
    (memory,) = [edge for edge in groups(svg, "edge") if "previous step" in edge.findtext(f"{SVG}title")]
    start, tip = (
        re.match(r"M([-\d.]+),([-\d.]+)", path.get("d")).groups()
        for path in (arrow.find(f"{SVG}path"), memory.findall(f"{SVG}path")[1])
    )
    assert start[0] == tip[0], "both are at the right side of the box"
    assert abs(float(start[1]) - float(tip[1])) >= 12, "the badge of the edge is clear of the arrow"


def test_labels_are_text_not_markup():
    drawing = random_drawing(0, 4, 4)
    drawing["nodes"][1]["label"] = '<b>&"\x00\ud800'
    drawing["nodes"][2]["label"] = "a very long label that goes on and on and on"
    drawing["nodes"][2]["colour"] = '"/><script>alert(1)</script>'
    svg = draw_block(drawing, title="<script> & co")
    ElementTree.fromstring(svg.encode("utf-8"))
    assert "<script" not in svg
    assert "a very long label that goes on and on and on" in svg  # in the tooltip


@pytest.mark.parametrize(
    "drawing",
    (
        {},
        {"nodes": []},
        {"nodes": [{"id": 0}], "edges": []},
        {"nodes": 3, "edges": []},
        random_drawing(0, 3, 2) | {"edges": [{"source": "?", "target": "?"}]},
        random_drawing(0, 3, 2) | {"nodes": random_drawing(0, 3, 2)["nodes"] * 2},
    ),
)
def test_another_form_is_refused(drawing):
    with pytest.raises(ValueError, match="drawing of a block"):
        draw_block(drawing)


def test_a_box_without_a_label_that_holds_the_previous_step_says_so():
    drawing = draw_graph(KNOWN_BLOCKS["elman"])
    for node in drawing["nodes"]:
        if node["kind"] == "intermediate":
            node["label"] = "" if node["operation"] == "identity" else node["operation"]
    drawing["nodes"][-1]["name"] = "h1"
    texts = [
        [text.text for text in group.iter(f"{SVG}text")] for group in groups(draw_block(drawing), "node")
    ]
    assert ["t\u22121"] in texts and [] in texts and ["tanh", "h1"] in texts


def test_an_empty_drawing_is_a_picture():
    ElementTree.fromstring(draw_block({"nodes": [], "edges": [], "legend": []}))


def test_a_long_block_is_drawn_in_rows_with_all_its_edges():
    nodes = [
        dict(
            id=i,
            kind="intermediate" if i else "input",
            label=f"operation {i}",
            operation="",
            colour="#c3dcf9",
            is_output=i == 59,
        )
        for i in range(60)
    ]
    edges = [
        dict(source=i, target=i + 1, operation="add", symbol="+", colour="#333333", delayed=False)
        for i in range(59)
    ]
    svg = check({"nodes": nodes, "edges": edges})
    assert float(ElementTree.fromstring(svg).get("width", "")) < 1800
    assert len(groups(svg, "output")) == 1


def test_notes_copies_and_what_is_said_of_a_node():
    nodes = [
        dict(id=0, kind="input", label="x", operation="", colour="white", is_output=False, note="3x8x8"),
        dict(id=1, kind="intermediate", label="linear(4)", operation="linear(4)", colour="#c3dcf9",
             is_output=True, note="3x8x4", about="36 parameters", copies=4),
    ]  # fmt: skip
    edges = [dict(source=0, target=1, operation="", symbol="\u00d74", colour="#333333", delayed=False)]
    svg = draw_block({"nodes": nodes, "edges": edges})
    assert titles(svg, "edge") == ["x \u2192 linear(4)"]
    assert titles(svg, "node") == ["x: input", "linear(4): 36 parameters (output)"]
    first, second = groups(svg, "node")
    assert [text.text for text in second.iter(f"{SVG}text")] == ["linear(4)", "3x8x4"]
    assert len(first.findall(f"{SVG}rect")) == 1
    assert len(second.findall(f"{SVG}rect")) == 3  # a stack
    nodes[1]["copies"] = "many"
    with pytest.raises(ValueError, match="not of the expected form"):
        draw_block({"nodes": nodes, "edges": edges})
