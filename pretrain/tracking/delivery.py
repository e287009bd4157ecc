"""What a journal says, brought to an MLflow server piece by piece; no thread but those of files.

Every piece may be sent twice without harm: a metric's time stamp is part of its key at the server, runs
and model versions are looked for before they are made, tags and files replace themselves. So the place
up to which the server has confirmed is noted after each piece, and a kill in between costs nothing.

Files go beside the rest, one at a time: a store that is slow or refuses them costs metrics nothing.
"""

import logging
import threading
import time
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.pretrain.tracking.journal import DAMAGED, JOURNAL, Line, read_lines, values_of
from hvc.pretrain.tracking.mlflow_client import client_of, is_refusal, shown
from hvc.pretrain.tracking.posts import SENDERS, Post
from hvc.pretrain.tracking.run_at_server import NewRun, find_run, is_active, last_step
from hvc.pretrain.tracking.run_note import RunNote

POINTS = 1000
"""Metrics in one request; MLflow takes no more."""
_TRIES = 3
"""So often is a piece tried that a server refuses which answers otherwise, before others go first."""
_PATIENCE = 60.0
"""Seconds before it is tried again."""
_FILES = ("picture", "artifact")
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Errand:
    """One line on its way in a thread of its own."""

    def __init__(self, post: Post, line: Line, start: int) -> None:
        self.run_id, self.kind, self.start = post.run_id, str(line.content["kind"]), start
        self.error: Exception | None = None
        self._post, self._content = post, line.content
        self._thread = threading.Thread(target=self._run, name="mlflow file", daemon=True)
        self._thread.start()

    def is_over(self, seconds: float = 0.0) -> bool:
        """Wait at most so long; whether it has ended, well or with `error`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self.kind in SENDERS:
                SENDERS[self.kind](self._post, self._content)
        except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
            self.error = error


class Delivery:
    """One journal on its way to one server."""

    def __init__(self, folder: Path, uri: str) -> None:
        """Read where it stands; nothing is asked of the server yet.

        Raises HvcError when the folder holds no journal of a run.
        """
        self.folder, self.uri, self.journal = folder, uri, folder / JOURNAL
        self._new_run, self._adopted = _beginning(self.journal)
        note = RunNote.read(folder)
        fresh = RunNote(public(uri), self._new_run.experiment, self._new_run.key)
        self.note = note.at(uri, fresh.experiment, fresh.run_key) if note else fresh
        self.lines_sent = 0
        self._client: Any = None
        self._opened = False
        self._floors: dict[str, int] = {}
        self._failures = 0
        self._try_postponed_at = 0.0
        self._errand: Errand | None = None
        self._said_to_wait: set[int] = set()
        self._check_cursor()

    def send(self, *, final: bool = False) -> bool:
        """Send the next piece; False when there is nothing to send now.

        What had to let others go first is tried again once a minute, or at once where it is `final`.
        Raises whatever MLflow raises when the server does not answer; the same piece comes again then.
        """
        if self._errand is not None and self._errand.is_over():
            self._end_errand(self._errand, final)
            return True
        due = final or time.monotonic() >= self._try_postponed_at
        begins = bool(self.note.postponed) and due and self._errand is None
        if not self._next_batch(self.note.cursor):
            if self._errand is not None and final:
                self._errand.is_over(_LOOK_SECONDS)
                return True
            if not begins:
                return False
        self._open()
        if begins:
            self._begin_errand()
        batch = self._next_batch(self.note.cursor)  # a new run begins at the journal's beginning
        if not batch:
            return final
        if batch[0].content["kind"] in _FILES:
            self._postpone(batch)
            return True
        try:
            self._deliver(batch)
        except Exception as error:
            if self._gone(error):
                return True
            if not self._may_pass(batch, error):
                raise
        self._failures = 0
        self._confirm(batch)
        return True

    @property
    def goes_on(self) -> bool:
        """Whether there is something to look after although the journal does not grow."""
        return bool(self.note.postponed)

    def waiting(self) -> int:
        """Lines that the server has not confirmed yet."""
        return sum(1 for _ in read_lines(self.journal, self.note.cursor)) + len(self.note.postponed)

    def _check_cursor(self) -> None:
        try:
            with self.journal.open("rb") as file:
                size, cursor = file.seek(0, 2), self.note.cursor
                file.seek(max(0, cursor - 1))
                at_line = cursor == 0 or file.read(1) == b"\n"
        except OSError as error:
            raise HvcError(f"cannot read {self.journal}: {error.strerror}") from None
        self.note = self.note.checked(size, at_line)

    def _open(self) -> None:
        if self._client is None:
            self._client = client_of(self.uri)
        if self._opened:
            return
        run_id = find_run(self._client, self.note.run_id, self._new_run, self.uri)
        if run_id != self.note.run_id:
            behind = self.note.behind and self.note.run_id is None  # a new run knows nothing
            self.note = self.note.with_(run_id=run_id, cursor=0, postponed=(), behind=behind, closed=False)
            self._floors = {}
        self.note.write(self.folder)
        self._opened = True

    def _next_batch(self, start: int) -> list[Line]:
        """One line, or as many metrics lines as fit into a request."""
        batch: list[Line] = []
        points = 0
        for line in read_lines(self.journal, start):
            metrics = line.content["kind"] == "metrics"
            points += len(line.content["values"]) if metrics else 0
            if batch and (not metrics or points > POINTS):
                return batch
            batch.append(line)
            if not metrics:
                return batch
        return batch

    def _deliver(self, batch: list[Line]) -> None:
        kind = batch[0].content["kind"]
        if kind == "metrics":
            self._send_metrics(batch)
        elif kind == DAMAGED:
            _log.warning("%s: the line before byte %d is damaged; left out", self.journal, batch[0].end)
        elif kind in SENDERS:
            SENDERS[kind](self._post(), batch[0].content)

    def _post(self) -> Post:
        assert self.note.run_id is not None, "opened before"
        return Post(self._client, self.note.run_id, self.folder)

    def _send_metrics(self, batch: list[Line]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(name, value, line.content["time"], line.content["step"])
            for line in batch
            for name, value in values_of(line.content).items()
            if line.content["step"] > self._floor(name)
        ]
        for start in range(0, len(points), POINTS):
            self._client.log_batch(self.note.run_id, metrics=points[start : start + POINTS])

    def _floor(self, name: str) -> int:
        """The step up to which the server knows a metric from a journal that is lost."""
        if not (self._adopted or self.note.behind):
            return -1
        if name not in self._floors:
            self._floors[name] = last_step(self._client, str(self.note.run_id), name)
        return self._floors[name]

    def _gone(self, error: Exception) -> bool:
        """Whether the run is no longer there; everything is sent to a new one then."""
        if not is_refusal(error) or is_active(self._client, str(self.note.run_id)):
            return False
        self._opened = False
        return True

    def _may_pass(self, batch: list[Line], error: Exception) -> bool:
        """Whether the lines after this piece may go on without it."""
        what = batch[0].content["kind"]
        if is_refusal(error):
            if len(batch) > 1:  # one of them spoils the others
                for line in batch:
                    self._deliver_alone(line)
            else:
                self._say_it_is_refused(what, error)
            return True
        self._failures += 1
        if what == "metrics" or self._failures < _TRIES:
            return False
        if not is_active(self._client, str(self.note.run_id)):
            return False
        self._let_wait(what, self.note.cursor, error)
        self.note = self.note.with_(postponed=(*self.note.postponed, self.note.cursor))
        return True

    def _let_wait(self, what: str, start: int, error: Exception) -> None:
        if start not in self._said_to_wait:
            _log.warning("a %s record waits (%s); others go first", what, shown(error, self.uri))
        self._said_to_wait.add(start)
        self._try_postponed_at = time.monotonic() + _PATIENCE

    def _deliver_alone(self, line: Line) -> None:
        try:
            self._deliver([line])
        except Exception as error:
            if not is_refusal(error):
                raise
            _log.warning(
                "MLflow refuses the metrics of step %s for ever: %s",
                line.content.get("step"),
                shown(error, self.uri),
            )

    def _postpone(self, batch: list[Line]) -> None:
        self.note = self.note.with_(
            postponed=(*self.note.postponed, self.note.cursor), cursor=batch[-1].end
        )
        self.note.write(self.folder)

    def _begin_errand(self) -> None:
        if self.note.postponed:  # none, if the run is a new one
            start = self.note.postponed[0]
            self._errand = Errand(self._post(), self._next_batch(start)[0], start)

    def _end_errand(self, errand: Errand, final: bool) -> None:
        """Note what came of it; a failure is the caller's only when it is `final`: metrics go on."""
        self._errand = None
        if errand.run_id != self.note.run_id or (errand.error and self._gone(errand.error)):
            return  # a new run gets it anew
        rest = tuple(start for start in self.note.postponed if start != errand.start)
        if errand.error is not None and not is_refusal(errand.error):
            self.note = self.note.with_(postponed=(*rest, errand.start))  # next comes another one
            if final:
                raise errand.error
            self._let_wait(errand.kind, errand.start, errand.error)
            return
        if errand.error is not None:
            self._say_it_is_refused(errand.kind, errand.error)
        self.note = self.note.with_(postponed=rest)
        self._note_progress(1)

    def _say_it_is_refused(self, what: str, error: Exception) -> None:
        _log.warning("MLflow refuses a %s record for ever: %s", what, shown(error, self.uri))

    def _confirm(self, batch: list[Line]) -> None:
        self.note = self.note.with_(cursor=batch[-1].end)
        for line in batch:
            if line.content["kind"] == "attempt":
                self.note = self.note.with_(closed=False)
            elif line.content.get("status") == "FINISHED":
                self.note = self.note.with_(closed=True)
        self._note_progress(len(batch))

    def _note_progress(self, lines: int) -> None:
        self.lines_sent += lines
        self.note.write(self.folder)


def _beginning(journal: Path) -> tuple[NewRun, bool]:
    """What the run is made from, and whether another journal, now lost, held its beginning."""
    header: dict[str, Any] = {}
    for content, _ in read_lines(journal):
        if content["kind"] == "journal":
            header = header or content
        if content["kind"] == "attempt" and header:
            new = NewRun(header["run_key"], content["experiment"], content["name"], header["time"])
            return new, bool(header.get("adopted"))
    raise HvcError(f"{journal}: no journal of a run, or its beginning is damaged")
