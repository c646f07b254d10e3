"""The report in a real browser, headless: no errors on its console, and what it does by script works."""

import html
import json
import pathlib
import re
import shutil
import sqlite3
import subprocess
from typing import Any, NamedTuple

import pytest

from elenas_jax.analysis import report, write_report
from tests.analysis.synthetic import write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "h = x</script><script>window.broken = 1</script><!-- <img src=x onerror='broken = 1'>\ny = h & h"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1240,1500",
    "--virtual-time-budget=5000",
    "--dump-dom",
)
# Uses a copy of the page as a person would and writes what is seen into it. The last line shows that
# errors do arrive where they are looked for.
USE = """<script>
window.addEventListener("load", function () {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const head = (name) => all("#best th").find((th) => th.innerText.trim() === name);
  const column = (name) => all("#best tbody tr").map((row) => row.cells[head(name).cellIndex].innerText);
  const point = (element) => {
    const box = element.getBoundingClientRect();
    const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true };
    const tip = document.getElementById("tip");
    element.dispatchEvent(new PointerEvent("pointermove", at));
    const text = tip.hidden ? null : tip.innerText;
    element.ownerSVGElement.dispatchEvent(new PointerEvent("pointerleave"));
    return tip.hidden ? text : null;
  };
  const found = { before: column("rank") };
  found.sorted = ["parameters", "parameters", "embedded_reber", "block", "rank", "rank"].map(function (name) {
    head(name).querySelector("button").click();
    return { name: name, order: head(name).getAttribute("aria-sort"), values: column(name) };
  });
  const search = document.getElementById("search");
  search.value = column("block")[2].slice(0, 6);
  search.dispatchEvent(new Event("input"));
  found.searched = all("#best tbody tr").filter((row) => !row.hidden).length;
  found.onPoint = point(document.querySelector('a[href="#block-1"] circle'));
  found.onCurve = point(document.querySelector("[data-chart=reward] path.line"));
  found.onShares = point(document.querySelector("[data-chart=validity] path.share"));
  found.onSmall = point(document.querySelector(".small path.line"));
  found.broken = typeof window.broken;
  found.code = document.querySelector("#block-1 pre").textContent;
  found.wide = document.documentElement.scrollWidth > window.innerWidth;
  const words = document.body.appendChild(document.createElement("pre"));
  words.id = "found";
  words.textContent = JSON.stringify(found);
  console.error("the last line");
});
</script></body>"""


class Seen(NamedTuple):
    found: dict[str, Any]
    console: list[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What one start of the browser gives: slow, so there is one."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on the path: none of {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("browser")
    run = write_run(folder / "a <b> & 'c' \"d\"")
    with sqlite3.connect(run / "archive.sqlite") as connection:
        connection.execute("UPDATE blocks SET text = ?", (HOSTILE,))
    connection.close()
    with pytest.MonkeyPatch.context() as patch:  # the page needs no files of figures, and they take time
        patch.setattr(report, "write_figures", lambda runs, folder: folder.mkdir())
        page = write_report(run, num_blocks=2).read_text(encoding="utf-8")
    start, end = page.rsplit("</body>", 1)
    copy = folder / "page.html"
    copy.write_text(start + USE + end, encoding="utf-8")
    return look(browser, copy, folder / "profile")


def look(browser: str, page: pathlib.Path, profile: pathlib.Path) -> Seen:
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    words = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert words is not None, f"the page was not used to the end:\n{done.stderr[-3000:]}"
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(json.loads(html.unescape(words[1])), console)


def test_nothing_but_the_last_line_is_on_the_console(seen):
    assert len(seen.console) == 1 and "the last line" in seen.console[0], seen.console


def test_a_click_on_a_head_sorts_and_another_one_turns_the_order(seen):
    def numbers(place):
        return [
            float(value.replace(",", "")) for value in seen.found["sorted"][place]["values"] if value != "-"
        ]

    orders = [step["order"] for step in seen.found["sorted"]]
    assert orders == ["descending", "ascending"] * 3
    assert seen.found["before"] == [str(rank) for rank in range(1, len(seen.found["before"]) + 1)]
    assert numbers(0) == sorted(numbers(0), reverse=True) and len(set(numbers(0))) > 1
    assert numbers(1) == sorted(numbers(0))
    assert numbers(2) == sorted(numbers(2), reverse=True)
    names = seen.found["sorted"][3]["values"]
    assert names == sorted(names)
    assert numbers(4) == list(range(len(names), 0, -1)) and len(names) > 10  # numbers, not their digits
    assert numbers(5) == list(range(1, len(names) + 1))


def test_what_has_no_value_comes_last(seen):
    values = seen.found["sorted"][2]["values"]
    assert "-" in values and "-" not in values[: values.index("-")]
    assert set(values[values.index("-") :]) == {"-"}


def test_the_search_leaves_what_was_looked_for(seen):
    assert 1 <= seen.found["searched"] < len(seen.found["before"])


def test_pointing_shows_values(seen):
    point = seen.found["onPoint"]
    assert "block" in point and "parameters" in point and "</script>" in point
    assert seen.found["onCurve"].startswith("generation") and "mean of" in seen.found["onCurve"]
    assert "%" in seen.found["onShares"]
    assert "entropy" in seen.found["onSmall"]


def test_text_of_a_run_stays_text(seen):
    assert seen.found["broken"] == "undefined"
    assert seen.found["code"] == HOSTILE


def test_the_page_is_no_wider_than_the_window(seen):
    assert not seen.found["wide"]
