r"""Shows the tables of results/ in README.md, between their markers.

  python scripts/render_results.py           # writes README.md
  python scripts/render_results.py --check   # exit status 1 if README.md is not up to date

A page says where a table goes by <!-- results:NAME --> and <!-- end results:NAME -->, each on a line of
its own; NAME is that of results/NAME.json, see elenas_jax/analysis/results.py.
"""

import sys
from pathlib import Path

from absl import app, flags

from elenas_jax.analysis.results import load_result, render_page, shown_results
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.run_dir import RunError

_ROOT = Path(__file__).resolve().parents[1]
_CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit with 1 if the page is not up to date.")
_PAGE = flags.DEFINE_string("page", str(_ROOT / "README.md"), "Page to write.")
_FOLDER = flags.DEFINE_string("results", str(_ROOT / "results"), "Folder of the results.")


def main(_: list[str]) -> int:
    page, folder = Path(_PAGE.value), Path(_FOLDER.value)
    try:
        up_to_date = render_page(page, folder, write=not _CHECK.value)
        shown = shown_results(page.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json")):
            load_result(path)
            if path.stem not in shown:
                print(f"Note: {page.name} does not show {path.name}.")
    except RunError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if _CHECK.value and not up_to_date:
        print(f"error: {page.name} is not up to date; run scripts/render_results.py.", file=sys.stderr)
        return 1
    print(f"{page.name} {'was up to date' if up_to_date else 'is written'}; results shown: {len(shown)}.")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
