import io

import matplotlib.image
import numpy as np
import pytest

from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.raster import draw_png, parse_path, write_png
from tests.analysis.synthetic import random_drawing


def pixels(svg: str, scale: float = 1.0) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(draw_png(svg, scale)), format="png")[..., :3]


def test_a_rectangle_stands_where_the_drawing_says():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10.0 -10.0 60.0 40.0">'
        '<rect x="-10" y="-10" width="60" height="40" fill="#ffffff" stroke="none" stroke-width="0"/>'
        '<path d="M0,0 h20 V10 L0,10 Z" fill="#ff0000"/></svg>'
    )
    image = pixels(svg)
    assert image.shape == (40, 60, 3)
    np.testing.assert_allclose(image[15, 20], (1, 0, 0), atol=0.01)  # x = 10, y = 5
    np.testing.assert_allclose(image[25, 20], (1, 1, 1), atol=0.01)
    np.testing.assert_allclose(image[15, 5], (1, 1, 1), atol=0.01)


def test_a_drawn_block_has_its_colours_and_its_size():
    drawing = random_drawing(0, 6, 8)
    for node in drawing["nodes"]:
        node["colour"] = "#12ab34"
    drawing["nodes"][1].update(label="$x^2$", kind="intermediate")  # no formula of the plotting library
    svg = draw_block(drawing, "title")
    width, height = (float(text) for text in svg.split('viewBox="')[1].split('"')[0].split()[2:])
    image = pixels(svg, 0.5)
    assert abs(image.shape[0] - height / 2) <= 1 and abs(image.shape[1] - width / 2) <= 1
    near = np.abs(image - np.array([0x12, 0xAB, 0x34]) / 255).max(axis=-1) < 0.02
    assert near.sum() > 100


def test_a_huge_drawing_is_made_smaller():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100000 10"/>'
    assert pixels(svg).shape[1] <= 2**15


def test_paths_follow_relative_and_absolute_commands():
    path = parse_path("M1,2 L3.5,-4 H6 v2 q1,0 1,1 c0,1 2,3 4,5 Z")
    assert path.vertices.tolist() == [
        [1, 2], [3.5, -4], [6, -4], [6, -2], [7, -2], [7, -1], [7, 0], [9, 2], [11, 4], [1, 2],
    ]  # fmt: skip


def test_other_svg_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'A' is no command"):
        draw_png('<svg viewBox="0 0 9 9"><path d="M0,0 A1,1 0 0 0 2,2"/></svg>')
    with pytest.raises(ValueError, match="viewBox"):
        draw_png("<svg/>")
    path = tmp_path / "block.png"
    write_png(path, '<svg viewBox="0 0 9 9"/>')
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and list(tmp_path.iterdir()) == [path]
