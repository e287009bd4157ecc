"""Submits a stage to a cluster: one folder with the job file, the sbatch script and the logs."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr
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
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.job import run_job
from hvc.slurm.jobfile import JobFile
from hvc.slurm.stages import StagePaths, find

_UNREACHABLE = re.compile(
    r"unable to contact|unable to establish|connect failure|connection (refused|timed out)|"
    r"socket timed out|temporarily unable|transport endpoint",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SubmitReport:
    """What was, or in a dry run would be, submitted."""

    job_id: str | None
    """Slurm's id; None in a dry run."""
    folder: Path
    """Job file, script and logs; a dry run does not make it."""
    sbatch: str
    """The script, word for word."""


def submit(
    stage: str | StagePaths, config: Config, cluster: ClusterConfig, dry_run: bool = False
) -> SubmitReport:
    """Queue a stage with its config; a dry run says what would be queued and touches nothing.

    Raises UsageError for an unknown stage, or several tasks for one that runs as a single process, and
    HvcError when Slurm is missing or refuses the job.
    """
    paths = find(stage) if isinstance(stage, str) else stage
    check_tasks(paths, cluster)
    parent = Path(cluster.folder).expanduser().absolute()
    if dry_run:
        folder = next_folder(parent, paths.name)
        return SubmitReport(None, folder, sbatch_text(cluster, f"hvc-{paths.name}", folder))
    need_slurm()
    folder = make_folder(parent, paths.name)
    job_file = JobFile(
        stage=paths, config=config.resolved(), cluster=cluster.name, max_requeues=cluster.max_requeues
    )
    job_file.write(folder / "job.json")
    job_id = queue(executor_for(cluster, f"hvc-{paths.name}", folder), [folder / "job.json"])
    return SubmitReport(job_id, folder, sbatch_text(cluster, f"hvc-{paths.name}", folder))


def need_slurm() -> None:
    """HvcError where there is no Slurm."""
    if which("sbatch") is None:
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

    def text(self, tasks: int = 1) -> str:
        """The sbatch script of a job, or of an array of several tasks."""
        if tasks > 1:
            self.parameters["map_count"] = tasks
        text: str = self._make_submission_file_text(self._submitit_command_str, uid="")
        return text


def executor_for(cluster: ClusterConfig, job_name: str, folder: Path, **more: Any) -> Executor:
    """What submits jobs whose files are in `folder`; `more` are further parameters of submitit."""
    executor = Executor(folder=folder, python=plan.python_command(cluster))
    executor.update_parameters(**plan.parameters(cluster, job_name), **more)
    return executor


def queue(executor: Any, job_files: list[Path]) -> str:
    """Submit one job, or an array with a task per job file; Slurm's id. HvcError when it is refused."""
    folder = job_files[0].parent
    try:
        with redirect_stderr(StringIO()):  # submitit prints there what its exception says as well
            jobs = executor.map_array(run_job, [str(path) for path in job_files])
    except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
        raise HvcError(_refusal(str(error).strip(), folder)) from None
    job_id: str = jobs[0].job_id
    return job_id.partition("_")[0]


def _refusal(words: str, folder: Path) -> str:
    if _UNREACHABLE.search(words):
        return f"Slurm's controller does not answer: {words}; see `scontrol ping`, then submit again"
    return f"sbatch refused the job: {words}; correct the cluster's file (the script is in {folder})"


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
