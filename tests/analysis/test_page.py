import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from elenas_jax.analysis import page

HOSTILE = "</script><!-- <script> ]]> & \u2028 \x07 \" ' \ud800"


def test_text_is_safe_in_elements_and_attributes():
    words = page.text(HOSTILE)
    assert not set("<>\"'\x07\u2028\ud800") & set(words)
    assert ElementTree.fromstring(f'<a b="{words}">{words}</a>').text.startswith(
        "</script><!-- <script> ]]> &"
    )


def test_data_comes_back_and_cannot_leave_its_element():
    data = {"text": HOSTILE, "list": [1, None, 0.5]}
    script = page.data_script(data)
    inside = re.fullmatch(r"<script [^<>]*>([^<>&]*)</script>", script)
    assert inside is not None and json.loads(inside[1]) == data


def test_data_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.data_script([float("nan")])


def test_a_document_is_well_formed_and_needs_nothing_else():
    text = page.document(HOSTILE, "<main>a</main>", {"a": HOSTILE})
    tree = ElementTree.fromstring(text)
    assert [element.tag for element in tree] == ["head", "body"]
    assert not re.findall(r'(?:src|href)="(?!data:|#)|@import|url\(|https?://(?!www\.w3\.org/2000/svg)', text)
    style, script = tree.find("head/style").text, tree.findall("body/script")[-1].text
    assert "prefers-color-scheme: dark" in style and "@media print" in style and "<" not in style
    assert "</script" not in script and "innerHTML" not in script


def test_cells_carry_what_they_are_sorted_by():
    columns = [page.Column("rank"), page.Column("name", False), page.Column("score")]
    rows = [
        [page.Cell("1", 1), page.Cell("a<b", "a<b", link="block-1"), page.Cell("0.5", 0.5, 0.25)],
        [page.Cell("2", 2), page.Cell("-"), page.Cell("-", float("nan"), 7.0)],
    ]
    tree = ElementTree.fromstring(page.sortable_table("best", columns, rows, ["x  = y\nz", ""]))
    heads = tree.findall(".//th")
    assert [head.get("aria-sort") for head in heads] == ["ascending", None, None]
    first, second = tree.findall(".//tbody/tr")
    assert (first.get("id"), first.get("data-words"), second.get("id")) == ("best-1", "x = y z", "best-2")
    assert [cell.get("data-value") for cell in (*first, *second)] == ["1", "a<b", "0.5", "2", None, None]
    assert first.find(".//a").get("href") == "#block-1"
    assert [cell.get("style") for cell in (first[2], second[2])] == ["--bar:25.0%", "--bar:100.0%"]
