"""Checkpoints are written beside the training, by one thread of rank 0, one at a time.

A write that fails costs that checkpoint, not the run: the last good one stays, and the next interval
tries again. Only so many failures in a row end the run.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.lock import TakenOverError
from hvc.pretrain.checkpoints.checkpoint import Checkpoint
from hvc.pretrain.checkpoints.retention import local_folder, prune, remove
from hvc.pretrain.checkpoints.writer import Snapshot, write_checkpoint
from hvc.pretrain.recipe import CheckpointConfig

__all__ = ["LAST_PAUSES", "Saver", "Snapshot"]

LAST_PAUSES = (1.0, 5.0)
"""Seconds before each further attempt to write the last checkpoint of a run."""
_log = logging.getLogger(__name__)


class Saver:
    """Rank 0's writer of checkpoints.

    `with Saver(...) as saver:` waits at the end, whatever happened, for a checkpoint that is on its way.
    """

    def __init__(
        self,
        address: str,
        config: CheckpointConfig,
        *,
        pinned: Callable[[], set[int] | None],
        committed: Callable[[Checkpoint], None],
        check: Callable[[], None] = lambda: None,
        scratch: Path | None = None,
    ) -> None:
        """Nothing is written or asked for yet.

        Args:
            address: Folder or `s3://bucket/prefix`.
            config: How many to keep, how many failures to bear.
            pinned: The steps that aliases point to; None: not known now, so nothing is deleted.
            committed: Told of each checkpoint once it counts. Both are called in the writing thread,
                and what they raise is only logged.
            check: Raises TakenOverError when the place is no longer this run's; asked before anything
                there counts or is deleted. It ends the run.
            scratch: Where the files of a checkpoint in a bucket are made; None: the temporary folder.
        """
        self._store, self._config = open_store(address), config
        self._pinned, self._committed, self._check, self._scratch = pinned, committed, check, scratch
        self._thread: threading.Thread | None = None
        self._failed: Snapshot | None = None
        self._reason: Exception | None = None
        self._defect: BaseException | None = None
        self._keeps_all = False
        self.last: Checkpoint | None = None
        """The last one that was written."""
        self.failures = 0
        """In a row, up to now."""
        self.seconds = 0.0
        """That the last write took, whether it failed or not."""
        self.waited = 0.0
        """Seconds that the last `save` waited for the one before."""

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write, and return; first wait for the one before.

        HvcError once `max_failures` in a row could not be written.
        """
        start = time.monotonic()
        self._join()
        self.waited = time.monotonic() - start
        self.check()
        self._thread = threading.Thread(target=self._run, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what `save` would raise; costs nothing."""
        if self._defect is not None:
            raise self._defect
        if self.failures >= self._config.max_failures:
            raise self._given_up()

    def finish(self) -> Checkpoint | None:
        """Wait for what is on its way; the last checkpoint, or None where none was asked for.

        If the last one failed it is tried again, then it is an HvcError.
        """
        self._join()
        for pause in LAST_PAUSES:
            if self._defect is not None or self._failed is None:
                break
            time.sleep(pause)
            self._run(self._failed)
        if self._defect is not None:
            raise self._defect
        if self._failed is not None:
            raise self._given_up()
        return self.last

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, snapshot: Snapshot) -> None:
        try:
            done = self._write(snapshot)
            if done is not None:
                self._tell(done)
                self._prune(done.step)
        except BaseException as error:  # noqa: BLE001 (a defect, or taken over: for the training's thread)
            self._defect = error

    def _write(self, snapshot: Snapshot) -> Checkpoint | None:
        start = time.monotonic()
        try:
            done = write_checkpoint(self._store, snapshot, check=self._check, scratch=self._scratch)
        except TakenOverError:
            raise
        except (HvcError, OSError) as error:  # OSError: of the temporary folder
            self.failures += snapshot is not self._failed  # the last one may be tried several times
            self._failed, self._reason = snapshot, error
            _log.warning(
                "checkpoint %d not written (failure %d in a row, %d end the run): %s; training goes on, %s",
                snapshot.step,
                self.failures,
                self._config.max_failures,
                error,
                self._last_good(),
            )
            self._clean_up(snapshot.step)
            return None
        finally:
            self.seconds = time.monotonic() - start
        self.last, self._failed, self._reason, self.failures = done, None, None, 0
        _log.info("checkpoint %s", done.address)
        return done

    def _clean_up(self, step: int) -> None:
        # In a bucket the next success does it: now that would only wait for the same server again.
        if local_folder(self._store) is None:
            return
        try:
            remove(self._store, step)
        except HvcError as error:
            _log.warning("what was written of checkpoint %d stays for now: %s", step, error)

    def _tell(self, done: Checkpoint) -> None:
        try:
            self._committed(done)
        except Exception as error:  # noqa: BLE001 (the checkpoint is there, whatever is wrong with this)
            _log.warning("%s is written, but it could not be recorded: %s", done.address, error)

    def _prune(self, newest: int) -> None:
        pinned = self._ask_pinned()
        if pinned is None:
            return
        keep, every = self._config.keep, self._config.keep_every
        try:
            self._check()
            prune(self._store, newest, keep=keep, keep_every=every, pinned=pinned)
        except TakenOverError:
            raise
        except HvcError as error:
            _log.warning("older checkpoints stay for now: %s", error)

    def _ask_pinned(self) -> set[int] | None:
        why = "which ones have an alias is not known"
        try:
            pinned = self._pinned()
        except Exception as error:  # noqa: BLE001 (as above)
            pinned, why = None, str(error)
        if pinned is None and not self._keeps_all:
            _log.warning("older checkpoints stay for now: %s", why)
        self._keeps_all = pinned is None
        return pinned

    def _given_up(self) -> HvcError:
        count = f"{self.failures} checkpoint{'s' if self.failures > 1 else ''}"
        return HvcError(
            f"{count} in a row could not be written: {self._reason}; {self._last_good()}. Make writing "
            "possible or choose another checkpoint.address, then run the same command again"
        )

    def _last_good(self) -> str:
        return f"the last good one is {self.last.address}" if self.last else "earlier ones are untouched"
