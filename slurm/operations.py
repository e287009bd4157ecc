"""What a user does to jobs of their own: let one stop for good, go on, or go on with other nodes."""

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hvc.base.errors import HvcError, UsageError
from hvc.slurm import control, local
from hvc.slurm.job_choice import Chosen
from hvc.slurm.job_states import State
from hvc.slurm.jobfile import read as read_job
from hvc.slurm.jobs import JobRow, list_jobs
from hvc.slurm.known_jobs import ask_partitions
from hvc.slurm.partitions import FORMAT, parse, too_many_nodes
from hvc.slurm.requests import Of, ask_resize, ask_stop, forget_stop
from hvc.slurm.resubmission import options_of, resized_nodes, resubmit
from hvc.slurm.submission import Submission, this_user

_SECONDS = 60


@dataclass(frozen=True)
class Done:
    """What was done, in a line for people, and with which jobs."""

    text: str
    jobs: tuple[str, ...]


def cancel(chosen: Chosen, at_once: bool = False) -> Done:
    """End a job for good: what runs saves at its next step and leaves, what waits leaves the queue.

    Args:
        chosen: a submission, or a task of an array.
        at_once: don't wait for a step's end; Slurm ends the processes, which may still save.

    Raises HvcError when it has ended already, or Slurm does not answer.
    """
    rows = _rows(chosen)
    alive = [row for row in rows if row.state.alive]
    if not alive:
        raise HvcError(
            f"job {chosen.job_id} has ended already ({_states(rows)}); there is nothing to cancel"
        )
    running = [] if at_once else [row for row in alive if row.state is State.RUNNING]
    others = [row for row in alive if row not in running]
    # Requests first: a task that is about to leave by itself must not be requeued.
    for row in alive:
        ask_stop(chosen.folder, _named(row))
    _signal(chosen.submission, running)
    _end(chosen.submission, others)
    words = []
    if running:
        words.append(f"{_ids(running)}: saves at its next step and ends; `hvc requeue` goes on from there")
    if others:
        words.append(f"{_ids(others)}: cancelled")
    return Done("\n".join(words), tuple(row.job_id for row in alive))


def cancel_all(several: Sequence[Chosen], at_once: bool = False) -> Done:
    """End all that is left of a pipeline or sweep, or a single job, as `cancel` does.

    Args:
        several: newest first: what waits for others goes before them.
    """
    if len(several) == 1:
        return cancel(several[0], at_once)
    alive = [one for one in several if any(row.state.alive for row in _rows(one))]
    if not alive:
        raise HvcError(f"all {len(several)} submissions have ended already; there is nothing to cancel")
    done = [cancel(one, at_once) for one in alive]
    return Done("\n".join(one.text for one in done), tuple(job for one in done for job in one.jobs))


def requeue(chosen: Chosen) -> Done:
    """Let a job begin its next attempt: at a step boundary if it runs, by a new submission if it has ended.

    Of an array what is done stays done. Raises HvcError when it waits already or is done, other jobs of the
    same submission have not ended, or Slurm does not answer.
    """
    all_rows = _all_rows(chosen)
    rows = _meant(chosen, all_rows)
    alive = [row for row in rows if row.state.alive]
    running = [row for row in alive if row.state is State.RUNNING]
    if running:
        _forget(chosen, rows)
        _signal(chosen.submission, running)
        return Done(
            f"{_ids(running)}: saves at its next step, and goes back into the queue", _job_ids(running)
        )
    if alive:
        raise HvcError(f"job {chosen.job_id} has not ended ({_states(alive)}); wait, or see `hvc jobs`")
    unfinished = [row for row in rows if row.state is not State.DONE]
    if not unfinished:
        raise HvcError(f"job {chosen.job_id} is done; submit it with another output to do it again")
    others = [row for row in all_rows if row.state.alive]
    if others:  # the submission gets another id, by which nobody would find them
        raise HvcError(
            f"{_ids(others)} of the same submission: {_states(others)}; once that has ended, "
            f"`hvc requeue {chosen.submission.job_id}` does all that is not done"
        )
    _forget(chosen, rows)
    tasks = None
    if chosen.submission.array is not None:
        tasks = [row.task for row in unfinished if row.task is not None]
    nodes = resized_nodes(chosen.folder, chosen.submission)
    queued = resubmit(chosen.folder, chosen.submission, tasks, nodes)
    ids = [queued.job_id, *([queued.join_job_id] if queued.join_job_id else [])]
    of = f", tasks {', '.join(map(str, tasks))}" if tasks else ""
    if nodes is not None:
        of = f" with {_many(nodes)}, as it had last"
    return Done(
        f"job {chosen.submission.job_id} is now job {queued.job_id}{of}: the same code, config and folder",
        tuple(ids),
    )


