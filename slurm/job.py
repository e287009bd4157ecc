"""What every task of a submitted job runs: read the job file, run the stage, hand back unfinished work."""

import logging
import os
import signal
import socket
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from hvc.base.stage import Outcome, Provenance, Result, StopFlag
from hvc.slurm import requeue
from hvc.slurm.allocation import Allocation, export_torch_environment
from hvc.slurm.jobfile import JobFile, read
from hvc.slurm.stages import config_of, run_of

_log = logging.getLogger(__name__)


def run_job(path: str) -> dict[str, Any]:
    """Run the stage of a job file in this Slurm task and return its report.

    A stopped stage does not return: the job is requeued and Slurm ends the task. A failure leaves its
    traceback, named by attempt and rank, beside the job file, and ends the other ranks.
    """
    # First of all, and in every rank: submitit's own handlers act in rank 0 alone, where saving a
    # checkpoint would wait for the others for ever.
    stop = StopFlag().listen(signal.SIGUSR2, signal.SIGTERM)
    folder = Path(path).parent
    task = Allocation.of(os.environ)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s [{task.rank}] %(levelname)s %(name)s: %(message)s"
    )
    _log.info("%s on %s of %s", task, socket.gethostname(), task.nodes)
    try:
        job = read(Path(path))
        result = _run(job, stop, task, folder)
    except Exception as error:
        error.add_note(f"{task}, on {socket.gethostname()}")
        requeue.failure_file(task, folder).write_text(traceback.format_exc(), encoding="utf-8")
        raise
    if result.outcome is Outcome.STOPPED:
        _log.info("%s: stopped by %s", task, stop.signal_name)
        requeue.hand_back(task, job.max_requeues, folder)
    _log.info("%s: done", task)
    return result.report


def _run(job: JobFile, stop: StopFlag, task: Allocation, folder: Path) -> Result:
    export_torch_environment()
    config = config_of(job.stage).parse(job.config, where=f"config of {job.stage.name}")
    return run_of(job.stage)(config, stop, provenance(job, task, folder))


def provenance(job: JobFile, task: Allocation, folder: Path) -> Provenance:
    """Who runs the stage, as the stage is told; one that hangs is handed back like one that stopped."""
    labels = {"slurm_job_id": task.job_id, "cluster": job.cluster, "nodes": task.nodes}
    on_hang = partial(requeue.hand_back_hung, task, job.max_requeues, folder)
    return Provenance(attempt=task.attempt, labels=labels, on_hang=on_hang)
