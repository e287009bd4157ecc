"""How far a run is, by its output folder alone: the beginning and the end of its journal.

A journal of a long run has many megabytes; a look at a thousand runs must not read them.
"""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvc.pretrain.tracking.journal import DAMAGED, JOURNAL, read_lines
from hvc.pretrain.tracking.run_note import NOTE, RunNote

_TAIL_BYTES = 1 << 13
_RECORDS = 5
"""So many of the last metric records say how long a step takes now."""


@dataclass(frozen=True)
class RunProgress:
    """What the output folder of a run says of it; None: not said (yet)."""

    name: str
    """Of the run, as in its recipe."""
    run_id: str | None
    """MLflow's id; None before a server made the run."""
    tracking_uri: str | None
    """Where it is recorded, as it may be shown."""
    status: str | None
    """FINISHED, SCHEDULED (stopped, goes on) or FAILED; None while an attempt goes on, or was killed."""
    step: int | None
    total_steps: int | None
    images_per_second: float | None
    """Over all ranks, in the last record; as the next."""
    loss: float | None
    seconds_left: float | None
    """At the speed of the last records; None where the run has ended, or the speed is not known."""
    heard: float | None
    """When the journal last grew, in seconds since 1970."""

    @property
    def link(self) -> str | None:
        """The run's page at a server, else the address that `hvc evaluate` takes."""
        if self.run_id is None:
            return None
        if self.tracking_uri and self.tracking_uri.startswith(("http://", "https://")):
            return f"{self.tracking_uri.rstrip('/')}/#/runs/{self.run_id}"
        return f"runs:/{self.run_id}"


def progress_of(folder: Path) -> RunProgress | None:
    """How far the run of an output folder is; None where no run left a journal.

    Raises HvcError when the journal cannot be read.
    """
    path = folder / JOURNAL
    try:
        size = path.stat().st_size
    except OSError:
        return None
    first = _first_attempt(path)
    if first is None:
        return None
    tail = _TAIL_BYTES
    while True:
        last = _Last(first)
        for line, _ in read_lines(path, max(0, size - tail)):
            last.add(line)
        if last.metrics or tail >= size:
            break
        tail *= 8  # a record of many nodes is long, and so is a note behind the last one
    note = RunNote.read(folder) if (folder / NOTE).is_file() else None
    return last.progress(note)


def _first_attempt(path: Path) -> dict[str, Any] | None:
    return next((line for line, _ in read_lines(path) if line["kind"] == "attempt"), None)


class _Last:
    """The newest of what the lines of a journal say."""

    def __init__(self, attempt: dict[str, Any]) -> None:
        self.attempt = attempt
        self.metrics: list[dict[str, Any]] = []
        self.status: str | None = None
        self.heard = attempt["time"]

    def add(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind == DAMAGED:  # as the first line is, where reading began in the middle of one
            return
        self.heard = line["time"]
        if kind == "metrics" and "train/loss" in line["values"]:
            self.metrics.append(line)
        elif kind == "attempt":
            self.attempt, self.status = line, None
        elif kind == "state":
            self.status = line["status"]

    def progress(self, note: RunNote | None) -> RunProgress:
        step = self.metrics[-1]["step"] if self.metrics else None
        total = _whole(self.attempt["tags"].get("hvc.total_steps"))
        seconds = list(
            _finite(line["values"].get("perf/step_seconds") for line in self.metrics[-_RECORDS:])
        )
        left = None
        if step is not None and total is not None and seconds and self.status is None:
            left = max(0, total - step) * statistics.median(seconds)
        values = self.metrics[-1]["values"] if self.metrics else {}
        return RunProgress(
            name=self.attempt["name"],
            run_id=note.run_id if note else None,
            tracking_uri=note.tracking_uri if note else None,
            status=self.status,
            step=step,
            total_steps=total,
            images_per_second=next(_finite([values.get("perf/images_per_second")]), None),
            loss=next(_finite([values.get("train/loss")]), None),
            seconds_left=left,
            heard=self.heard / 1000,
        )


def _finite(values: Iterable[Any]) -> Iterator[float]:
    return (float(value) for value in values if value is not None and math.isfinite(float(value)))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
