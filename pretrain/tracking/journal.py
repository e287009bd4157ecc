"""`journal.jsonl`: all that MLflow is to know of a run, on disk before anybody else is told.

One JSON object a line, each with its `kind` and its `time` (ms since 1970). Lines are only ever added, so
a place in the file is a byte offset, and what was sent from it can be sent again unchanged. Values that
JSON has no word for are the texts "NaN", "Infinity" and "-Infinity".

    {"kind": "journal", "version": 1, "run_key": ..., "adopted": false}    first line
    {"kind": "metrics", "step": 10, "values": {"train/loss": -0.5}}
    {"kind": "attempt" | "checkpoint" | "picture" | "state", ...}
"""

import errno
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hvc.base.errors import HvcError

JOURNAL = "journal.jsonl"
JOURNAL_VERSION = 1
DAMAGED = "damaged"
_log = logging.getLogger(__name__)


class Line(NamedTuple):
    """One line of a journal, and where in the file it ends."""

    content: dict[str, Any]
    end: int


class Journal:
    """A journal that is open for adding; one process at a time, any of its threads.

    A full disk does not end training: lines wait in memory until there is room again, and half a line
    never stays in the file.
    """

    def __init__(self, path: Path) -> None:
        """Open or begin a journal; what a killed process left of a last line is cut off.

        Raises HvcError when the file cannot be opened.
        """
        self.path = path
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._full = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self.size = _end_of_whole_lines(self._file)
            os.ftruncate(self._file, self.size)
        except OSError as error:
            raise HvcError(f"cannot write {path}: {error.strerror}; choose another output=") from None

    def close(self) -> None:
        """Flush it and let go of the file; lines that the disk did not take are lost."""
        self.sync()
        os.close(self._file)

    @property
    def waiting(self) -> int:
        """Lines in memory that the disk has not taken yet."""
        return len(self._waiting)

    def append(self, kind: str, **content: Any) -> None:
        """Add a line; NaN and infinities may be among the numbers."""
        line = {"kind": kind, "time": int(time.time() * 1000), **content}
        data = (_as_json(line) + "\n").encode()
        with self._lock:
            self._waiting.append(data)
            self._write_all()

    def sync(self) -> None:
        """See to it that all lines are on the disk itself, as far as it takes them."""
        with self._lock:
            self._write_all()
        try:
            os.fsync(self._file)
        except OSError as error:
            _log.warning("%s: not flushed to the disk (%s)", self.path, error.strerror)

    def _write_all(self) -> None:
        """Write what waits, oldest first, until the disk refuses."""
        try:
            if self._full:
                os.ftruncate(self._file, self.size)
            while self._waiting:
                data = self._waiting[0]
                if os.write(self._file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.size += len(data)
                self._waiting.popleft()
        except OSError as error:
            if not self._full:
                _log.warning(
                    "cannot write %s: %s; training goes on and its records wait in memory; free some space",
                    self.path,
                    error.strerror,
                )
            self._full = True  # half a line may be there; the next attempt begins by cutting it off
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
            return
        if self._full:
            _log.info("%s can be written again; nothing is missing from it", self.path)
        self._full = False


def read_lines(path: Path, start: int = 0) -> Iterator[Line]:
    """The whole lines from byte `start` on; of a damaged one comes only its `kind`, DAMAGED."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            place = start
            for data in file:
                if not data.endswith(b"\n"):
                    return  # being written, or left by a kill
                place += len(data)
                yield Line(_parsed(data) or {"kind": DAMAGED}, place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HvcError(f"cannot read {path}: {error.strerror}") from None


def metric_records(path: Path) -> list[dict[str, float]]:
    """The metrics of a journal: one dict per step, with `step`, `time` (s since 1970) and all values."""
    records: dict[int, dict[str, float]] = {}
    for content, _ in read_lines(path):
        if content["kind"] == "metrics":
            record = records.setdefault(
                content["step"], {"step": content["step"], "time": content["time"] / 1000}
            )
            record |= values_of(content)
    return [records[step] for step in sorted(records)]


def values_of(line: dict[str, Any]) -> dict[str, float]:
    """The values of a metrics line as numbers, NaN and infinities included."""
    return {name: float(value) for name, value in line["values"].items()}


def _as_json(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # Python's own words for these three, as texts: float() reads them back.
        return json.dumps(_with_words(line), allow_nan=False, separators=(",", ":"))


def _with_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_words(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_words(inner) for inner in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return json.dumps(value)
    return value


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(data)
    except ValueError:
        return None
    whole = isinstance(content, dict) and "kind" in content and isinstance(content.get("time"), int)
    if whole and content["kind"] == "metrics":
        whole = isinstance(content.get("step"), int) and isinstance(content.get("values"), dict)
    return content if whole else None


def _end_of_whole_lines(file: int) -> int:
    """Where the last newline is, plus one."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - (1 << 16))
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
