"""What is recorded of a run: into the journal of the output folder, and from there to MLflow.

One thread brings the journal to the server, so a slow or dead one costs no training step. Rank 0 only.
"""

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance
from hvc.data_prep.lock import TakenOverError, Turn
from hvc.pretrain.checkpoints.checkpoint import Checkpoint, complete_steps, step_name, verified
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.output import planned_steps
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.attempt import attempt_line, checkpoint_drift, code_drift
from hvc.pretrain.tracking.journal import JOURNAL, JOURNAL_VERSION, Journal, metric_records
from hvc.pretrain.tracking.journal_state import JournalState
from hvc.pretrain.tracking.mlflow_client import client_of, shown
from hvc.pretrain.tracking.outbox import keep_encoder
from hvc.pretrain.tracking.picture_worker import PictureWorker
from hvc.pretrain.tracking.posts import EXPERIMENT_ID, RECORDS, RUN_ID
from hvc.pretrain.tracking.provenance_facts import all_facts
from hvc.pretrain.tracking.registry import NEWEST_ALIAS, aliased_steps
from hvc.pretrain.tracking.run_note import NOTE, RunNote
from hvc.pretrain.tracking.runs_note import Saved, run_note
from hvc.pretrain.tracking.sender import Sender
from hvc.pretrain.tracking.tracking_uri import uri_of_run

__all__ = ["NEWEST_ALIAS", "NOTE", "RECORDS", "Tracker", "resumed_from", "settle"]

FINISH_SECONDS = {Outcome.DONE: 30.0, Outcome.STOPPED: 5.0, None: 5.0}
"""How long the end of an attempt may wait for MLflow, by outcome (None: it failed)."""
ASK_SECONDS = 3.0
"""How long a checkpoint may wait for the word on aliases."""
_LOOKED_AT = ("curves", "features", "views", "weights")
"""Pictures in the order in which a run's page shows them."""
_STATUS = {Outcome.DONE: "FINISHED", Outcome.STOPPED: "SCHEDULED", None: "FAILED"}
_log = logging.getLogger(__name__)


