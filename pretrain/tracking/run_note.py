"""`run.json` in the output folder: which MLflow run the journal belongs to, and how much of it is there."""

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic

NOTE = "run.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunNote:
    """What is known of the run; no password is in it."""

    tracking_uri: str
    """Where it is recorded, as it may be shown."""
    experiment: str
    run_key: str
    """Made here, before any server knew of the run; a tag of the run there."""
    run_id: str | None = None
    """MLflow's id; None before the run was made."""
    cursor: int = 0
    """Bytes of the journal that the server has confirmed."""
    postponed: tuple[int, ...] = ()
    """Where the lines before the cursor begin that the server could not take yet, e.g. a large file."""
    behind: bool = False
    """Whether the server knows steps that the journal has lost, e.g. by a loss of power."""
    closed: bool = False
    """Whether the server knows all of a finished run."""
    known: bool = False
    """Whether this or another server may know the run although there is no `run_id`."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The folder's note; None where there is none, or none that can be used."""
        found = read_json(folder / NOTE) or {}
        texts = [found.get(key) for key in ("tracking_uri", "experiment")]
        if not all(isinstance(text, str) and text for text in texts):
            return None
        run_id, cursor, later = (found.get(key) for key in ("run_id", "cursor", "postponed"))
        return cls(
            tracking_uri=str(texts[0]),
            experiment=str(texts[1]),
            run_key=str(found.get("run_key") or ""),
            run_id=run_id if isinstance(run_id, str) and run_id else None,
            cursor=cursor if isinstance(cursor, int) and cursor >= 0 else 0,
            postponed=tuple(place for place in later if isinstance(place, int))
            if isinstance(later, list)
            else (),
            behind=found.get("behind") is True,
            closed=found.get("closed") is True,
            known=found.get("known") is True,
        )

    def write(self, folder: Path) -> None:
        """Write it whole; a full disk is a warning, as what it says can be found out again."""
        try:
            write_atomic(folder / NOTE, json.dumps(asdict(self), indent=1))
        except HvcError as error:
            _log.warning("%s", error)

    def at(self, uri: str, experiment: str, run_key: str) -> "RunNote":
        """This note if it is about the same server and run, else a new one for them."""
        if self.tracking_uri == public(uri) and self.run_key in ("", run_key):
            return replace(self, run_key=run_key)
        return RunNote(public(uri), experiment, run_key, known=self.known or self.run_id is not None)

    def checked(self, size: int, at_line: bool = True) -> "RunNote":
        """The cursor if it can be right for a journal of `size` bytes, else back at the beginning.

        All is sent again then, which the server takes as the same, but for steps that the journal has
        lost: these are made again under other time stamps.
        """
        if self.cursor <= size and at_line:
            return self
        return replace(self, cursor=0, postponed=(), behind=self.behind or self.cursor > size)

    def with_(self, **changes: Any) -> "RunNote":
        """A copy with changes."""
        return replace(self, **changes)
