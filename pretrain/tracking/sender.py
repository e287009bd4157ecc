"""The one thread that sends a run's journal while training goes on, however long the server is away."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.data_prep.lock import NO_TURN, BusyError, TakenOverError, Turn, sole_writer
from hvc.pretrain.tracking.delivery import Delivery
from hvc.pretrain.tracking.mlflow_client import shown

LOCK = ".sending.lock"
"""In the output folder: held by whoever sends its journal."""
INTERVAL = 2.0
"""Seconds between two rounds, so that one request carries many records."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds to wait after a first failure, doubled with each further one, and at most."""
UNREACHED_SECONDS = 5.0
"""How long the end waits for a server that has answered nothing since the start, but failures."""
_SHARE = 9.0
"""Rest after a piece, in units of its work: one thread at a time runs Python, and it should train."""
_OURS = (TypeError, AttributeError, KeyError, NameError, AssertionError)
_log = logging.getLogger(__name__)


def pause_after(failures: int) -> float:
    """Seconds until the next attempt after so many failures in a row, from 1."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))


class Sender:
    """Sends in the background from `start()` on; nothing here makes its caller wait but `finish`."""

    def __init__(
        self, folder: Path, uri: str, turn: Turn = NO_TURN, check: Callable[[], None] = lambda: None
    ) -> None:
        """`check` raises TakenOverError once the folder is a later attempt's: then no more is sent."""
        self.folder, self.uri, self._turn, self._check = folder, uri, turn, check
        self.delivery: Delivery | None = None
        self._wake, self._finishing, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._done = threading.Event()
        self._failures, self._reached = 0, False
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin; the first thing to wait for the server is the thread."""
        self._thread.start()

    def notify(self) -> None:
        """The journal has grown."""
        self._wake.set()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once it is known."""
        return self.delivery.note.run_id if self.delivery else None

    def waiting(self) -> int:
        """Journal lines that the server has not confirmed."""
        try:
            return (self.delivery or Delivery(self.folder, self.uri)).waiting()
        except HvcError:
            return 0

    def finish(self, seconds: float) -> bool:
        """Send the rest, for at most so long; whether the server has confirmed everything.

        A server that was never reached gets UNREACHED_SECONDS: it will hardly come just now.
        """
        self._finishing.set()
        self._wake.set()
        sent = self._done.wait(min(seconds, UNREACHED_SECONDS))
        if not sent and (self._reached or not self._failures):
            sent = self._done.wait(max(0.0, seconds - UNREACHED_SECONDS))
        self._stop.set()
        self._thread.join(1.0)  # it lets go of the lock, unless a request is under way
        return sent

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with sole_writer(self.folder / LOCK, str(self.folder), turn=self._turn):
                    self._send_until_finished()
                    return
            except TakenOverError as error:
                _log.warning("%s", error)
                return
            except BusyError:  # `hvc sync` is at it
                self._rest(1.0)
            except HvcError as error:  # e.g. a full disk has no room for the lock
                self._note_failure(error)
            except Exception:  # noqa: BLE001 - training goes on whatever this is
                _log.exception("sending to MLflow ended; `hvc sync %s` sends the rest", self.folder)
                return

    def _send_until_finished(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            finishing = self._finishing.is_set()  # before sending: all of the journal is there then
            if self._send_all() and finishing:
                self._done.set()
                return
            if not self._failures:
                self._wake.wait(INTERVAL if self.delivery and self.delivery.goes_on else None)
                self._finishing.wait(INTERVAL)

    def _send_all(self) -> bool:
        """Send all there is; False after a failure and the pause that it is worth."""
        try:
            self.delivery = self.delivery or Delivery(self.folder, self.uri)
            while self._send_a_piece(self.delivery):
                self._say_it_is_back()
                if self._stop.is_set():
                    return False
        except TakenOverError:
            raise
        except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
            self._note_failure(error)
            return False
        self._failures = 0
        return True

    def _note_failure(self, error: Exception) -> None:
        """Say the first one, and rest."""
        self._failures += 1
        if self._failures == 1:
            self._say_it_is_away(error)
        self._rest(pause_after(self._failures))

    def _send_a_piece(self, delivery: Delivery) -> bool:
        self._check()
        begin = time.thread_time()
        sent = delivery.send(final=self._finishing.is_set())
        if sent:
            self._reached = True
            self._finishing.wait(_SHARE * (time.thread_time() - begin))
        return sent

    def _rest(self, seconds: float) -> None:
        """Wait; while somebody waits for the end, never longer than a second."""
        if self._finishing.is_set():
            self._stop.wait(min(1.0, seconds))
        else:
            self._finishing.wait(seconds)

    def _say_it_is_away(self, error: Exception) -> None:
        _log.warning(
            "MLflow at %s does not take records now (%s); training goes on, they are kept in %s",
            public(self.uri),
            shown(error, self.uri),
            self.folder,
            exc_info=isinstance(error, _OURS) and not isinstance(error, HvcError),
        )

    def _say_it_is_back(self) -> None:
        if self._failures:
            _log.info("MLflow at %s takes records again", public(self.uri))
            self._failures = 0