def _rows(chosen: Chosen) -> list[JobRow]:
    """The jobs that are meant, as they stand."""
    return _meant(chosen, _all_rows(chosen))


def _meant(chosen: Chosen, rows: Iterable[JobRow]) -> list[JobRow]:
    return [row for row in rows if chosen.means(row)]


def _all_rows(chosen: Chosen) -> tuple[JobRow, ...]:
    """The submission's jobs; refuses other people's, and a controller that does not answer."""
    submission = chosen.submission
    if submission.user != this_user():
        raise UsageError(f"{chosen.folder.name} was submitted by {submission.user}; it is theirs to change")
    listing = list_jobs([(chosen.folder, submission)])
    if listing.problem:
        raise HvcError(
            f"Slurm does not answer ({listing.problem}), so nothing was changed; see `scontrol ping`, and "
            "run this on a login node of the cluster"
        )
    return listing.groups[0].rows


def _forget(chosen: Chosen, rows: Iterable[JobRow]) -> None:
    """Take back requests to stop."""
    for of in {None, *(_named(row) for row in rows)}:
        forget_stop(chosen.folder, of)


def _named(row: JobRow) -> Of:
    return "join" if row.role == "join" else row.task


def _signal(submission: Submission, rows: Sequence[JobRow]) -> None:
    """Ask the ranks of running jobs to save and leave."""
    if submission.local and rows:
        os.kill(int(submission.job_id), signal.SIGTERM)  # which hands it on to the ranks
    elif not submission.local:
        _scancel(_job_ids(rows), "--signal=USR2")


def _end(submission: Submission, rows: Sequence[JobRow]) -> None:
    """Take jobs out of the queue, and end their processes."""
    if submission.local:
        for row in rows:
            local.request(row.job_id, "cancel")
    else:
        _scancel(_job_ids(rows))


def _scancel(job_ids: Sequence[str], *options: str) -> None:
    if not job_ids:
        return
    command = ["scancel", *options, *job_ids]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HvcError(f"scancel: {error}; see `scontrol ping`, then try again") from None
    if done.returncode != 0:
        raise HvcError(f"{done.stderr.strip() or 'scancel failed'}; see `hvc jobs`, then try again")


def _states(rows: Iterable[JobRow]) -> str:
    return ", ".join(dict.fromkeys(str(row.state) for row in rows))


def _job_ids(rows: Iterable[JobRow]) -> tuple[str, ...]:
    return tuple(row.job_id for row in rows)


def _ids(rows: Sequence[JobRow]) -> str:
    ids = _job_ids(rows)
    return (
        f"job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}"
    )


def resize(chosen: Chosen, nodes: int) -> Done:
    """Let a job go on with another number of nodes: from its next step on if it runs.

    Raises UsageError for a job that is one process, or more nodes than its partition gives a job, HvcError
    when it has ended, or Slurm does not answer.
    """
    submission = chosen.submission
    if submission.array is not None or submission.local:
        raise UsageError(f"job {chosen.job_id} is no job of several nodes; only training is resized")
    if not read_job(chosen.folder / "job.json").stage.parallel:
        raise UsageError(f"{submission.stage} is one process; only training is resized")
    if nodes < 1:
        raise UsageError(f"--nodes {nodes}: a job has one node or more")
    (row,) = _rows(chosen)
    if not row.state.alive:
        raise HvcError(f"job {chosen.job_id} has ended ({row.state}); `hvc requeue` it first")
    refused = _too_many_nodes(chosen, row, nodes)
    if refused:
        raise UsageError(f"{refused}; lower --nodes")
    ask_resize(chosen.folder, nodes)
    many = _many(nodes)
    if row.state is State.RUNNING:
        _signal(submission, [row])
        return Done(f"job {row.job_id} saves at its next step and goes on with {many}", (row.job_id,))
    return Done(f"job {row.job_id} makes its next step and then goes on with {many}", (row.job_id,))


def _many(nodes: int) -> str:
    return f"{nodes} node{'s' if nodes > 1 else ''}"


def _too_many_nodes(chosen: Chosen, row: JobRow, nodes: int) -> str:
    """Why Slurm would never give the job so many nodes; empty where it may, or cannot be asked."""
    try:
        names = control.job(row.job_id).partition.split(",")
    except control.ControlError:
        return ""
    # While it runs Slurm names the one that it runs in; the next attempt may be in another one.
    names += filter(None, options_of(chosen.folder, row.job_id).get("partition", "").split(","))
    return too_many_nodes(nodes, dict.fromkeys(names), parse(ask_partitions(FORMAT)))
