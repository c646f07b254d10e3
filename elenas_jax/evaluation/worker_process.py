"""One worker process as its parent sees it: lines of JSON go in, lines of JSON come out.

What is written to a worker, a line each:
  {"setup": ...}     first; whatever the program needs to know
  {"prepare": job}   start to compile this, beside what is being trained
  {"train": job}     train this, and answer
What it answers: {"ready": true} or {"error": "..."} once, then for each training
  {"record": [score, [metrics], status, parameters, flops, train_steps, seconds], "compiling": seconds,
   "waiting": seconds, "training": seconds}
A number that is not finite is null. A worker ends when its input ends, so that it never outlives its parent.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CLOSING_SECONDS = 5.0  # that a worker has to end by itself


class WorkerProcess:
    """A running worker.

    Args:
      command: that starts it.
      setup: what it is told first.
      environment: of the process.
    """

    def __init__(self, command: Sequence[str], setup: Any, environment: Mapping[str, str]) -> None:
        # A session of its own: Ctrl-C is for the parent, which decides what happens to trainings.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._begun = b""  # of a line that has not ended
        self.send({"setup": setup})

    def fileno(self) -> int:
        """Of its answers, for `selectors`."""
        return self._output.fileno()

    def send(self, message: Any) -> None:
        """Writes a line; to one that is dead nothing is written, as `answers` will tell."""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()

    def answers(self) -> tuple[list[dict[str, Any]], bool]:
        """Returns the answers that have come, and whether the worker lives; waits for nothing."""
        lives = True
        while True:
            try:
                part = os.read(self.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not part:
                lives = False
                break
            self._begun += part
        *lines, self._begun = self._begun.split(b"\n")
        return [json.loads(line) for line in lines], lives

    def resident_bytes(self) -> int:
        """Returns the memory it holds, 0 where the system does not say."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0

    def kill(self) -> int:
        """Ends it at once; returns its exit status as it was, or minus the signal."""
        self.process.kill()
        status = self.process.wait()
        self._close_files()
        return status

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        try:
            self.process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_files()

    def _close_files(self) -> None:
        for file in (self._input, self._output):
            with contextlib.suppress(BrokenPipeError):
                file.close()
