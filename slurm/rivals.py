"""Whether a job that waits or runs already writes what another is about to be submitted for."""

from collections.abc import Iterator
from pathlib import Path

from hvc.slurm.checks import Check
from hvc.slurm.jobs import list_jobs
from hvc.slurm.submission import submissions


def rivals(root: Path, output: str) -> Iterator[Check]:
    """A failed check for each job, submitted below `root`, that is alive and has this output."""
    output = _whole(output, Path.cwd())
    same = [
        (folder, one)
        for folder, one in submissions(root)
        if one.output and _whole(one.output, Path(one.workdir)) == output
    ]
    for group in list_jobs(same).groups:
        job = group.submission
        if group.alive:
            found = f"job {job.job_id} ({job.name}) writes {output} as well"
            advice = f"Wait for it, `hvc cancel {job.job_id}`, or set another output."
            yield Check("output", "fail", found, advice)


def _whole(address: str, workdir: Path) -> str:
    return address.rstrip("/") if "://" in address else str(workdir / address)
