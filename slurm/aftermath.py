"""Run by a job's script when its ranks have ended, and not all of them well: what becomes of the job.

    python -m hvc.slurm.aftermath FOLDER STATUS
    python -m hvc.slurm.aftermath FOLDER time-up

STATUS is srun's; `time-up` is said when Slurm asks the job to end while ranks may still run. Outlives
whatever ended the ranks, as long as the first node does; where that is lost, Slurm puts the job back into
the queue by itself.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil

from hvc.base.errors import HvcError
from hvc.slurm import control, requests
from hvc.slurm.allocation import Script
from hvc.slurm.attempts import Attempt, Failure, Records, futile
from hvc.slurm.jobfile import JobFile, read
from hvc.slurm.requeue import Facts, Verdict, decide
from hvc.slurm.stages import progress_of

_log = logging.getLogger(__name__)
T = TypeVar("T")
TIME_UP = "time-up"
KILLED = 137
"""The status of ranks that Slurm is about to end."""
_POLL_SECONDS = 0.2
DEFAULT_LIMIT = 3
"""Requeues without progress where not even the job's file was read."""
_PAUSES = (2.0, 5.0, 10.0, 20.0, 30.0, 30.0, 30.0)
"""Seconds between tries while the controller is away; the job's nodes wait as well."""


