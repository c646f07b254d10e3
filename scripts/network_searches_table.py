r"""Puts searches for whole networks into a table and a figure: best on validation and test data, and when.

  python scripts/network_searches_table.py --runs=runs/mix,runs/scratch,runs/random_search
  python scripts/network_searches_table.py --runs=runs/mix,runs/scratch,runs/random_search \
      --plot=docs/networks.png --results=results/networks.json

Each folder is a run of scripts/search.py, or holds one for each seed. Test data are what
scripts/retrain_best.py wrote into the run folder, as test.json or, for what a search started from,
test_NAME.json. Searches that differ in their task, their evaluator or their number of evaluations, and those
that have not ended, are refused; so is a test of another candidate than the best.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from result_table import show_result
from rich.console import Console

from elenas_jax.analysis.network_searches import load_network_searches, network_panels, networks_table
from elenas_jax.analysis.replays import write_replay_figure
from elenas_jax.experiment.flags import check_writable, parse_flags, require
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors

_RUNS = flags.DEFINE_list("runs", None, "Folders of searches.")
_PLOT = flags.DEFINE_string("plot", None, "Also draw the curves: a file that ends in .png or .svg.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")

_NOTE = """Metrics in percent; mean ± standard deviation over seeds. Validation is that of the search, which
chose by it; test is after retraining on training and validation data together, and nothing was chosen by it.
Trained candidates (a generation may end a little above the limit), images, minutes, candidates an hour and
the share of compiling in what workers did are those of a search; of one that was stopped and went on
minutes are too few. "Mean of all" is of all networks that a random search drew, 0 for those that failed."""


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        require("runs")
        for name, value in (("plot", _PLOT.value), ("results", _RESULTS.value)):
            check_writable(name, value)
        if _PLOT.value and Path(_PLOT.value).suffix not in (".png", ".svg"):
            raise ConfigError(f"--plot={_PLOT.value}: it must end in .png or .svg.")
        searches = load_network_searches([Path(path) for path in _RUNS.value])
        config = searches[0].config
        task, num = config["ladder"][0], config["evaluations"]
        columns, rows = networks_table(searches)
        title = f"Searches of networks on {task}, {num} evaluations each"
        configs = {one.name: one.config for one in searches}
        show_result(
            console, title=title, columns=columns, rows=rows, note=_NOTE, to=_RESULTS.value, config=configs
        )
        if _PLOT.value:
            panels = network_panels(searches)
            label = "Best on validation data so far (%)"
            write_replay_figure(Path(_PLOT.value), panels, None, title, label)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
