"""What Slurm knows of this user's jobs: one question to the controller, one to the accounting."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

_FIELDS = "%i|%T|%N|%r|%o"  # the command last: it may hold any character
_SECONDS = 10.0


@dataclass(frozen=True)
class KnownJob:
    """A job, or a task of an array, in Slurm's words."""

    job_id: str
    """`7`, or `7_3` for a task of an array."""
    state: str
    """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED and so on."""
    nodes: str = ""
    """In Slurm's short form, e.g. `gpu[01-04]`; empty while it waits."""
    reason: str = ""
    """Why it waits, or ended; empty if there is nothing to say."""
    command: str = ""
    """The script that was submitted; empty where it is not known."""

    def belongs_to(self, folder: Path) -> bool:
        """Whether it was submitted from this folder: another cluster has jobs with the same ids."""
        if not self.command:
            return True
        script = Path(self.command)  # as it was given to sbatch, maybe by a link such as /home or /scratch
        return script.is_relative_to(folder) or script.resolve().is_relative_to(folder.resolve())


@dataclass(frozen=True)
class Answer:
    """Jobs by id, and what stood in the way of knowing more; empty if nothing did."""

    jobs: dict[str, KnownJob] = field(default_factory=dict)
    problem: str = ""


def ask_controller() -> Answer:
    """All of this user's jobs that the controller remembers, those that ended lately included."""
    if which("squeue") is None:
        return Answer(problem="no squeue here")
    lines, problem = _lines(
        ["squeue", "--noheader", "--me", "--all", "--array", "--states=all", f"--format={_FIELDS}"]
    )
    found = [_queued(line) for line in lines]
    return Answer({job.job_id: job for job in found if job}, problem)


def ask_accounting(job_ids: Iterable[str]) -> Answer:
    """What is on record of jobs that the controller has forgotten; nothing where there is no accounting.

    That accounting is off is no problem to tell of: many clusters have none.
    """
    ids = sorted(set(job_ids))
    if not ids or which("sacct") is None:
        return Answer()
    command = ["sacct", "--allocations", "--parsable2", "--format=JobID,State,NodeList", "--jobs"]
    lines, problem = _lines([*command, ",".join(ids)])
    if problem:
        return Answer(problem="" if "disabled" in problem else problem)
    found = [_recorded(line) for line in lines[1:]]
    return Answer({job.job_id: job for job in found if job})


def ask_partitions(form: str) -> str:
    """What sinfo says of all partitions, in lines of this form; empty where it cannot be asked."""
    lines, _ = _lines(["sinfo", "--all", "--noheader", "--exact", "--noconvert", f"--format={form}"])
    return "\n".join(lines)


def _queued(line: str) -> KnownJob | None:
    parts = line.split("|", 4)
    if len(parts) < 5:
        return None
    job_id, state, nodes, reason, command = parts
    return KnownJob(job_id, state, nodes, "" if reason == "None" else reason, command)


def _recorded(line: str) -> KnownJob | None:
    job_id, _, rest = line.partition("|")
    state, _, nodes = rest.partition("|")
    if not re.fullmatch(r"\d+(_\d+)?", job_id) or not state:
        return None
    # "CANCELLED by 1000"
    return KnownJob(job_id, state.split()[0], "" if nodes == "None assigned" else nodes)


def plain_environment() -> dict[str, str]:
    """The environment without what a user may change his own listings by, e.g. SQUEUE_PARTITION."""
    changing = ("SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")
    return {name: value for name, value in os.environ.items() if not name.startswith(changing)}


def _lines(command: list[str]) -> tuple[list[str], str]:
    """A command's output, and what went wrong."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=plain_environment()
        )
    except subprocess.TimeoutExpired:
        return [], f"{command[0]} gave no answer within {_SECONDS:.0f} s"
    except OSError as error:
        return [], f"{command[0]}: {error.strerror}"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return [], f"{command[0]}: {said[-1].removeprefix(command[0] + ': ').removeprefix('error: ')}"
    return done.stdout.splitlines(), ""
