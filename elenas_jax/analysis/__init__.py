"""Afterwards: reads run folders, makes tables, figures, drawings and reports.

Nothing here runs a search or knows a space: what is drawn is what the run folder stores.
"""

from elenas_jax.analysis.comparison import compare_runs, select_runs
from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.load import Run, candidates, data_frame, evaluations, load_run, load_runs
from elenas_jax.analysis.report import print_summary, write_report
from elenas_jax.analysis.runs import list_runs
from elenas_jax.analysis.tables import best_blocks, count_statuses

__all__ = (
    "Run",
    "best_blocks",
    "candidates",
    "compare_runs",
    "count_statuses",
    "data_frame",
    "draw_block",
    "evaluations",
    "list_runs",
    "load_run",
    "load_runs",
    "print_summary",
    "select_runs",
    "write_report",
)
