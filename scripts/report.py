r"""Writes the report of a search: figures, drawings of the best blocks, and report.html.

  python scripts/report.py --run_dir=runs/small
  python scripts/report.py --run_dir=runs/small --num_blocks=10

The folder is that of one run, or one that holds runs of several seeds (seed_0, seed_1, ...), which
are then drawn together. A search that is still running may be looked at. Also prints a summary.
"""

import sys

from absl import app, flags

from elenas_jax.analysis import print_summary, write_report
from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.run_dir import RunError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder, or folder of several seeds.")
_NUM_BLOCKS = flags.DEFINE_integer("num_blocks", 5, "How many of the best blocks are drawn.", lower_bound=0)


def main(_: list[str]) -> int | None:
    try:
        if not _RUN_DIR.value:
            raise RunError("--run_dir=... is missing; see --helpshort.")
        path = write_report(_RUN_DIR.value, _NUM_BLOCKS.value)
        print_summary(_RUN_DIR.value, _NUM_BLOCKS.value)
    except RunError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"\nReport: {path}")
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
