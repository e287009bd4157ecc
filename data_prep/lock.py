"""One writer at a time, by a lock that a killed process cannot leave behind."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvc.base.errors import HvcError

_log = logging.getLogger(__name__)


class BusyError(HvcError):
    """Somebody else writes to this place now."""


@contextmanager
def sole_writer(path: Path, output: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards, while this process writes to `output`.

    Raises BusyError when another process holds it for more than `patience` seconds, HvcError when the
    file cannot be made.
    """
    handle = _take(path, output, time.monotonic() + patience, fcntl.LOCK_EX)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given back: nobody else's can be there yet
        os.close(handle)


@contextmanager
def one_of_several_writers(path: Path, output: str) -> Iterator[None]:
    """Hold the lock file `path` together with others, so that there is no sole writer meanwhile.

    The file stays. Raises BusyError while somebody is the sole writer.
    """
    handle = _take(path, output, time.monotonic(), fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(handle)


def _take(path: Path, output: str, deadline: float, kind: int) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not passed on to child processes
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        except OSError as error:
            raise HvcError(f"cannot write {path}: {error.strerror}; choose another output") from None
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
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


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