class Tracker:
    """One MLflow run, the same one over all attempts: by the output folder, or by the checkpoint."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        provenance: Provenance,
        *,
        resumed: dict[str, Any] | None = None,
        facts: dict[str, str] | None = None,
        new_attempt: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the journal and begin an attempt; no server is asked for anything in here.

        Args:
            resumed: `resumed_from` the checkpoint that training goes on from.
            facts: More to tell of this attempt, e.g. the GPUs of all nodes; become tags of the run.
            new_attempt: False adds to what the last attempt recorded.
            check: Raises TakenOverError once the folder is a later attempt's; asked before every record.

        Raises HvcError when the journal cannot be opened.
        """
        resumed = resumed or {}
        self._config, self._data, self._folder, self._check = config, data, config.folder, check
        self.uri = uri_of_run(self._folder, config.tracking.uri)
        self.seconds = 0.0
        """Time that the thread which trains has spent in here."""
        self.journal = Journal(self._folder / JOURNAL)
        self._known = JournalState.of(self.journal.path)
        self._lock = threading.Lock()
        turn = Turn(provenance.lineage, provenance.attempt)
        self._sender = Sender(self._folder, self.uri, turn, check)
        self._pictures = PictureWorker(self._on_picture)
        self._asking: threading.Thread | None = None
        self._note = self._find_note(resumed)
        self._note.write(self._folder)
        numbers = [attempt["number"] for attempt in self._known.attempts]
        self._attempt = max([*numbers, int(resumed.get("attempt") or 0)])
        if new_attempt or not numbers:
            self._begin_attempt(provenance, all_facts() | (facts or {}), resumed)
        self._sender.start()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has made it."""
        return self._sender.run_id or self._note.run_id

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the run goes on even where the output folder is lost."""
        return {
            "run_key": self._note.run_key,
            "run_id": self.run_id,
            "tracking_uri": public(self.uri),
            "attempt": self._attempt,
        }

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record values of a step, those that are not recorded for it (or a later one) already."""
        begin = time.perf_counter()
        fresh = self._known.fresh(step, values)
        if fresh:
            self._add("metrics", step=step, values=fresh)
        self.seconds += time.perf_counter() - begin

    def picture(self, name: str, step: int, render: Callable[[], Image.Image]) -> None:
        """Have a picture drawn, in another thread, as `pictures/NAME-STEP.png`, and kept in the run.

        Nobody may change any more what `render` needs.
        """
        begin = time.perf_counter()
        file = f"pictures/{name}-{step:08d}.png"
        if file not in self._known.files:
            self._pictures.draw(name, step, self._folder / file, render)
        self.seconds += time.perf_counter() - begin

    def checkpoint(self, checkpoint: Checkpoint, *, last: bool = False) -> None:
        """Record a complete checkpoint, once: address, hash, step, and its trunk where that is wanted."""
        step, tracking = checkpoint.step, self._config.tracking
        if (step, checkpoint.sha256) not in self._known.checkpoints:
            if tracking.upload_encoder == "all":
                self._keep_encoder(checkpoint, step_name(step), f"encoder/{step_name(step)}")
            record = {
                "version": 1,
                "step": step,
                "address": checkpoint.address,
                "sha256": checkpoint.sha256,
                "method": self._config.method_digest(),
            }
            self._add("checkpoint", record=record, model=tracking.model)
            self._describe()
        if last and tracking.upload_encoder != "none":
            self._keep_encoder(checkpoint, f"{step_name(step)}-last", "encoder")
        self.journal.sync()

    def pinned_steps(self) -> set[int] | None:
        """Steps of this run's checkpoints that an alias points to; None if that cannot be found out now.

        Waits at most ASK_SECONDS.
        """
        if self._asking is not None and self._asking.is_alive():
            return None  # the last question is still open
        run_id = self.run_id
        if run_id is None:  # a run that no server ever knew has no alias
            return None if self._note.known else set()
        found: list[set[int]] = []

        def ask() -> None:
            try:
                found.append(aliased_steps(client_of(self.uri), self._config.tracking.model, run_id))
            except Exception as error:  # noqa: BLE001 - MLflow raises anything
                _log.debug("aliases not known: %s", shown(error, self.uri))

        self._asking = threading.Thread(target=ask, name="aliases", daemon=True)
        self._asking.start()
        self._asking.join(ASK_SECONDS)
        return found[0] if found else None

    def records(self) -> list[dict[str, float]]:
        """The metrics so far, by step: `step`, `time` (s since 1970) and all values."""
        return metric_records(self.journal.path)

    def finish(self, outcome: Outcome | None) -> None:
        """End the attempt (None: it failed), wait a little for MLflow, warn of what has to wait longer."""
        deadline = time.monotonic() + FINISH_SECONDS[outcome]
        undrawn = self._pictures.finish(0.6 * FINISH_SECONDS[outcome])  # sending needs some of it
        if undrawn:
            _log.warning("%d pictures were not drawn in time", undrawn)
        status = _STATUS[outcome]
        try:
            if self._known.status != status:
                self._add("state", status=status, outcome=str(outcome or "failed"), attempt=self._attempt)
        except TakenOverError as error:  # how the run stands is the later attempt's to say
            _log.warning("%s", error)
            self._sender.finish(0.0)
            return
        self.journal.sync()
        sent = self._sender.finish(max(0.0, deadline - time.monotonic()))
        if self.journal.waiting:
            _log.warning("%d records are lost: no room for %s", self.journal.waiting, self.journal.path)
        waiting = 0 if sent else self._sender.waiting()
        if waiting:
            _log.warning(
                "%d records wait for MLflow at %s; `hvc sync %s` sends them, or the next start of this run",
                waiting,
                public(self.uri),
                self._folder,
            )

    def repair(self, address: str | Path) -> None:
        """Record the complete checkpoints at `address` that a kill kept from the journal."""
        for step in complete_steps(address):
            try:
                self.checkpoint(verified(address, step))
            except HvcError as error:  # a damaged one; training passes it over, too
                _log.warning("not recorded: %s", error)

    def _find_note(self, resumed: dict[str, Any]) -> RunNote:
        """Which run this is: by the journal, else by the note, else by the checkpoint, else a new one."""
        experiment, place = self._config.tracking.experiment, public(self.uri)
        note, opened_at = RunNote.read(self._folder), self.journal.size
        known = adopted = bool(resumed.get("run_key") or resumed.get("run_id"))
        if self._known.header is not None:
            known = True  # its note is lost
        else:
            key = (note.run_key if note else "") or _valid_key(resumed.get("run_key")) or uuid.uuid4().hex
            # With a run but no journal, the run's beginning was in one that is not here any more.
            adopted = adopted or bool(note and note.run_id)
            self._add("journal", version=JOURNAL_VERSION, run_key=key, adopted=adopted)
        key = str((self._known.header or {})["run_key"])
        if note is None:
            told = resumed.get("tracking_uri") in (None, place)
            run_id = str(resumed["run_id"]) if told and resumed.get("run_id") else None
            return RunNote(place, experiment, key, run_id, known=known)
        found = note.at(self.uri, experiment, key).checked(opened_at)
        if note.tracking_uri != place:
            _log.warning(
                "tracking moved from %s to %s: the whole journal goes to a run there",
                note.tracking_uri,
                place,
            )
        return found

    def _begin_attempt(
        self, provenance: Provenance, facts: dict[str, str], resumed: dict[str, Any]
    ) -> None:
        self._attempt = max(provenance.attempt, self._attempt + 1)
        line = attempt_line(self._config, self._data, provenance, self._attempt, facts)
        drift = code_drift(self._known.attempts, self._attempt, line["code"])
        if drift:
            _log.warning("the code has changed since the last attempt (%s)", drift)
        elif drift := checkpoint_drift(resumed, line["code"]):
            _log.warning("the code has changed since the checkpoint was written (%s)", drift)
        if drift:
            line["tags"]["hvc.code_drift"] = drift
        self._add("attempt", **line)
        self._describe()

    def _describe(self) -> None:
        """The run's description, as things stand now."""
        newest, pictures = self._known.newest, self._known.pictures
        text = run_note(
            self._config,
            self._data,
            EXPERIMENT_ID,
            RUN_ID,
            planned_steps(self._config, self._data),
            Saved(newest["step"], newest["address"], newest["sha256"]) if newest else None,
            [pictures[name] for name in sorted(pictures, key=_place_of_picture)],
        )
        self._add("note", text=text)

    def _keep_encoder(self, checkpoint: Checkpoint, name: str, folder: str) -> None:
        try:
            file, elsewhere = keep_encoder(checkpoint, self._folder, name)
        except HvcError as error:
            _log.warning("the trunk of step %d does not become an artifact: %s", checkpoint.step, error)
            return
        if file not in self._known.files:
            self._add("artifact", file=file, folder=folder, **{"else": elsewhere})

    def _on_picture(self, name: str, step: int, path: Path) -> None:
        self._add_file("picture", path, "pictures", name=name, step=step)
        self._describe()

    def _add_file(self, kind: str, path: Path, folder: str, **more: Any) -> None:
        inside = path.is_relative_to(self._folder)
        file = path.relative_to(self._folder).as_posix() if inside else str(path)
        if file not in self._known.files:
            self._add(kind, file=file, folder=folder, **more)

    def _add(self, kind: str, **content: Any) -> None:
        self._check()
        with self._lock:
            self.journal.append(kind, **content)
            self._known.add({"kind": kind, **content})
        self._sender.notify()


