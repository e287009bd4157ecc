"""Submits a stage to a cluster: one folder with the job file, the sbatch script and the logs."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from shutil import which
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.slurm import plan
from hvc.slurm.allocation import outside
from hvc.slurm.checks import Check
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.job import run_job
from hvc.slurm.job_index import remember
from hvc.slurm.jobfile import JobFile
from hvc.slurm.local import write_commands
from hvc.slurm.places import Places, places_of
from hvc.slurm.preflight import preflight
from hvc.slurm.refusal import refusal
from hvc.slurm.snapshot import take
from hvc.slurm.stages import StagePaths, find
from hvc.slurm.submission import Submission, this_command, this_user

_LONGEST_NAME = 64


@dataclass(frozen=True)
class SubmitReport:
    """What was, or in a dry run would be, submitted."""

    job_id: str | None
    """Slurm's id; None in a dry run."""
    folder: Path
    """Job file, snapshot, script and logs; a dry run does not make it."""
    sbatch: str
    """The script, word for word."""
    findings: list[Check]
    """What the checks before found: warnings, and in a dry run failures as well."""


def submit(
    stage: str | StagePaths,
    config: Config,
    cluster: ClusterConfig,
    dry_run: bool = False,
    *,
    name: str | None = None,
    parent: Path | None = None,
    dependency: str | None = None,
    unchecked: bool = False,
) -> SubmitReport:
    """Queue a stage with its config; a dry run says what would be queued and touches nothing.

    Args:
        name: Of the submission in lists; by default the run's or dataset's.
        parent: Folder of the pipeline or sweep that it is part of.
        dependency: As sbatch takes it, e.g. `afterok:17`; what it reads is then not looked for.
        unchecked: Submit even what cannot work here and now.

    Raises UsageError for an unknown stage, or several tasks for one that runs as a single process, and
    HvcError when a check fails, Slurm is missing, or refuses the job.
    """
    paths = find(stage) if isinstance(stage, str) else stage
    check_tasks(paths, cluster)
    root, places = cluster.place, places_of(paths.name, config)
    if not dry_run:
        need_executor(cluster)
    more: dict[str, Any] = {"dependency": dependency} if dependency else {}
    job_name = name_in_queue(paths, name or places.name)
    planned = next_folder(root, paths.name)
    script = executor_for(cluster, job_name, planned, **more).text()
    alone = executor_for(cluster, job_name, planned).text()
    findings = [] if unchecked else preflight(places, cluster, alone, waits=dependency is not None)
    if dry_run:
        return SubmitReport(None, planned, script, findings)
    refuse(findings)
    folder = make_folder(root, paths.name)
    snapshot = keep(folder, config, cluster)
    JobFile.of(paths, config.resolved(), cluster, snapshot).write(folder / "job.json")
    executor = executor_for(cluster, job_name, folder, **more)
    job_id = queue(executor, [folder / "job.json"])
    note(folder, job_id, paths, places, cluster, name=name, parent=parent)
    return SubmitReport(job_id, folder, executor.text(), findings)


def name_in_queue(stage: StagePaths, name: str | None) -> str:
    """What squeue and sacct call a job: `hvc-STAGE-NAME`, one word for any script that reads it."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", "" if name in (None, stage.name) else f"-{name}")
    return f"hvc-{stage.name}{words}"[:_LONGEST_NAME].rstrip("-")


def keep(folder: Path, config: Config, cluster: ClusterConfig) -> Path:
    """Take the snapshot of a submission; HvcError where it cannot be written."""
    try:
        return take(folder, config, cluster)
    except OSError as error:
        raise HvcError(
            f"cannot write {folder}: {error.strerror}; set `folder` in the cluster's file"
        ) from None


def note(
    folder: Path,
    job_id: str,
    stage: StagePaths,
    places: Places,
    cluster: ClusterConfig,
    *,
    name: str | None,
    parent: Path | None,
    parent_name: str | None = None,
    array: int | None = None,
    join_job_id: str | None = None,
) -> None:
    """Write `submission.json`; without a name it is called as the run or dataset is."""
    Submission(
        job_id=job_id,
        stage=stage.name,
        name=name or places.name or stage.name,
        submitted=time.time(),
        cluster=cluster.name,
        sbatch=f"{job_id}_submission.sh",
        command=this_command(),
        user=this_user(),
        workdir=str(Path.cwd()),
        output=places.outputs[0] if places.outputs else None,
        tracking_uri=places.tracking_uri or cluster.mlflow,
        parent=None if parent is None else str(parent),
        parent_name=parent_name,
        array=array,
        join_job_id=join_job_id,
        local=cluster.executor == "local",
    ).write(folder)
    remember(folder.parent)


def refuse(findings: list[Check]) -> None:
    """HvcError with all checks that failed and what to do about each; nothing when none did."""
    failed = [check for check in findings if check.status == "fail"]
    if failed:
        lines = [f"  {check.name}: {check.found}. {check.advice}" for check in failed]
        raise HvcError(
            "not submitted, the job could not run:\n" + "\n".join(lines) + "\n"
            "(--unchecked submits all the same, where this machine cannot know)"
        )


def need_executor(cluster: ClusterConfig) -> None:
    """HvcError where what the cluster's file asks for is not here."""
    if cluster.executor == "slurm" and which("sbatch") is None:
        raise HvcError("no sbatch here; submit from a login node of the cluster (a dry run works anywhere)")


