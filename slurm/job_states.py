"""In which state a submitted job is: a pure function of what Slurm and the job's own records say."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What becomes of a job, in a word; Slurm's own words are many more."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"
    DONE = "done"
    STOPPED = "stopped"  # saved, as somebody asked for; it goes on when it is requeued
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"  # neither in the queue nor on record as ended
    UNKNOWN = "unknown"  # Slurm cannot be asked

    @property
    def alive(self) -> bool:
        """Whether Slurm still has something to do with it, as far as is known."""
        return self in (State.WAITING, State.RUNNING, State.ENDING, State.UNKNOWN)


_WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT SUSPENDED"
_OF_SLURM = {
    **dict.fromkeys(_WAITING.split(), State.WAITING),
    **dict.fromkeys(("RUNNING", "RESIZING", "SIGNALING"), State.RUNNING),
    **dict.fromkeys(("COMPLETING", "STAGE_OUT", "STOPPED"), State.ENDING),
    "COMPLETED": State.DONE,
    "CANCELLED": State.CANCELLED,
}
_PLAIN_REASONS = {
    "Resources": "for free nodes",
    "Priority": "behind others",
    "Dependency": "for a job before it",
    "DependencyNeverSatisfied": "a job before it failed",
    "BeginTime": "for its begin time",
    "JobArrayTaskLimit": "for tasks before it",
    "JobHeldUser": "held: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "its time limit is over the partition's",
}


@dataclass(frozen=True)
class Recorded:
    """What the record of the newest attempt says."""

    attempt: int
    outcome: str
    """running, done, stopped, hung, failed or lost."""
    reason: str = ""
    nodes: str = ""
    started: float | None = None
    """Seconds since 1970, as the next."""
    ended: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The state, and in a few words why."""

    state: State
    reason: str = ""


def judge(
    slurm: str | None, why: str, record: Recorded | None, *, stop_asked: bool, asked: bool
) -> Verdict:
    """The state of a job.

    Args:
        slurm: its state in Slurm's words; None where Slurm knows nothing of it.
        why: Slurm's reason.
        record: of its newest attempt; None where none began.
        stop_asked: whether somebody asked it to stop for good.
        asked: whether Slurm could be asked at all.
    """
    if slurm is not None:
        state = _OF_SLURM.get(slurm, State.FAILED)
        if state is State.WAITING:
            return Verdict(state, _why_it_waits(why, record))
        if state.alive:
            return Verdict(state, "asked to stop" if stop_asked else "")
        return _ended(state, slurm, record, stop_asked)
    if record is None:
        return Verdict(State.LOST, "Slurm knows nothing of it") if asked else Verdict(State.UNKNOWN)
    if record.outcome == "done":
        return Verdict(State.DONE)
    if record.outcome == "failed":
        return Verdict(State.FAILED, record.reason)
    if record.outcome == "stopped" and stop_asked:
        return Verdict(State.STOPPED, "saved")
    if not asked:
        return Verdict(State.UNKNOWN, f"last known: {record.outcome}")
    return Verdict(State.LOST, record.reason or f"Slurm knows nothing of it; last known: {record.outcome}")


def _why_it_waits(why: str, record: Recorded | None) -> str:
    if record is not None and record.outcome in ("failed", "hung", "lost"):
        return f"after attempt {record.attempt} {record.outcome}: {record.reason}"
    if record is not None and why == "BeginTime":  # a requeued job waits until its credentials expire
        return ""
    if why.startswith("Nodes required for job are"):
        return "for nodes that are down or drained"
    return _PLAIN_REASONS.get(why, why)


def _ended(state: State, slurm: str, record: Recorded | None, stop_asked: bool) -> Verdict:
    outcome = record.outcome if record else ""
    if stop_asked and outcome == "stopped":
        return Verdict(State.STOPPED, "saved")
    if state is State.DONE and outcome in ("", "done", "running"):
        return Verdict(State.DONE)
    if state is State.CANCELLED:
        return Verdict(state, "saved" if outcome == "stopped" else "")
    if outcome == "done":  # whatever befell it in the seconds that Slurm takes to end a job
        return Verdict(State.DONE)
    if record and record.reason:
        return Verdict(State.FAILED, record.reason)
    return Verdict(State.FAILED, f"Slurm says {slurm}")
