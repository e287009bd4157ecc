"""The jobs of this user: submission folders, what Slurm knows of them, and how far their runs are.

Slurm is asked once for all of them. Where it does not answer, what the folders say is all there is.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError
from hvc.pretrain.tracking.run_progress import RunProgress, progress_of
from hvc.slurm import local
from hvc.slurm.job_index import job_folders
from hvc.slurm.job_records import first_words, newest_attempt
from hvc.slurm.job_states import Recorded, State, judge
from hvc.slurm.known_jobs import Answer, KnownJob, ask_accounting, ask_controller
from hvc.slurm.requests import refused_nodes, stop_asked
from hvc.slurm.submission import Submission, submissions
from hvc.slurm.task_outputs import output_of

RECENT_SECONDS = 86400.0
"""Jobs that ended longer ago are listed when all are asked for."""
_THREADS = 16


@dataclass(frozen=True)
class JobRow:
    """One job, or one task of an array."""

    job_id: str
    """As Slurm's commands take it: `7`, or `7_3`."""
    task: int | None
    """Number of the task; None for a job that is no array, and for the one that joins the parts."""
    role: str
    """`job`, `task`, or `join`: the job that joins the parts of an array."""
    state: State
    reason: str
    """Why it waits, or failed; empty if there is nothing to say."""
    nodes: str
    attempt: int | None
    """Counts from 1; None before the first."""
    started: float | None
    """Of its newest attempt, in seconds since 1970; as the next."""
    ended: float | None
    progress: RunProgress | None
    """Of a training run; None for other stages, and before it has begun to record."""

    def values(self) -> dict[str, Any]:
        """As plain data."""
        values = asdict(self) | {"state": str(self.state)}
        if self.progress is not None:
            values["progress"] |= {"link": self.progress.link}
        return values


@dataclass(frozen=True)
class JobGroup:
    """One submission with its jobs."""

    folder: Path
    submission: Submission
    rows: tuple[JobRow, ...]

    @property
    def alive(self) -> bool:
        """Whether anything of it waits or runs."""
        return any(row.state.alive for row in self.rows)

    @property
    def last_heard(self) -> float:
        """When something of it last began, ended or recorded, in seconds since 1970."""
        times = [row.ended or row.started for row in self.rows]
        times += [row.progress.heard for row in self.rows if row.progress]
        return max([self.submission.submitted, *(moment for moment in times if moment is not None)])

    def values(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **asdict(self.submission),
            "folder": str(self.folder),
            "jobs": [row.values() for row in self.rows],
        }


@dataclass(frozen=True)
class Listing:
    """Submissions, newest first, and what kept Slurm from telling more."""

    groups: tuple[JobGroup, ...]
    problem: str = ""
    """Why the controller did not answer; empty if it did."""
    remark: str = ""
    """Why the accounting did not, which only remembers what has ended; empty if it did."""

    def recent(self, now: float) -> "Listing":
        """Without those of which nothing has been alive or heard for a day."""
        since = now - RECENT_SECONDS
        shown = tuple(group for group in self.groups if group.alive or group.last_heard >= since)
        return Listing(shown, self.problem, self.remark)

    def values(self) -> dict[str, Any]:
        """As plain data."""
        groups = [group.values() for group in self.groups]
        return {"submissions": groups, "problem": self.problem, "remark": self.remark}


def find_submissions(roots: Iterable[Path] | None = None) -> list[tuple[Path, Submission]]:
    """All submissions with their folders, newest first.

    Args:
        roots: folders that they were made below; None: all that this user submitted below.
    """
    found: dict[Path, Submission] = {}
    for root in job_folders() if roots is None else roots:
        found |= {folder.resolve(): submission for folder, submission in submissions(root)}
    return sorted(found.items(), key=lambda pair: (-pair[1].submitted, pair[0].name))


