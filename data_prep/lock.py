"""One writer at a time, by a lock that a killed process cannot leave behind."""

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hvc.base.errors import HvcError, PlaceError

_log = logging.getLogger(__name__)


class BusyError(HvcError):
    """Somebody else writes to this place now."""


class TakenOverError(HvcError):
    """Somebody else holds now what this process held: it must change nothing there any more."""


@dataclass(frozen=True)
class Turn:
    """The place of a process in a row of attempts, of which the last one alone may write."""

    lineage: str = ""
    """What the attempts have in common; empty: this process is in no row."""
    number: int = 0
    """Of the attempt; later ones have higher numbers."""

    def follows(self, other: "Turn") -> bool:
        """Whether the other one is an earlier attempt of the same row, which may be taken over from."""
        return bool(self.lineage) and self.lineage == other.lineage and self.number > other.number


NO_TURN = Turn()


@contextmanager
def sole_writer(
    path: Path, output: str, patience: float = 0.0, turn: Turn = NO_TURN
) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path`, which is gone afterwards, while this process writes to `output`.

    An earlier attempt, by its `turn`, is not waited for: it may hang on a node that nobody reaches. Gives
    what raises TakenOverError once a later one has done so with this.

    Raises BusyError when another process holds it for more than `patience` seconds, HvcError when the
    file cannot be made.
    """
    handle = _take(path, output, time.monotonic() + patience, fcntl.LOCK_EX, turn)
    words = json.dumps({**asdict(turn), "token": secrets.token_hex(16)}).encode()
    with suppress(OSError):  # a full disk: then nobody takes over from us, and all is as without turns
        os.ftruncate(handle, 0)
        os.pwrite(handle, words, 0)

    def check() -> None:
        if turn.lineage and _words(path) != words:
            raise TakenOverError(
                f"output {output} was taken over by a later attempt, as this one, attempt {turn.number}, "
                "was lost; it ends here and the other one goes on"
            )

    try:
        yield check
    finally:
        if _is_at(handle, path):  # and not a later attempt's
            path.unlink(missing_ok=True)  # before the lock is given back: nobody else's can be there yet
        os.close(handle)


@contextmanager
def one_of_several_writers(path: Path, output: str) -> Iterator[None]:
    """Hold the lock file `path` together with others, so that there is no sole writer meanwhile.

    The file stays. Raises BusyError while somebody is the sole writer.
    """
    handle = _take(path, output, time.monotonic(), fcntl.LOCK_SH, NO_TURN)
    with suppress(OSError):
        os.ftruncate(handle, 0)  # the words of a killed sole writer: nobody takes over from us by them
    try:
        yield
    finally:
        os.close(handle)


def _take(path: Path, output: str, deadline: float, kind: int, turn: Turn) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not passed on to child processes
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        except OSError as error:
            raise PlaceError(f"cannot write {path}: {error.strerror}; choose another output") from None
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if turn.follows(_turn_of(_words(path))):
                _log.warning("%s: taking over from an earlier attempt, which was lost", output)
                path.unlink(missing_ok=True)
                continue
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise BusyError(
                f"output {output}: another run writes here; wait until it ends, or choose another output"
            ) from None
        except OSError as error:  # some network file systems have no locks
            _log.warning(
                "%s: no lock (%s); see to it that only one run writes here", output, error.strerror
            )
            return handle
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its last holder removed it between our opening and our locking


def _words(path: Path) -> bytes:
    """What the holder wrote; opening the file makes a network file system look at what is there now."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _turn_of(words: bytes) -> Turn:
    try:
        said = json.loads(words)
        return Turn(str(said["lineage"]), int(said["number"]))
    except (ValueError, KeyError, TypeError):
        return NO_TURN


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
