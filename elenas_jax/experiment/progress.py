"""What a person sees of a running search: a live line on a terminal, plain lines elsewhere.

Numbers also go to TensorBoard where a config asks for it.
"""

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_SECONDS_BETWEEN_LINES = 2.0  # without a terminal, not counting the last line
_STOPPING = "stopping after the trainings in flight; Ctrl-C again to stop at once"
_WINDOW = 20  # generations over which rates are taken


class Progress:
    """Shows generation, best score, candidates, rates and time left.

    Args:
      console: where to write; a terminal gets one line that is drawn again and again.
      limits: of the run: `generations`, `evaluations`, `minutes`, each 0 for none.
      before: lines of metrics of earlier sessions.
    """

    def __init__(
        self, console: Console, limits: Mapping[str, float], before: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._console = console
        self._limits = limits
        self._first = len(before)
        self._seconds_before = sum(row["seconds"] for row in before)
        self._started = time.perf_counter()
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=_WINDOW)
        self._stopping = False
        self._chunk = ""
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._shown: Mapping[str, Any] | None = None  # the generation of the last plain line
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._rows and not self._stopping and self._shown is not self._rows[-1]:
            self._console.print(self._line(), soft_wrap=True)

    def chunk(self, done: int, total: int) -> None:
        """Takes note of trainings done of those that this generation needs."""
        self._chunk = f"training {done}/{total}"
        if self._live is None:
            self._print_line()

    def generation(self, row: Mapping[str, Any]) -> None:
        """Takes a generation's row of metrics."""
        self._rows.append(row)
        self._chunk = ""
        if self._live is None:
            self._print_line()

    def stop_asked(self) -> None:
        """Takes note that the run is to stop; may be called from a signal handler."""
        self._stopping = True
        if self._live is None:  # not through buffers that the handler may have interrupted
            os.write(2, f"{_STOPPING}\n".encode())

    def _print_line(self) -> None:
        now = time.perf_counter()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._shown = self._rows[-1] if self._rows else None
            self._console.print(self._line(), soft_wrap=True)

    def _line(self) -> Text:
        return Text(" | ".join(self._parts()), overflow="ellipsis", no_wrap=True)

    def _parts(self) -> list[str]:
        if self._stopping:
            return [_STOPPING, *([self._chunk] if self._chunk else [])]
        if not self._rows:
            return [
                f"generation {self._first + 1}",
                self._chunk or "compiling",
                duration(self._seconds_gone()),
            ]
        row = self._rows[-1]
        best = row["best_score"]
        left = self._seconds_left()
        parts = [
            f"generation {row['generation'] + 1}" + _of(self._limits["generations"]),
            "no valid candidate yet" if best is None else f"best {best:.4f}",
            f"{duration(left)} left" if left is not None else duration(self._seconds_gone()),
            f"evaluations {row['total_evaluations']}" + _of(self._limits["evaluations"]),
            f"valid {row['valid']}/{row['proposals']}, unique {row['unique']}",
            *rates(self._rows),
        ]
        return parts + ([self._chunk] if self._chunk else [])

    def _seconds_gone(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def _seconds_left(self) -> float | None:
        """Until the first of the limits, as far as can be told; None where there is none."""
        row = self._rows[-1]
        seconds = sum(each["seconds"] for each in self._rows)
        estimates = []
        if self._limits["generations"]:
            left = self._limits["generations"] - row["generation"] - 1
            estimates.append(left * seconds / len(self._rows))
        evaluations = sum(each["new_evaluations"] for each in self._rows)
        if self._limits["evaluations"] and evaluations:
            left = self._limits["evaluations"] - row["total_evaluations"]
            estimates.append(left * seconds / evaluations)
        if self._limits["minutes"]:
            estimates.append(self._limits["minutes"] * 60 - self._seconds_gone())
        return max(0.0, min(estimates)) if estimates else None


def rates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns evaluations per second, and steps of the policy per second where there is one, in words.

    Evaluations that take longer than ten seconds are counted by the hour, and all of an evaluator that tells
    compiling from training; there the share of compiling follows, and how much of the time nothing was
    trained for it.
    """
    # The first generation of a session compiles; it is left out as soon as there are others.
    rows = list(rows)[1:] or list(rows)
    parts = []
    spent = [row.get("seconds_evaluator", {}) for row in rows]
    for count, per, words in (
        ("new_evaluations", "seconds_evaluating", "evaluations/s"),
        ("policy_steps", "seconds_strategy", "policy steps/s"),
    ):
        total, seconds = sum(row[count] for row in rows), sum(row[per] for row in rows)
        if total and seconds > 0:
            rate = total / seconds
            if count == "new_evaluations" and (rate < 0.1 or any(spent)):
                rate, words = 3600 * rate, "evaluations/h"
            parts.append(f"{float(f'{rate:.3g}'):,g} {words}")
    compiling, waiting, training = (
        sum(each.get(name, 0.0) for each in spent) for name in ("compiling", "waiting", "training")
    )
    if compiling + training > 0:
        share, waited = compiling / (compiling + training), waiting / (waiting + training)
        parts.append(f"compiling {share:.0%} ({waited:.0%} waited for)")
    return parts


def _of(limit: float) -> str:
    return f"/{limit:g}" if limit else ""


def duration(seconds: float) -> str:
    """Returns "45 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class TensorBoard:
    """Writes the numbers of each generation as TensorBoard events; does nothing unless asked to."""

    def __init__(self, folder: Path | None, first_generation: int) -> None:
        self._writer = None
        if folder is not None:
            import tensorboardX  # an optional extra; `build` has checked that it is there

            self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=first_generation)

    def generation(self, row: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        numbers = {f"search/{key}": value for key, value in row.items()}
        numbers |= {f"strategy/{key}": value for key, value in row["strategy"].items()}
        numbers |= {f"statuses/{key}": value for key, value in row["statuses"].items()}
        for key, value in numbers.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(key, value, row["generation"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