def check_tasks(stage: StagePaths, cluster: ClusterConfig) -> None:
    """UsageError if the cluster's file wants several tasks of a stage that runs as one process."""
    if stage.parallel or cluster.nodes * cluster.tasks_per_node == 1:
        return
    raise UsageError(
        f"cluster {cluster.name}: nodes is {cluster.nodes} and tasks_per_node {cluster.tasks_per_node}, "
        f"but {stage.name} runs as one process, and every task would do all of it; set both to 1 and raise "
        "cpus_per_task, as in configs/clusters/cpu.yaml"
    )


def sbatch_text(cluster: ClusterConfig, job_name: str, folder: Path) -> str:
    """The sbatch script of a job whose files are in `folder`; needs no Slurm."""
    return executor_for(cluster, job_name, folder).text()


class Executor(SlurmExecutor):  # type: ignore[misc]  # submitit is not followed by mypy
    """submitit's executor, which can also be asked for the text on a machine without Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 2  # the check for srun comes with the submission, not before

    @contextmanager
    def commands(self) -> Iterator[None]:
        """While this lasts, `sbatch` is the one that takes this executor's jobs."""
        yield

    def text(self, tasks: int = 1) -> str:
        """The sbatch script of a job, or of an array of several tasks."""
        if tasks > 1:
            self.parameters["map_count"] = tasks
        try:
            text: str = self._make_submission_file_text(self._submitit_command_str, uid="")
        finally:
            self.parameters.pop("map_count", None)  # which no submission may find here
        return text


class LocalExecutor(Executor):
    """The same for jobs that run on this machine."""

    @contextmanager
    def commands(self) -> Iterator[None]:
        before = os.environ.get("PATH", "")
        os.environ["PATH"] = f"{write_commands(Path(self.folder))}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def executor_for(
    cluster: ClusterConfig, job_name: str, folder: Path, *, array: bool = False, **more: Any
) -> Executor:
    """What submits jobs whose files are in `folder`; `more` are further parameters of submitit."""
    kind = LocalExecutor if cluster.executor == "local" else Executor
    executor = kind(folder=folder, python=plan.python_command(cluster))
    executor.update_parameters(**plan.parameters(cluster, job_name, folder, array), **more)
    return executor


def queue(executor: Any, job_files: list[Path]) -> str:
    """Submit one job, or an array with a task per job file; Slurm's id. HvcError when it is refused."""
    folder = job_files[0].parent
    (folder / "logs").mkdir(exist_ok=True)  # Slurm does not make it
    try:
        # submitit prints to stderr what its exception says as well
        with outside(executor.text(tasks=len(job_files))), executor.commands(), redirect_stderr(StringIO()):
            jobs = executor.map_array(run_job, [str(path) for path in job_files])
    except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
        raise HvcError(f"{refusal(str(error).strip())} (the script is in {folder})") from None
    job_id: str = jobs[0].job_id
    return job_id.partition("_")[0]


def next_folder(parent: Path, name: str) -> Path:
    """The folder that a submission now would get."""
    return next(folder for folder in _folders(parent, name) if not folder.exists())


def _folders(parent: Path, name: str) -> Iterator[Path]:
    """`parent/name-TIME`, then with numbers behind it, for submissions within one second."""
    stem = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    yield parent / stem
    for number in count(2):
        yield parent / f"{stem}-{number}"


def make_folder(parent: Path, name: str) -> Path:
    """A new folder for one submission, named after stage and time."""
    for folder in _folders(parent, name):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise HvcError(
                f"cannot make {folder}: {error.strerror}; set `folder` in the cluster's file"
            ) from None
        return folder
    raise AssertionError("there is always another number")
