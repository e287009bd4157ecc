"""Whether a job that waits or runs already writes what another is about to be submitted for."""

from pathlib import Path

from hvc.slurm.checks import Check
from hvc.slurm.jobs import list_jobs
from hvc.slurm.places import Places
from hvc.slurm.submission import submissions

_SOLE_WRITERS = {"train", "shard"}
"""Stages of which one process after another writes an output; evaluations share theirs."""


def rivals(root: Path, stage: str, places: Places) -> list[Check]:
    """A failed check for each job, submitted below `root`, that is alive and has this output."""
    if stage not in _SOLE_WRITERS or not places.outputs:
        return []
    output = _whole(places.outputs[0], Path.cwd())
    same = [
        (folder, one)
        for folder, one in submissions(root)
        if one.stage == stage and one.output and _whole(one.output, Path(one.workdir)) == output
    ]
    return [
        Check(
            "output",
            "fail",
            f"job {group.submission.job_id} ({group.submission.name}) writes {output} as well",
            f"Wait for it, `hvc cancel {group.submission.job_id}`, or set another output",
        )
        for group in (list_jobs(same).groups if same else ())
        if group.alive
    ]


def _whole(address: str, workdir: Path) -> str:
    return address.rstrip("/") if "://" in address else str(workdir / address)
