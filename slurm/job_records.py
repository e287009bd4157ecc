"""What the folder of a submission says of its attempts, tasks and failures; nothing in it is an error.

A listing of a thousand folders must not end at the first that is damaged.
"""

import re
from pathlib import Path
from typing import Any

from hvc.base.files import read_json
from hvc.slurm.job_states import Recorded

_ATTEMPT = re.compile(r"attempt-(\d+)")
_RANK = re.compile(r"attempt-(\d+)-rank-(\d+)\.txt")
_ERROR = re.compile(r"[A-Za-z_][\w.]*: .+")
STOP = "stop"
RESIZE = "resize.json"


def task_folder(folder: Path, task: int | None) -> Path:
    """Of a job itself, or of one task of an array."""
    return folder if task is None else folder / f"task-{task}"


def newest_attempt(folder: Path, task: int | None = None) -> Recorded | None:
    """The record of the last attempt of a submission's folder; None where none began."""
    numbers = attempts(folder / "attempts", task)
    if not numbers:
        return None
    found = read_json(task_folder(folder / "attempts", task) / f"attempt-{numbers[-1]}.json") or {}
    return Recorded(
        numbers[-1],
        outcome=str(found.get("outcome") or "running"),
        reason=str(found.get("reason") or ""),
        nodes=str(found.get("nodes") or ""),
        started=_number(found.get("started")),
        ended=_number(found.get("ended")),
    )


def attempts(parent: Path, task: int | None) -> list[int]:
    """Numbers of the attempts that left a record in `attempts`, or a folder in `logs`, ascending."""
    try:
        names = [path.name for path in task_folder(parent, task).iterdir()]
    except OSError:
        return []
    found = {_ATTEMPT.match(name) for name in names}
    return sorted({int(match[1]) for match in found if match})


def failures(
    folder: Path, task: int | None = None, attempt: int | None = None
) -> list[tuple[int, int, Path]]:
    """(attempt, rank, file) of the tracebacks of an attempt, by default of the newest with any.

    What was written first comes first: it is likely to be the cause of the others.
    """
    found = []
    for path in task_folder(folder / "failures", task).glob("attempt-*-rank-*.txt"):
        match = _RANK.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    last = attempt if attempt is not None else max((number for number, _, _ in found), default=0)
    return sorted(
        (one for one in found if one[0] == last), key=lambda one: (one[2].stat().st_mtime_ns, one[1])
    )


def error_line(traceback: Path) -> str:
    """The error of a traceback in one line: the last one that reads like `SomeError: words`."""
    try:
        lines = traceback.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if _ERROR.match(line)]
    return said[-1] if said else (lines[-1] if lines else "")


def stop_asked(folder: Path, task: int | None = None) -> bool:
    """Whether somebody asked this job, or this task, to stop for good."""
    places = {folder / "requests" / STOP, task_folder(folder / "requests", task) / STOP}
    return any(place.exists() for place in places)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
