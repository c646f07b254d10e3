"""A worker that trains nothing: it does what its jobs say. Needs the standard library only."""

import json
import os
import sys
import time
from pathlib import Path


def answer(message: dict) -> None:
    print(json.dumps(message), flush=True)


def note(folder: str, text: str) -> None:
    with open(Path(folder) / "log", "a") as file:
        file.write(f"{text}\n")


def claimed(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    setup = json.loads(sys.stdin.readline())["setup"]
    number = 0  # of this start among all that share the folder
    while not claimed(Path(setup["folder"]) / f"start {number}"):
        number += 1
    if number in setup.get("fails_at", []):
        sys.exit(4)
    if setup.get("fails") == "with words":
        answer({"error": "there are no data"})
        return
    if setup.get("fails"):
        sys.exit(4)
    note(setup["folder"], f"started {os.getpid()} cores {setup['cores']}")
    answer({"ready": True})
    for line in sys.stdin:
        ((what, job),) = json.loads(line).items()
        note(setup["folder"], f"{what} {job['name']}")
        if what == "prepare":
            continue
        does, _, once = job["does"].partition(" ")
        if once:  # only the first time
            marker = Path(setup["folder"]) / job["name"]
            does = "nothing" if marker.exists() else does
            marker.touch()
        if does == "crash":
            os._exit(3)
        if does == "hang":
            time.sleep(100)
        if does == "grow":
            hoard = b"x" * 2**26
            time.sleep(100)
            del hoard
        time.sleep(job.get("seconds", 0.0))
        record = [job["score"], [job["score"], None], 0, 7, 14.0, 3, 0.5]
        answer({"record": record, "compiling": 0.25, "waiting": 0.125, "training": 1.0})


main()
