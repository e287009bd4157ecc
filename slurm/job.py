"""What every task of a submitted job runs: read the job file, look at the nodes, run the stage."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from hvc.base.errors import EXIT_DONE, EXIT_STOPPED, HvcError, PeerLostError, UsageError
from hvc.base.stage import Outcome, Provenance, Result, StopFlag
from hvc.data_prep.lock import BusyError
from hvc.slurm import control, requests
from hvc.slurm.allocation import Allocation, export_torch_environment, outside
from hvc.slurm.attempts import Attempt, Kind, Records, has_worked
from hvc.slurm.jobfile import JobFile, read
from hvc.slurm.node_check import Check, Finding, spared
from hvc.slurm.script import submission_script
from hvc.slurm.snapshot import changed_packages
from hvc.slurm.stages import config_of, progress_of, run_of

HUNG = "it stood still and was ended; what came after its last checkpoint is lost"
_ASKING_TO_STOP = (signal.SIGUSR2, signal.SIGTERM)
_EXCLUSIONS = 3
"""So many attempts may end for the sake of slow nodes; then the job makes do with them."""
_log = logging.getLogger(__name__)


def run_job(path: str) -> dict[str, Any]:
    """Run the stage of a job file in this Slurm task and return its report.

    A stopped stage does not return: its process exits, with 75 on rank 0, and the job's script sees to the
    rest (`aftermath`). A failure leaves its traceback in `failures` and ends the other ranks.
    """
    # First of all, and in every rank: submitit's own handlers act in rank 0 alone, where saving a
    # checkpoint would wait for the others for ever.
    signals = StopFlag().listen(*_ASKING_TO_STOP)
    folder = Path(path).parent
    task = Allocation.of(os.environ)
    records = Records(folder, task.task)
    _write_to(records.log(task.attempt, task.rank))
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s [{task.rank}] %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("submitit").handlers.clear()  # two of its own would say all of it twice more
    _log.info("%s on %s of %s", task, socket.gethostname(), task.nodes)
    try:
        job = read(Path(path))
        if task.rank == 0:
            _begin(records, task, job, Path(path).name)
            _say_what_changed(job, folder)
        result, why = _run(job, signals, task, folder, records)
    except Exception as error:
        error.add_note(f"{task}, on {socket.gethostname()}")
        kind = kind_of(error, resumed=has_worked(records.all()))
        records.fail(task.attempt, task.rank, kind, traceback.format_exc())
        raise
    _log.info("%s: %s", task, result.outcome)
    if result.outcome is Outcome.STOPPED:
        if task.rank == 0:
            records.end(task.attempt, "stopped", why)
        sys.stdout.flush()
        raise SystemExit(EXIT_STOPPED if task.rank == 0 else EXIT_DONE)  # no result is stored
    if task.rank == 0:
        records.end(task.attempt, "done")
    for number in _ASKING_TO_STOP:  # Python's end would undo our handlers, and a late signal the success
        signal.signal(number, signal.SIG_IGN)
    return result.report


def kind_of(error: Exception, resumed: bool = False) -> Kind:
    """What kind of failure ends a rank by this error.

    Args:
        resumed: Whether an earlier attempt has worked with the same config: then what a person gave was
            right, and is missing on this node only.
    """
    if isinstance(error, PeerLostError):
        return "alone"
    # A run of others that writes the same output: to try again would only wait for it, on idle nodes.
    if isinstance(error, BusyError) or (isinstance(error, UsageError) and not resumed):
        return "refused"
    return "failed"


def _run(
    job: JobFile, signals: StopFlag, task: Allocation, folder: Path, records: Records
) -> tuple[Result, str]:
    """The stage's result, and what asked it to stop."""
    export_torch_environment()
    names = control.node_names(task.nodes) if task.world_size > 1 else []
    if task.rank == 0 and task.task is None:
        requests.fulfil_resize(folder, max(1, len(names)))
    if task.world_size > 1:
        nodes = [names[rank * len(names) // task.world_size] for rank in range(task.world_size)]
        decide = partial(_leave_for, task, folder, records, len(names))
        check = Check(task.rank, nodes)  # which keeps the port open until the stage has ended
        if check.leaves(job.slow_node_factor, decide):
            return Result(Outcome.STOPPED), ""
    stop = requests.StopOrRequest(signals, folder, task.task, max(1, len(names)), looks=task.rank == 0)
    config = config_of(job.stage).parse(job.config, where=f"config of {job.stage.name}")
    result = run_of(job.stage)(config, stop, provenance(job, task, folder))
    return result, stop.reason


def _leave_for(task: Allocation, folder: Path, records: Records, needed: int, found: Finding) -> bool:
    """Rank 0: note what was found, and whether to leave so that the next attempt avoids bad nodes."""
    record = records.read(task.attempt)
    if record is None:
        return False
    record = replace(record, checks=[asdict(timing) for timing in found.timings])
    records.write(record)
    if not found.bad:
        return False
    words = "; ".join(f"{node}: {what}" for node, what in sorted(found.bad.items()))
    excluded = _without(task, folder, records, needed, found)
    if excluded:
        _log.warning("the next attempt does without these nodes: %s", words)
        records.end(task.attempt, "stopped", words, excluded=excluded)
        return True
    if not found.timings:
        raise HvcError(f"{words}; and the job cannot do without these nodes")
    _log.warning("going on with slow nodes, as there are not enough others: %s", words)
    return False


def _without(task: Allocation, folder: Path, records: Records, needed: int, found: Finding) -> list[str]:
    if sum(bool(record.excluded) for record in records.all()) >= _EXCLUSIONS:
        return []
    try:
        job = control.job(task.job_id)
        excluded = control.node_names(job.excluded) if job.excluded else []
        spare = spared(found.bad, control.working_nodes(job.partition), excluded, needed)
        if spare:
            script = submission_script(folder, task.job_id)
            with outside(script.read_text(encoding="utf-8")):
                control.try_out(script, needed, [*excluded, *spare])
        return spare
    except (control.ControlError, OSError) as error:
        _log.warning("whether the job can do without nodes is not known, or it cannot: %s", error)
        return []


def _begin(records: Records, task: Allocation, job: JobFile, name: str) -> None:
    records.close_before(task.attempt)
    records.write(
        Attempt(
            attempt=task.attempt,
            job_id=task.job_id,
            job_file=name,
            nodes=task.nodes,
            started=time.time(),
            progress=progress_of(job.stage, job.config),
        )
    )


def _say_what_changed(job: JobFile, folder: Path) -> None:
    changed = changed_packages(folder) if job.snapshot else []
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        _log.warning(
            "installed now in other versions than at submission: %s%s", "; ".join(changed[:5]), more
        )


def _write_to(log: Path) -> None:
    """Send all that this process and its children write to a file, behind what is in it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def provenance(job: JobFile, task: Allocation, folder: Path) -> Provenance:
    """Who runs the stage, as the stage is told; one that hangs is brought back like one that stopped."""
    labels = {"slurm_job_id": task.job_id, "cluster": job.cluster, "nodes": task.nodes}
    lineage = str(folder) if task.task is None else f"{folder}/task-{task.task}"
    on_hang = partial(_note_hang, Records(folder, task.task), task)
    return Provenance(attempt=task.attempt, labels=labels, on_hang=on_hang, lineage=lineage)


def _note_hang(records: Records, task: Allocation) -> None:
    _log.error("%s: %s", task, HUNG)
    records.fail(task.attempt, task.rank, "hung", f"Hung: {HUNG}\n")
