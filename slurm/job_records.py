"""The newest of what the folder of a submission says of its attempts; nothing in it is an error.

A listing of a thousand folders must not end at the first that is damaged.
"""

from pathlib import Path

from hvc.slurm.attempts import Records
from hvc.slurm.job_states import Recorded


def newest_attempt(folder: Path, task: int | None = None) -> Recorded | None:
    """The record of the last attempt of a job, or of a task of an array; None where none began."""
    records = Records(folder, task)
    numbers = records.numbers()
    if not numbers:
        return None
    found = records.read(numbers[-1])
    if found is None:  # it has begun, and not written yet
        return Recorded(numbers[-1], "running")
    return Recorded(found.attempt, found.outcome, found.reason, found.nodes, found.started, found.ended)


def first_words(folder: Path, task: int | None, attempt: int) -> str:
    """What the rank said that ended an attempt, in one line; empty where no rank failed."""
    failed = Records(folder, task).failures(attempt)
    return failed[0].words if failed else ""
