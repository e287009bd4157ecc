"""The few questions and requests that a running job has for Slurm's controller."""

import re
import subprocess

from hvc.base.errors import HvcError

_SECONDS = 60


class ControlError(HvcError):
    """The controller could not be asked, or refused."""


def job_state(job_id: str) -> str:
    """The job's state in Slurm's words: RUNNING, COMPLETING, PENDING, CANCELLED and so on."""
    return _field("JobState", "show", "job", job_id)


def node_address(node: str) -> str:
    """The address by which Slurm reaches a node."""
    return _field("NodeAddr", "show", "node", node)


def requeue(job_id: str) -> None:
    """Put a running job back into the queue; Slurm ends its processes."""
    _scontrol("requeue", job_id)


def _field(name: str, *arguments: str) -> str:
    answer = _scontrol("-o", *arguments)
    found = re.search(rf"\b{name}=(\S+)", answer)
    if found is None:
        raise ControlError(f"scontrol {' '.join(arguments)} says no {name}: {answer.strip()}")
    return found[1]


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlError(f"{' '.join(command)}: {error}") from None
    if done.returncode != 0:
        raise ControlError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
