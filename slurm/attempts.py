"""The records of a job's attempts: who ran where, what was checked, how it ended and what came of it.

attempts/attempt-N.json              of a job; of an array's task attempts/task-T/attempt-N.json
failures/attempt-N-rank-R.txt        a rank's last words; of an array's task failures/task-T/...

Rank 0 begins a record, and ends it where the stage ends by itself; `aftermath` ends what was left open,
the next attempt what even that could not.
"""

import json
import re
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from hvc.base.files import read_json, write_atomic

Outcome = Literal["running", "done", "stopped", "hung", "failed", "lost"]
Kind = Literal["failed", "refused", "hung", "alone"]
"""Of a failure: by itself; by what a person gave; standing still; as a peer was gone."""
_CAUSES: tuple[Kind, ...] = ("refused", "failed", "hung", "alone")
"""The first that a rank reports is what ended the attempt; the others follow from it."""
_NUMBER = re.compile(r"attempt-(\d+)(?:\.json)?")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The record of one attempt."""

    attempt: int
    job_id: str
    job_file: str
    """Name of what it runs, in the submission's folder."""
    nodes: str
    started: float
    """Seconds since 1970, as `ended`."""
    progress: float | None = None
    """How far the work was when it began, in the stage's own unit; None: the stage has none."""
    ended: float | None = None
    outcome: Outcome = "running"
    reason: str = ""
    requeued: bool = False
    """Whether the job itself asked for the next attempt (Slurm does so after preemption or a dead node)."""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """Per rank: rank, node, matmul_seconds, allreduce_seconds."""
    excluded: list[str] = field(default_factory=list)
    """Nodes that the next attempt goes without."""


@dataclass(frozen=True)
class Failure:
    """What a failing rank left."""

    rank: int
    kind: Kind
    words: str
    path: Path


class Records:
    """The attempts of a job, or of one task of an array, in the folder of its submission."""

    def __init__(self, folder: Path, task: int | None) -> None:
        own = "" if task is None else f"task-{task}"
        self._records, self._failures = folder / "attempts" / own, folder / "failures" / own
        self._logs = folder / "logs" / own

    def log(self, attempt: int, rank: int) -> Path:
        """Where a rank's words go."""
        return self._logs / f"attempt-{attempt}" / f"rank-{rank}.log"

    def numbers(self) -> list[int]:
        """Of all attempts that began, recorded or not, ascending."""
        found = {
            _NUMBER.fullmatch(path.name) for place in (self._records, self._logs) for path in _in(place)
        }
        return sorted({int(match[1]) for match in found if match})

    def read(self, attempt: int) -> Attempt | None:
        """A record; None where there is none, or no whole one."""
        values = read_json(self._path(attempt))
        if values is None:
            return None
        known = {field.name for field in fields(Attempt)}
        try:
            return Attempt(**{key: value for key, value in values.items() if key in known})
        except TypeError:
            return None

    def write(self, record: Attempt) -> None:
        """Write or replace a record; HvcError when that fails."""
        write_atomic(self._path(record.attempt), json.dumps(asdict(record), indent=1) + "\n")

    def all(self) -> list[Attempt]:
        """Every record, in order."""
        found = (self.read(number) for number in self.numbers())
        return [record for record in found if record is not None]

    def end(self, attempt: int, outcome: Outcome, reason: str = "", **more: Any) -> None:
        """End an attempt that is still open; nothing where it is not."""
        record = self.read(attempt)
        if record is not None and record.outcome == "running":
            self.write(replace(record, ended=time.time(), outcome=outcome, reason=reason, **more))

    def close_before(self, attempt: int) -> None:
        """End what earlier attempts left open: nobody lived to say how they ended."""
        for number in self.numbers():
            if number < attempt:
                self.end(number, "lost", "ended by Slurm, or its node was lost")

    def fail(self, attempt: int, rank: int, kind: Kind, text: str) -> None:
        """Leave a rank's last words, a traceback as a rule."""
        self._failures.mkdir(parents=True, exist_ok=True)
        path = self._failures / f"attempt-{attempt}-rank-{rank}.txt"
        # names of files may hold bytes that are no text
        path.write_text(f"# {kind}\n{text}", encoding="utf-8", errors="backslashreplace")

    def failures(self, attempt: int) -> list[Failure]:
        """What failing ranks left, the likely cause first."""
        found = []
        for path in self._failures.glob(f"attempt-{attempt}-rank-*.txt"):
            kind, _, words = path.read_text(encoding="utf-8", errors="replace").partition("\n")
            named: Kind = next((one for one in _CAUSES if kind == f"# {one}"), "failed")
            found.append(Failure(int(path.stem.rpartition("-")[2]), named, _last_words(words), path))
        return sorted(found, key=lambda one: (_CAUSES.index(one.kind), one.path.stat().st_mtime_ns))

    def _path(self, attempt: int) -> Path:
        return self._records / f"attempt-{attempt}.json"


def futile(records: list[Attempt], now: float | None) -> int:
    """How many of the last attempts brought the work no step further, up to the one that ends now.

    Attempts that Slurm ended and requeued by itself neither count nor begin the count anew; one that went
    on does.

    Args:
        records: All of them, the last being the one that ends now.
        now: How far the work is now; None: not known, or the stage cannot say.
    """
    count, after = 0, now
    for place, record in enumerate(reversed(records)):
        before = record.progress
        if before is not None and after is not None and after > before:
            break
        count += place == 0 or record.requeued
        after = before if before is not None else after
    return count


def has_worked(records: list[Attempt]) -> bool:
    """Whether any of these attempts brought the work further, as far as the records say."""
    steps = {record.progress for record in records if record.progress is not None}
    return len(steps) > 1 or any(record.outcome in ("stopped", "done") for record in records)


def _in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if re.match(r"[A-Za-z_][\w.]*: .+", line)]
    return (lines or text.splitlines() or [""])[-1]
