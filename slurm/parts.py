"""Submits a stage in parts: a job array whose tasks share the work, and a job that joins what they made."""

from dataclasses import dataclass
from pathlib import Path

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.slurm.checks import Check
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.jobfile import JobFile
from hvc.slurm.places import places_of
from hvc.slurm.preflight import preflight
from hvc.slurm.stages import find
from hvc.slurm.submit import (
    Executor,
    check_tasks,
    executor_for,
    keep,
    make_folder,
    name_in_queue,
    need_executor,
    next_folder,
    note,
    queue,
    refuse,
)


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
    findings: list[Check]
    """What the checks before found: warnings, and in a dry run failures as well."""


def submit_parts(
    stage: str,
    config: Config,
    parts: int,
    cluster: ClusterConfig,
    dry_run: bool = False,
    *,
    name: str | None = None,
    parent: Path | None = None,
    dependency: str | None = None,
    unchecked: bool = False,
) -> PartsReport:
    """Queue `parts` array tasks, whose configs have `part` 0, 1, ..., and the config itself after them.

    The last job begins when all tasks have ended, however they ended: it makes what is missing. The other
    arguments are those of `submit`. Raises UsageError for what cannot be done in parts, HvcError when a
    check fails, Slurm is missing, or refuses.
    """
    paths = find(stage)
    if parts < 2:
        raise UsageError(f"--parts {parts}: an array has two parts or more")
    check_tasks(paths, cluster)
    root, places = cluster.place, places_of(paths.name, config)
    job_name = name_in_queue(paths, name or places.name)
    if not dry_run:
        need_executor(cluster)
    planned = next_folder(root, paths.name)
    more = {"dependency": dependency} if dependency else {}

    def joining(array: str, folder: Path) -> Executor:
        return executor_for(cluster, f"{job_name}-join", folder, dependency=f"afterany:{array}")

    array_text = executor_for(cluster, job_name, planned, array=True, **more).text(tasks=parts)
    alone = executor_for(cluster, job_name, planned, array=True).text(tasks=parts)
    findings = [] if unchecked else preflight(places, cluster, alone, waits=dependency is not None)
    if dry_run:
        join_text = joining("ARRAY_JOB_ID", planned).text()
        return PartsReport(None, None, planned, array_text, join_text, findings)
    refuse(findings)
    folder = make_folder(root, paths.name)
    files = [folder / f"job-part-{part}.json" for part in range(parts)]
    configs = [{**config.resolved(), "part": part} for part in range(parts)]
    snapshot = keep(folder, config, cluster)
    for path, values in zip([*files, folder / "job-join.json"], [*configs, config.resolved()], strict=True):
        JobFile.of(paths, values, cluster, snapshot).write(path)
    executor = executor_for(cluster, job_name, folder, array=True, **more)
    array = queue(executor, files)
    note(folder, array, paths, places, cluster, name=name, parent=parent, array=parts)
    try:
        join_id = queue(joining(array, folder), [folder / "job-join.json"])
    except HvcError as error:
        raise HvcError(
            f"{error} The parts are queued as job {array}; when they are done, the same command without "
            f"--parts finishes the work, or cancel them: hvc cancel {array}"
        ) from None
    note(folder, array, paths, places, cluster, name=name, parent=parent, array=parts, join_job_id=join_id)
    join_text = joining(array, folder).text()
    return PartsReport(array, join_id, folder, executor.text(tasks=parts), join_text, findings)
