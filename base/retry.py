"""Trying again: how long to wait, when to give up, and what the user is told meanwhile."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hvc.base.store import StorageError

T = TypeVar("T")

FIRST_PAUSE = 0.1
"""Seconds: the longest pause after a first failure; it doubles with every further one."""
LONGEST_PAUSE = 5.0
"""Seconds: no pause is longer."""
_QUIET = 60.0
"""Seconds without a failure after which a new one counts as a new outage, worth a new warning."""

_log = logging.getLogger(__name__)
_draw = random.SystemRandom().random  # forked processes must not pause in step

_answered: set[str] = set()
"""Services that this process, or the one that sent it its work, has heard of."""

# Guards the counters of all retriers; a fork waits for it, so that no child inherits it locked.
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def pause(failures: int, elapsed: float, patience: float, draw: float) -> float | None:
    """Seconds to wait before the next attempt, or None when patience is used up.

    Full jitter: uniform between 0 and a bound that doubles with every failure, so that many
    processes that failed together don't come back together. The last pause ends with the
    patience, so at least one attempt is made at its very end.

    Args:
        failures: Failed attempts so far, from 1.
        elapsed: Seconds since the first attempt began.
        patience: Seconds after which no new attempt begins.
        draw: Random number from [0, 1).
    """
    left = patience - elapsed
    if left <= 0:
        return None
    return min(draw * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30)), left)


@dataclass(frozen=True)
class Verdict:
    """What a failed attempt means."""

    passing: bool
    """Whether it may work if tried again."""
    answered: bool
    """Whether the service was reached at all."""
    reason: str
    advice: str


class Retrier:
    """Runs operations on one service until they work; threads and forked processes may share it."""

    def __init__(self, patience: float, first_patience: float, service: str) -> None:
        """Give up after `patience` seconds, or `first_patience` while `service` never answered.

        A wrong address should be noticed at once, an outage in the middle of the work survived.
        What has answered is known to all retriers of the process.
        """
        self._patience, self._first_patience = patience, min(first_patience, patience)
        self._service = service
        self._last_failure = float("-inf")
        self.retries = 0
        """Attempts that were not the first of their operation, in this process."""

    def call(
        self,
        what: str,
        operation: Callable[[], T],
        judge: Callable[[Exception], Verdict],
        patience: float | None = None,
    ) -> T:
        """The operation's result.

        `what` names it for messages ("read s3://bucket/key"). An error that `judge` calls lasting
        is raised as it is; StorageError when patience (default: the retrier's own) is used up.
        """
        start, failures = time.monotonic(), 0
        while True:
            try:
                result = operation()
            except Exception as error:
                verdict = judge(error)
                if verdict.answered:
                    _answered.add(self._service)
                if not verdict.passing:
                    raise
                failures += 1
                self._wait(what, verdict, failures, start, patience)
            else:
                _answered.add(self._service)
                return result

    def _wait(
        self, what: str, verdict: Verdict, failures: int, start: float, patience: float | None
    ) -> None:
        now = time.monotonic()
        limit = self._limit() if patience is None else min(patience, self._limit())
        seconds = pause(failures, now - start, limit, _draw())
        if seconds is None:
            attempts = f"{failures} attempt{'s' if failures > 1 else ''} in {now - start:.0f} s"
            raise StorageError(f"cannot {what}: {verdict.reason} ({attempts}); {verdict.advice}") from None
        with _lock:
            self.retries += 1
            is_new, self._last_failure = now - self._last_failure > _QUIET, now
        level = logging.WARNING if is_new else logging.DEBUG
        _log.log(level, "cannot %s: %s; trying again for up to %.0f s", what, verdict.reason, limit)
        time.sleep(seconds)

    def _limit(self) -> float:
        return self._patience if self._service in _answered else self._first_patience

    def __getstate__(self) -> dict[str, object]:
        """A worker that starts during an outage knows that the service is there; it counts for itself."""
        kept = {**self.__dict__, "retries": 0, "_last_failure": float("-inf")}
        return {**kept, "answered": self._service in _answered}

    def __setstate__(self, state: dict[str, object]) -> None:
        answered = state.pop("answered")
        self.__dict__.update(state)
        if answered:
            _answered.add(self._service)
