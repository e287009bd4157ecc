"""Where each task of a submission writes: what its job file says, if the submission itself does not."""

from pathlib import Path

from hvc.base.files import read_json
from hvc.slurm.submission import Submission


def output_of(folder: Path, submission: Submission, task: int | None) -> str | None:
    """The output of a job, or of a task of an array, as a path or an `s3://` address; None: not known."""
    if task is None:
        return submission.output
    found = read_json(folder / f"job-{task}.json") or {}
    config = found.get("config")
    own = config.get("output") if isinstance(config, dict) else None
    return str(own) if own else submission.output