def main() -> None:
    """Settle this job; the exit status is that of the job."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder, ranks_run = Path(sys.argv[1]), sys.argv[2] == TIME_UP
    status = KILLED if ranks_run else int(sys.argv[2])
    try:
        script = Script.of(os.environ)
        if ranks_run:
            time_up(script, folder, psutil.Process().create_time())
        elif settle(script, folder, status) is Verdict.DONE:
            status = 0
    except HvcError as error:
        _log.error("%s", error)
    sys.exit(status)


def settle(script: Script, folder: Path, status: int) -> Verdict:
    """Record how the attempt ended, and do what follows; HvcError when Slurm takes no word for long."""
    records = Records(folder, script.task)
    failures = records.failures(script.attempt)
    try:
        job = _patiently(lambda: control.job(script.job_id))
    except HvcError:
        _end(records, script.attempt, failures, status)
        raise
    stale = job.restarts != script.restarts
    ended_by_slurm = not job.running and not job.dropped
    if stale or ended_by_slurm:
        records.end(script.attempt, "lost", f"ended by Slurm, as the job is {job.state}")
    elif job.timed_out:
        words = "it had not saved when its time was up; grace_seconds may be too short"
        records.end(script.attempt, "failed", words)
    elif job.dropped:
        records.end(
            script.attempt, "failed", "it was preempted, and had not saved in the time that was left"
        )
    _end(records, script.attempt, failures, status)
    found = records.all()
    file = _job_file(folder, found)
    now = progress_of(file.stage, file.config) if file and not ended_by_slurm else None
    record = records.read(script.attempt)
    # Those of an earlier job in the same folder don't count: somebody has looked at them since.
    ours = [one for one in found if one.job_id == script.job_id]
    facts = Facts(
        ended_by_slurm=ended_by_slurm,
        stale=stale,
        outcome=record.outcome if record else "failed",
        failure=failures[0].kind if failures else None,
        stop_asked=requests.stop_asked(folder, script.task),
        futile=futile(ours, now) if record else _unrecorded(records),
        limit=file.max_requeues if file else DEFAULT_LIMIT,
    )
    verdict = decide(facts)
    _log.info("attempt %d: %s; %s", script.attempt, facts, verdict)
    _act(verdict, script, folder, records, job, facts)
    return verdict


def time_up(script: Script, folder: Path, since: float) -> Verdict | None:
    """Settle a job that Slurm drops and whose ranks do not leave in half of the time that they are left.

    None where Slurm ends the job for another reason, or puts it back itself, or where the ranks have left:
    then what comes after them in the script sees to it. HvcError when Slurm takes no word for long.

    Args:
        since: When Slurm said so, in seconds since 1970.
    """
    end = min(since, time.time()) + _patiently(control.kill_wait) / 2
    job = _patiently(lambda: control.job(script.job_id))
    if not job.dropped or job.restarts != script.restarts:
        return None
    records = Records(folder, script.task)
    file = _job_file(folder, records.all())
    if file:  # its code is loaded while there is time: torch alone may take as long as is left
        progress_of(file.stage, file.config)
    while time.time() < end:
        record = records.read(script.attempt)
        if record is not None and record.outcome != "running":
            return None
        time.sleep(_POLL_SECONDS)
    return settle(script, folder, KILLED)


def _end(records: Records, attempt: int, failures: list[Failure], status: int) -> None:
    if failures and failures[0].kind == "hung":
        records.end(attempt, "hung", failures[0].words)
    elif failures and failures[0].kind != "alone":
        first = failures[0]
        records.end(attempt, "failed", f"rank {first.rank}: {first.words}")
    else:
        others = f", and rank {failures[0].rank} lost its peer" if failures else ""
        records.end(attempt, "failed", f"a rank was killed, or could not start (srun: {status}){others}")


def _act(
    verdict: Verdict, script: Script, folder: Path, records: Records, job: control.Job, facts: Facts
) -> None:
    record = records.read(script.attempt)
    if verdict is Verdict.CANCEL:
        _patiently(lambda: control.cancel(script.job_id))
    elif verdict is Verdict.GIVE_UP:
        _log.error(
            "given up: %d attempts in a row brought the work no further (max_requeues is %s). Put right "
            "what ended them, then `hvc requeue %s` goes on",
            facts.futile,
            facts.limit,
            script.job_id,
        )
    elif verdict is Verdict.REQUEUE:
        if record:  # before: the request ends this process, if Slurm is quick
            records.write(replace(record, requeued=True))
        _patiently(lambda: control.requeue(script.job_id))
        _arrange(script, folder, job, record.excluded if record else [])


def _arrange(script: Script, folder: Path, job: control.Job, excluded: list[str]) -> None:
    """Change what the next attempt gets; possible from now on, until it begins."""
    if excluded:
        nodes = ",".join(filter(None, [job.excluded, *excluded]))
        try:
            control.update(script.job_id, ExcNodeList=nodes)
        except control.ControlError as error:
            _log.warning("nodes %s stay in use: %s", nodes, error)
    wanted = requests.wanted_nodes(folder)
    if wanted is None or wanted == script.nodes:
        return
    try:
        _resize(script, wanted)
    except control.ControlError as error:
        _log.warning("the job stays at %d nodes: %s", script.nodes, error)
        requests.refuse_resize(folder)
        _resize(script, script.nodes)  # a refused update leaves some of its values behind


def _resize(script: Script, nodes: int) -> None:
    tasks = nodes * script.tasks_per_node
    # A range, as the upper limit would stay behind; CPUs, as their number only ever grows by itself.
    control.update(
        script.job_id,
        NumNodes=f"{nodes}-{nodes}",
        NumTasks=tasks,
        NumCPUs=tasks * script.cpus_per_task,
    )


def _job_file(folder: Path, records: list[Attempt]) -> JobFile | None:
    """What the job runs, as far as one of its attempts came to say so."""
    for record in reversed(records):
        try:
            return read(folder / record.job_file)
        except HvcError as error:
            _log.warning("%s", error)
    return None


def _unrecorded(records: Records) -> int:
    """How many of the last attempts did not even begin a record."""
    recorded = {record.attempt for record in records.all()}
    numbers = records.numbers()
    return next((n for n, number in enumerate(reversed(numbers)) if number in recorded), len(numbers))


def _patiently(ask: Callable[[], T]) -> T:
    for pause in _PAUSES:
        try:
            return ask()
        except control.ControlError as error:
            _log.warning("%s; trying again in %.0f s", error, pause)
            time.sleep(pause)
    return ask()


if __name__ == "__main__":
    main()
