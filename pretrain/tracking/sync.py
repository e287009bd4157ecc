"""`hvc sync`: sends what MLflow has not got of runs that nobody trains just now."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.lock import BusyError, sole_writer
from hvc.pretrain.tracking.delivery import Delivery
from hvc.pretrain.tracking.journal import JOURNAL, read_lines
from hvc.pretrain.tracking.mlflow_client import shown
from hvc.pretrain.tracking.run_note import RunNote
from hvc.pretrain.tracking.sender import LOCK, pause_after
from hvc.pretrain.tracking.tracking_uri import recorded_uri

TRIES = 4
"""Failures in a row after which a server counts as away."""


@dataclass(frozen=True)
class Synced:
    """What became of one run's journal."""

    folder: str
    run_id: str | None
    tracking_uri: str
    sent: int
    """Journal lines sent now."""
    waiting: int
    """Lines that still have to be sent."""
    problem: str = ""
    """Why they wait; empty if none do."""
    busy: bool = False
    """Whether somebody else sends them now."""
    begun: bool = True
    """False for a run that was ended before it had recorded its first attempt."""

    @property
    def failed(self) -> bool:
        """Whether something could not be sent, and nobody is at it."""
        return bool(self.problem) and not self.busy

    def values(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def text(self) -> str:
        """In one line."""
        if not self.begun:
            return f"{self.folder}: nothing is recorded of this run yet"
        run = f"run {self.run_id}" if self.run_id else "its run is not there yet"
        said = f"{self.folder}: {self.sent} records sent to {self.tracking_uri} ({run})"
        if self.waiting:
            said += f", {self.waiting} wait"
        return f"{said}: {self.problem}" if self.problem else said


def folders_with_journal(given: Iterable[Path], default: Path = Path("outputs")) -> list[Path]:
    """The run folders to look at: those given, else all below `default`.

    Raises UsageError for a given folder without a journal.
    """
    found = [folder.absolute() for folder in given]
    for folder in found:
        if not (folder / JOURNAL).is_file():
            raise UsageError(f"{folder}: no {JOURNAL} in it; give the output folder of a run")
    return found or sorted(path.parent.absolute() for path in default.rglob(JOURNAL))


def sync(folders: Iterable[Path], uri: str | None = None) -> Iterator[Synced]:
    """Send what is missing, run by run.

    Args:
        uri: Another server than the one each run was recorded at; the whole journal goes there.
    """
    for folder in folders:
        yield _sync_one(folder, uri or recorded_uri(folder))


def _sync_one(folder: Path, uri: str) -> Synced:
    delivery: Delivery | None = None
    problem, busy = "", False
    try:
        if not _has_begun(folder / JOURNAL):
            return Synced(str(folder), None, public(uri), 0, 0, begun=False)
        with sole_writer(folder / LOCK, str(folder)):
            delivery = Delivery(folder, uri)
            problem = _send_all(delivery)
    except BusyError:
        problem, busy = "left alone: a training run or another `hvc sync` sends from it now", True
    except HvcError as error:
        problem = str(error)
    if delivery is None:
        note = RunNote.read(folder)
        return Synced(str(folder), note.run_id if note else None, public(uri), 0, 0, problem, busy)
    note, sent = delivery.note, delivery.lines_sent
    return Synced(str(folder), note.run_id, public(uri), sent, delivery.waiting(), problem)


def _has_begun(journal: Path) -> bool:
    """Whether it tells of an attempt, or is damaged so that nobody knows."""
    return any(line.content["kind"] != "journal" for line in read_lines(journal))


def _send_all(delivery: Delivery) -> str:
    """What stands in the way; empty if all is sent."""
    failures = 0
    while True:
        try:
            if not delivery.send(final=True):
                return ""
            failures = 0
        except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
            failures += 1
            if failures == TRIES:
                where = public(delivery.uri)
                return (
                    f"{where} does not take it ({shown(error, delivery.uri)}); start it and try again, or "
                    "send all of it to another server by --tracking-uri"
                )
            time.sleep(pause_after(failures))