def list_jobs(found: Sequence[tuple[Path, Submission]]) -> Listing:
    """The jobs of these submissions as they stand now: one question to Slurm, a few files each.

    Args:
        found: folders and submissions, newest first.
    """
    of_slurm = [submission for _, submission in found if not submission.local]
    controller = ask_controller() if of_slurm else Answer()
    with ThreadPoolExecutor(_THREADS) as pool:  # shared file systems answer slowly, but many at once
        read = list(pool.map(lambda pair: _read(*pair), found))
    forgotten = [
        job.job_id
        for (folder, submission), jobs in zip(found, read, strict=True)
        for job in jobs
        if not submission.local and _of(controller, job.job_id, folder) is None and not job.settled
    ]
    accounts = ask_accounting(forgotten) if not controller.problem else Answer()
    known = Answer({**accounts.jobs, **controller.jobs}, controller.problem)
    groups = [
        JobGroup(folder, submission, tuple(_row(job, folder, submission, known) for job in jobs))
        for (folder, submission), jobs in zip(found, read, strict=True)
    ]
    return Listing(tuple(groups), controller.problem, accounts.problem)


@dataclass(frozen=True)
class _Job:
    """What the folders say of one job."""

    job_id: str
    task: int | None
    role: str
    record: Recorded | None
    stop_asked: bool
    error: str
    progress: RunProgress | None
    refused_nodes: int | None
    """Asked for by `hvc resize`, and not given."""

    @property
    def settled(self) -> bool:
        """Whether its own record says how it ended for good."""
        return self.record is not None and self.record.outcome in ("done", "failed")


def _read(folder: Path, submission: Submission) -> list[_Job]:
    if submission.array is None:
        return [_read_job(folder, submission, submission.job_id, None, "job")]
    jobs = [
        _read_job(folder, submission, f"{submission.job_id}_{task}", task, "task")
        for task in range(submission.array)
    ]
    if submission.join_job_id:
        jobs.append(_read_job(folder, submission, submission.join_job_id, None, "join"))
    return jobs


def _read_job(folder: Path, submission: Submission, job_id: str, task: int | None, role: str) -> _Job:
    record = newest_attempt(folder, task)
    return _Job(
        job_id,
        task,
        role,
        record,
        stop_asked(folder, task),
        first_words(folder, task, record.attempt) if record else "",
        _progress(output_of(folder, submission, task)) if submission.stage == "train" else None,
        refused_nodes(folder) if role == "job" else None,
    )


def _progress(output: str | None) -> RunProgress | None:
    if output is None or "://" in output:
        return None
    try:
        return progress_of(Path(output))
    except (HvcError, KeyError, TypeError, ValueError):  # a journal that cannot be read, or is not ours
        return None


def _of(known: Answer, job_id: str, folder: Path) -> KnownJob | None:
    job = known.jobs.get(job_id)
    return job if job is not None and job.belongs_to(folder) else None


def _row(job: _Job, folder: Path, submission: Submission, known: Answer) -> JobRow:
    slurm = _of(known, job.job_id, folder)
    word, why = (slurm.state, slurm.reason) if slurm else (None, "")
    asked = not known.problem
    if submission.local:
        word, asked = local.state_of(job.job_id), True
    verdict = judge(word, why, job.record, stop_asked=job.stop_asked, asked=asked)
    reason = verdict.reason
    if verdict.state is State.FAILED and job.error:
        reason = job.error
    if verdict.state.alive and job.refused_nodes and not reason:
        reason = f"Slurm refused {job.refused_nodes} nodes"
    record, progress = job.record, job.progress
    nodes = (slurm.nodes if slurm else "") or (record.nodes if record else "")
    return JobRow(
        job_id=job.job_id,
        task=job.task,
        role=job.role,
        state=verdict.state,
        reason=reason,
        nodes="" if verdict.state is State.WAITING else nodes,
        attempt=record.attempt if record else None,
        started=record.started if record else None,
        ended=None if verdict.state.alive or record is None else record.ended,
        progress=progress,
    )
