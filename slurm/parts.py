"""Submits a stage in parts: a job array whose tasks share the work, and a job that joins what they made."""

from dataclasses import dataclass
from pathlib import Path

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.jobfile import JobFile
from hvc.slurm.stages import find
from hvc.slurm.submit import check_tasks, executor_for, make_folder, need_slurm, next_folder, queue


@dataclass(frozen=True)
class PartsReport:
    """What was, or in a dry run would be, submitted."""

    job_id: str | None
    """Slurm's id of the array; None in a dry run."""
    join_job_id: str | None
    """Slurm's id of the job that joins the parts; None in a dry run."""
    folder: Path
    """Job files, scripts and logs of both; a dry run does not make it."""
    sbatch: str
    """The array's script, word for word."""
    join_sbatch: str
    """The other job's script."""


def submit_parts(
    stage: str, config: Config, parts: int, cluster: ClusterConfig, dry_run: bool = False
) -> PartsReport:
    """Queue `parts` array tasks, whose configs have `part` 0, 1, ..., and the config itself after them.

    The last job begins when all tasks have ended, however they ended: it makes what is missing. Raises
    UsageError for what cannot be done in parts, HvcError when Slurm is missing or refuses.
    """
    paths = find(stage)
    if parts < 2:
        raise UsageError(f"--parts {parts}: an array has two parts or more")
    check_tasks(paths, cluster)
    parent, name = Path(cluster.folder).expanduser().absolute(), f"hvc-{paths.name}"
    folder = next_folder(parent, paths.name) if dry_run else _folder_for_both(parent, paths.name)

    def script(array: str) -> str:
        return executor_for(cluster, f"{name}-join", folder, dependency=f"afterany:{array}").text()

    array_text = executor_for(cluster, name, folder).text(tasks=parts)
    if dry_run:
        return PartsReport(None, None, folder, array_text, script("ARRAY_JOB_ID"))
    files = [folder / f"job-part-{part}.json" for part in range(parts)]
    configs = [{**config.resolved(), "part": part} for part in range(parts)]
    for path, values in zip([*files, folder / "job-join.json"], [*configs, config.resolved()], strict=True):
        JobFile(stage=paths, config=values, cluster=cluster.name, max_requeues=cluster.max_requeues).write(
            path
        )
    array = queue(executor_for(cluster, name, folder), files)
    join = executor_for(cluster, f"{name}-join", folder, dependency=f"afterany:{array}")
    try:
        join_id = queue(join, [folder / "job-join.json"])
    except HvcError as error:
        raise HvcError(
            f"{error} The parts are queued as job {array}; when they are done, the same command without "
            f"--parts finishes the work, or cancel them: scancel {array}"
        ) from None
    return PartsReport(array, join_id, folder, array_text, script(array))


def _folder_for_both(parent: Path, name: str) -> Path:
    need_slurm()
    return make_folder(parent, name)
