"""Submits an ended submission again, with the script, code and config that it was made with.

The folder stays the same, so that its logs and attempts go on; only the job's id is a new one.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.slurm import control, local
from hvc.slurm.allocation import outside
from hvc.slurm.attempts import Records
from hvc.slurm.script import sbatch_options, submission_script
from hvc.slurm.submission import Submission

_SECONDS = 60
_ID = re.compile(r"(\d+)(?:;|\s*$)")


def resized_nodes(folder: Path, submission: Submission) -> int | None:
    """Nodes that the last attempt had, where that is another number than the script asks for; else None."""
    if submission.local or submission.array is not None:
        return None
    asked = options_of(folder, submission.job_id).get("nodes", "")
    attempts = Records(folder, None).all()
    if not asked.isdecimal() or not attempts:  # of a range Slurm chooses anew
        return None
    try:
        last = len(control.node_names(attempts[-1].nodes))
    except control.ControlError:
        return None
    return last if last not in (0, int(asked)) else None


def options_of(folder: Path, job_id: str) -> dict[str, str]:
    """What a job's script asks sbatch for; nothing where the script is gone."""
    script = submission_script(folder, job_id)
    return sbatch_options(script.read_text(encoding="utf-8")) if script.is_file() else {}


def resubmit(
    folder: Path, submission: Submission, tasks: Sequence[int] | None = None, nodes: int | None = None
) -> Submission:
    """Queue it again, and record the new ids in its folder.

    Args:
        folder: the submission's.
        submission: of a job, or of an array with or without the job that joins its parts.
        tasks: of an array, the tasks to run; None: all of them.
        nodes: of a job; None: as many as its script asks for.

    Raises HvcError when Slurm refuses, or a script is missing.
    """
    options = [] if submission.array is None or tasks is None else [f"--array={','.join(map(str, tasks))}"]
    if nodes is not None:
        options.append(f"--nodes={nodes}")
    job_id = submission.job_id
    if submission.array is None or tasks is None or tasks:
        # Without what it waited for at first: that has long been there, or is unknown by now.
        job_id = _queue(folder, submission, submission.job_id, [*options, "--dependency="])
    changed = replace(submission, job_id=job_id)
    if submission.join_job_id:
        # The id is on record before anything else may fail: what is queued must never be lost sight of.
        changed.write(folder)
        waits = [f"--dependency=afterany:{job_id}"] if job_id != submission.job_id else ["--dependency="]
        changed = replace(changed, join_job_id=_queue(folder, submission, submission.join_job_id, waits))
    changed.write(folder)
    return changed


def _queue(folder: Path, submission: Submission, job_id: str, options: Sequence[str]) -> str:
    script = submission_script(folder, job_id)
    if not script.is_file():
        raise HvcError(f"{script} is missing, so nothing can be submitted again; use `hvc submit`")
    workdir = submission.workdir if Path(submission.workdir).is_dir() else str(folder)
    if submission.local:  # all tasks of an array: what is done is found done
        new_id = local.start(script, workdir)
        _hand_on(folder, job_id, new_id)
        return new_id
    command = ["sbatch", "--parsable", *options, str(script)]
    try:
        with outside(script.read_text(encoding="utf-8")):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=workdir
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HvcError(f"cannot submit again: {error}; do it on a login node of the cluster") from None
    found = _ID.match(done.stdout)
    if done.returncode != 0 or found is None:
        words = (done.stderr.strip() or done.stdout.strip()).removeprefix("sbatch: ")
        raise HvcError(f"sbatch refused to take job {job_id} again: {words}")
    _hand_on(folder, job_id, found[1])
    return found[1]


def _hand_on(folder: Path, old: str, new: str) -> None:
    """What a job loads is named by its id; it waits for a minute until it is there."""
    shutil.copyfile(submission_script(folder, old), submission_script(folder, new))
    for path in folder.glob(f"{old}_*submitted.pkl"):
        copy = folder / f"{new}{path.name.removeprefix(old)}"
        temporary = copy.with_suffix(".tmp")
        shutil.copyfile(path, temporary)
        temporary.rename(copy)
