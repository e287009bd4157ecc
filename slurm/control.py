"""The few questions and requests that a running job has for Slurm's controller."""

import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.slurm.known_jobs import plain_environment

_SECONDS = 60
_WORKS = re.compile(r"(idle|allocated|mixed|completing|planned)[~#!%+-]*")
"""States of a node with their marks: asleep or on its way is well; not `*`, out of reach, `$`, maintained,
nor `@` and `^`, to be started anew."""


class ControlError(HvcError):
    """The controller could not be asked, or refused."""


@dataclass(frozen=True)
class Job:
    """What the controller knows of a job."""

    state: str
    """In Slurm's words: RUNNING, COMPLETING, PENDING, CANCELLED and so on."""
    timed_out: bool
    """Whether Slurm is ending it at its time limit."""
    preempted: bool
    """Whether another job is to have its nodes, from the begin of the grace time on."""
    restarts: int
    """How often it was requeued; the attempt that runs now has as many in SLURM_RESTART_COUNT."""
    partition: str
    excluded: str
    """Nodes that it must not get, in Slurm's short form; empty: none."""

    @property
    def running(self) -> bool:
        """Whether Slurm lets it run on, also while a signal is on its way to all nodes."""
        return self.state in ("RUNNING", "SIGNALING", "RESIZING")

    @property
    def dropped(self) -> bool:
        """Whether Slurm ends it, maybe for good, though nobody cancelled it and no node is lost.

        At its time limit; or preempted, where PreemptMode may be CANCEL. Where that is REQUEUE, `restarts`
        has grown by then.
        """
        return self.timed_out or (self.preempted and not self.running)


def job(job_id: str) -> Job:
    """Ask for a job, or for one task of an array."""
    answer = _scontrol("-o", "show", "job", job_id)
    excluded = _field("ExcNodeList", answer)
    return Job(
        state=_field("JobState", answer),
        timed_out=re.search(r"\bReason=TimeLimit\b", answer) is not None,
        preempted=re.search(r"\bPreemptTime=\d", answer) is not None,
        restarts=int(_field("Restarts", answer)),
        partition=_field("Partition", answer),
        excluded="" if excluded == "(null)" else excluded,
    )


def kill_wait() -> float:
    """Seconds that Slurm leaves to processes between SIGTERM and SIGKILL when it ends a job."""
    answer = _scontrol("show", "config")
    found = re.search(r"^KillWait\s*=\s*(\d+)", answer, re.MULTILINE)
    if found is None:
        raise ControlError("scontrol show config says no KillWait")
    return float(found[1])


def node_address(node: str) -> str:
    """The address by which Slurm reaches a node."""
    return _field("NodeAddr", _scontrol("-o", "show", "node", node))


def node_names(short: str) -> list[str]:
    """The names in a list of Slurm's short form, e.g. `gpu[01-04]`."""
    return _scontrol("show", "hostnames", short).split()


def working_nodes(partition: str) -> list[str]:
    """Nodes of a partition that are idle or at work: neither down nor drained, nor out of reach."""
    # sinfo refuses --all beside a partition; a hidden one is shown when it is named. Told of --states, it
    # takes a drained node for an idle one.
    lines = _run("sinfo", "--noheader", f"--partition={partition}", "-N", "-o", "%N %T").splitlines()
    found = (line.split() for line in lines)
    return sorted({words[0] for words in found if len(words) == 2 and _WORKS.fullmatch(words[1])})


def try_out(script: Path, nodes: int, excluded: Collection[str]) -> None:
    """Have sbatch say whether a script's job could get so many nodes without some; ControlError if not.

    It knows of constraints, features, memory and GPUs, what a node's state says nothing of. It may do so in
    a running job, where the environment has to be that of no job (`allocation.outside`).
    """
    without = f"--exclude={','.join(sorted(excluded))}"
    _run("sbatch", "--test-only", "--dependency=", f"--nodes={nodes}", without, str(script))


def requeue(job_id: str) -> None:
    """Put a running job back into the queue; Slurm ends its processes."""
    _scontrol("requeue", job_id)


def cancel(job_id: str) -> None:
    """Take a job out of the queue for good; Slurm ends its processes."""
    _run("scancel", job_id)


def update(job_id: str, **values: str | int) -> None:
    """Change a job that is in the queue, by the names of `scontrol update`."""
    _scontrol("update", f"JobId={job_id}", *(f"{name}={value}" for name, value in values.items()))


def _field(name: str, answer: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", answer)
    if found is None:
        raise ControlError(f"scontrol says no {name}: {answer.strip()}")
    return found[1]


def _scontrol(*arguments: str) -> str:
    return _run("scontrol", *arguments)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=plain_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlError(f"{' '.join(command)}: {error}") from None
    if done.returncode != 0:
        raise ControlError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
