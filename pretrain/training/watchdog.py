"""Who notices that a rank stands still: its stacks go to the log, and the process leaves.

A thread of Python looks at the last step's time. Should the interpreter itself hang, a timer of C, which
that thread winds up again and again, writes the stacks and ends the process (exit code 1) a little later.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from hvc.base.errors import EXIT_STOPPED

_FALLBACK_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Watchdog:
    """Ends this process with exit code 75 when no step was finished for `seconds`.

    Args:
        seconds: patience, from the last `beat`.
        rank: whose process this is, for the log.
        folder: where `stacks-RANK.txt` goes, beside the log; no error if it cannot be written.
        on_hang: called before leaving, e.g. to ask a cluster to start the job again. All ranks call it.
    """

    def __init__(
        self, seconds: float, rank: int, folder: Path, on_hang: Callable[[], object] | None = None
    ) -> None:
        self._seconds, self._rank, self._folder, self._on_hang = seconds, rank, folder, on_hang
        self._last, self._step = time.monotonic(), 0
        self._pause = min(seconds / 4, 5.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        """A step was finished, or something else moved on."""
        self._last, self._step = time.monotonic(), step

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._over.is_set():
            faulthandler.dump_traceback_later(self._seconds + _FALLBACK_SECONDS, exit=True)
            if time.monotonic() - self._last > self._seconds:
                self._leave()
            self._over.wait(self._pause)

    def _leave(self) -> None:
        _log.error(
            "rank %d: no step was finished for %.0f s (after step %d); its stacks follow, and it leaves "
            "to be started again (watchdog_seconds)",
            self._rank,
            self._seconds,
            self._step,
        )
        faulthandler.dump_traceback(sys.stderr)
        try:
            with (self._folder / f"stacks-{self._rank:05d}.txt").open("w") as file:
                faulthandler.dump_traceback(file)
        except OSError as error:
            _log.warning("rank %d: cannot write its stacks to %s: %s", self._rank, self._folder, error)
        # The others look as often as this one. Who leaves takes them with it, and they have stacks, too.
        time.sleep(2 * self._pause)
        if self._on_hang is not None:
            try:
                self._on_hang()
            except Exception as error:  # noqa: BLE001 (whatever it is, this process has to leave)
                _log.exception("rank %d: %s", self._rank, error)
        sys.stderr.flush()
        os._exit(EXIT_STOPPED)