def resumed_from(found: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of its run: `state()` as it was, and its `step` and `code` (sha256)."""
    said = found.state.get("tracking") or {"run_id": found.state.get("run_id")}
    return {**said, "step": found.step, "code": (found.state.get("code") or {}).get("code.sha256")}


def settle(config: TrainConfig, data: TrainingData, provenance: Provenance, found: Checkpoint) -> None:
    """Tell MLflow what it lacks of a run that has finished; a server that is away is only a warning.

    Nothing is told where the run's own output folder is not at hand: this start took no part in it.

    Args:
        found: The last checkpoint; the journal may lack it after a kill.
    """
    if not _is_of(config.folder, found):
        _log.warning(
            "the run that wrote %s has finished, and %s is not its output folder: nothing is recorded; for "
            "a run of its own choose another checkpoint.address=",
            found.address,
            config.folder,
        )
        return
    if _is_settled(config, found):
        return
    tracker = Tracker(config, data, provenance, resumed=resumed_from(found), new_attempt=False)
    tracker.checkpoint(found, last=True)
    tracker.finish(Outcome.DONE)


def _is_of(folder: Path, found: Checkpoint) -> bool:
    """Whether an output folder is that of the run that wrote a checkpoint."""
    header, note = JournalState.of(folder / JOURNAL).header, RunNote.read(folder)
    here = str(header["run_key"]) if header else note and note.run_key
    there = resumed_from(found).get("run_key")
    return here is not None and (not here or there in (None, here))


def _is_settled(config: TrainConfig, found: Checkpoint) -> bool:
    note, journal = RunNote.read(config.folder), config.folder / JOURNAL
    if note is None or not journal.is_file():
        return False
    here = note.tracking_uri == public(uri_of_run(config.folder, config.tracking.uri))
    sent = note.cursor == journal.stat().st_size and not note.postponed
    recorded = (found.step, found.sha256) in JournalState.of(journal).checkpoints
    return here and sent and note.closed and recorded


def _place_of_picture(name: str) -> int:
    return _LOOKED_AT.index(name) if name in _LOOKED_AT else len(_LOOKED_AT)


def _valid_key(text: Any) -> str:
    return text if isinstance(text, str) and re.fullmatch(r"[0-9a-f]{32}", text) else ""
