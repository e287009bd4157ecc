"""What becomes of a job whose ranks have ended: decided from plain facts."""

from dataclasses import dataclass
from enum import StrEnum

from hvc.slurm.attempts import Kind, Outcome


class Verdict(StrEnum):
    """What is done about an ended attempt."""

    REQUEUE = "requeue"
    LEAVE = "leave"  # Slurm is ending the job itself: cancelled, or already on its way back
    CANCEL = "cancel"  # somebody asked it to stop for good
    GIVE_UP = "give up"
    FAIL = "fail"
    DONE = "done"  # all is there; ranks that ended badly after that do not count


@dataclass(frozen=True)
class Facts:
    """What is known of an attempt that has ended."""

    ended_by_slurm: bool
    """Whether Slurm ends the job: cancelled, or without one of its nodes. Not at its time limit, nor
    preempted: who did not save in time is started again like who failed."""
    stale: bool
    """Whether a later attempt runs by now: this one was lost, and comes back from the dead."""
    outcome: Outcome
    failure: Kind | None
    """Of the rank that ended it, if one did."""
    stop_asked: bool
    """For good."""
    futile: int
    """So many of the last attempts brought the work no further, this one included."""
    limit: int | None
    """How many requeues in a row may be without progress; None: without end."""


def decide(facts: Facts) -> Verdict:
    """The verdict.

    What Slurm ends is left to it: `scontrol requeue` would bring a cancelled job back to life, and start
    one twice that Slurm requeues itself. What a person has to put right would fail again.
    """
    if facts.stale or facts.ended_by_slurm:
        return Verdict.LEAVE
    if facts.outcome == "done":
        return Verdict.DONE
    if facts.failure == "refused":
        return Verdict.FAIL
    if facts.stop_asked:
        return Verdict.CANCEL if facts.outcome == "stopped" else Verdict.FAIL
    if facts.limit is not None and facts.futile > facts.limit:
        return Verdict.GIVE_UP
    return Verdict.REQUEUE
