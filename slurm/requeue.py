"""What becomes of a job whose stage stopped and saved, or stood still: it goes back into the queue, unless
Slurm sees to it.
"""

import logging
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from hvc.base.errors import HvcError
from hvc.slurm import control
from hvc.slurm.allocation import Allocation

_log = logging.getLogger(__name__)

SAVED = "stopped and saved"
HUNG = "it stood still and was ended; what came after its last checkpoint is lost"
"""What became of a task, for its log."""
_TRIES = 5
_PAUSE_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 600.0
_HUNG_WAIT_SECONDS = 60.0


class Verdict(StrEnum):
    """What rank 0 does about a stopped job."""

    REQUEUE = "requeue"
    LEAVE = "leave"  # Slurm is ending the job itself: cancelled, or already on its way back
    GIVE_UP = "give up"
    FAIL = "fail"


def decide(state: str, requeues: int, limit: int | None, failed: bool) -> Verdict:
    """The verdict from the job's state, its requeues so far, their limit, and whether a rank failed.

    Only a RUNNING job is requeued: `scontrol requeue` would bring a cancelled one back to life, and one
    that Slurm requeues itself would be started twice. A failure came before the stop that it caused.
    """
    if failed:
        return Verdict.FAIL
    if state != "RUNNING":
        return Verdict.LEAVE
    if limit is not None and requeues >= limit:
        return Verdict.GIVE_UP
    return Verdict.REQUEUE


def hand_back(task: Allocation, limit: int | None, folder: Path) -> NoReturn:
    """End a stopped task the right way; all ranks call it, rank 0 alone speaks with Slurm.

    Nothing is returned, so that no result is stored for a job that goes on. Raises HvcError when
    nobody will go on.
    """
    if task.rank == 0:
        _settle(task, limit, folder, SAVED)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # saved: the next signal may end us
    time.sleep(_LONGEST_WAIT_SECONDS)
    raise HvcError(f"{task}: {SAVED}, but Slurm did not end the job; submit it again")


def hand_back_hung(task: Allocation, limit: int | None, folder: Path) -> None:
    """The same for a task that hangs, called beside its main thread; afterwards the process must leave.

    The others wait a little, so that the job is still running when rank 0 asks for it to be requeued.
    """
    if task.rank == 0:
        _settle(task, limit, folder, HUNG)
    time.sleep(_HUNG_WAIT_SECONDS)


def failure_file(task: Allocation, folder: Path) -> Path:
    """Where a failing rank leaves its traceback."""
    return folder / f"{task.job_id}_failed_attempt{task.attempt}_rank{task.rank}.txt"


def _settle(task: Allocation, limit: int | None, folder: Path, what: str) -> None:
    for left in reversed(range(_TRIES)):
        try:
            _try_to_settle(task, limit, folder, what)
            return
        except control.ControlError as error:
            if left == 0:
                raise HvcError(f"{task}: {what}, but not requeued: {error}; submit it again") from None
            _log.warning("%s; trying again", error)
        time.sleep(_PAUSE_SECONDS)


def _try_to_settle(task: Allocation, limit: int | None, folder: Path, what: str) -> None:
    failures = sorted(folder.glob(f"{task.job_id}_failed_attempt{task.attempt}_rank*.txt"))
    state = control.job_state(task.job_id)
    verdict = decide(state, task.attempt - 1, limit, failed=bool(failures))
    _log.info("%s: %s; the job is %s: %s", task, what, state, verdict)
    if verdict is Verdict.FAIL:
        raise HvcError(f"{task}: stopped because another rank failed, see {failures[0]}")
    if verdict is Verdict.GIVE_UP:
        raise HvcError(
            f"{task}: {what}, but requeued {task.attempt - 1} times already; "
            f"submit it again to go on (max_requeues is {limit})"
        )
    if verdict is Verdict.REQUEUE:
        control.requeue(task.job_id)
