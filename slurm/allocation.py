"""Where a task of a running Slurm job is: job, attempt, rank, nodes; and the environment torch wants."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from submitit.helpers import TorchDistributedEnvironment

from hvc.base.errors import HvcError
from hvc.slurm import control
from hvc.slurm.script import variables_against

_NOT_OF_A_JOB = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"}
"""How Slurm is reached."""


@dataclass(frozen=True)
class Allocation:
    """One task's place in its job."""

    job_id: str
    """As Slurm's commands understand it: `7`, or `7_3` for a task of an array."""
    attempt: int
    """Counts from 1 over all starts from the submission's folder; each requeue is the next."""
    rank: int
    """0 <= rank < world_size."""
    world_size: int
    nodes: str
    """The nodes of this attempt in Slurm's short form, e.g. `gpu[01-04]`."""
    restarts: int = 0
    """How often Slurm has put this job back into the queue."""
    task: int | None = None
    """Number of the array's task; None outside of an array."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Allocation":
        """Read what Slurm tells every task; HvcError outside of one."""
        try:
            restarts = int(environment.get("SLURM_RESTART_COUNT") or 0)
            number = environment.get("SLURM_ARRAY_TASK_ID")
            return cls(
                job_id=_job_id(environment),
                attempt=int(environment.get("HVC_ATTEMPT") or restarts + 1),
                rank=int(environment["SLURM_PROCID"]),
                world_size=int(environment["SLURM_NTASKS"]),
                nodes=environment["SLURM_JOB_NODELIST"],
                restarts=restarts,
                task=None if number is None else int(number),
            )
        except KeyError as error:
            raise HvcError(
                f"not inside a Slurm task: {error.args[0]} is not set; use `hvc submit` to run on a cluster"
            ) from None

    def __str__(self) -> str:
        return f"job {self.job_id}, attempt {self.attempt}, rank {self.rank} of {self.world_size}"


@dataclass(frozen=True)
class Script:
    """The place of a job's script, which starts the ranks and outlives them."""

    job_id: str
    attempt: int
    """As in `Allocation`, and so are the next two."""
    restarts: int
    task: int | None
    nodes: int
    tasks_per_node: int
    cpus_per_task: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Script":
        """Read what Slurm tells the script; HvcError outside of one."""
        try:
            nodes = int(environment["SLURM_JOB_NUM_NODES"])
            task = environment.get("SLURM_ARRAY_TASK_ID")
            return cls(
                job_id=_job_id(environment),
                attempt=int(environment["HVC_ATTEMPT"]),
                restarts=int(environment.get("SLURM_RESTART_COUNT") or 0),
                task=None if task is None else int(task),
                nodes=nodes,
                tasks_per_node=int(environment["SLURM_NTASKS"]) // nodes,
                cpus_per_task=int(environment.get("SLURM_CPUS_PER_TASK") or 1),
            )
        except KeyError as error:
            raise HvcError(f"not inside the script of `hvc submit`: {error.args[0]} is not set") from None


@contextmanager
def outside(script: str) -> Iterator[None]:
    """While this lasts, the environment says nothing else of a new job than its script does.

    sbatch hands on what it finds of a job that this process may be in itself: the restarts, task number or
    memory of an interactive one, for instance, would be taken for the new one's. And variables such as
    SBATCH_PARTITION, with which people set their own defaults, win over the script's lines.
    """
    inside = "SLURM_JOB_ID" in os.environ
    against = variables_against(script)
    names = [
        name
        for name in os.environ
        if name in against or (inside and name.startswith("SLURM_") and name not in _NOT_OF_A_JOB)
    ]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _job_id(environment: Mapping[str, str]) -> str:
    # One task of an array has the array's own id for SLURM_JOB_ID, and to requeue that would requeue all.
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def export_torch_environment() -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT as torchrun would.

    They replace what the submitting shell may have had. CUDA_VISIBLE_DEVICES stays as Slurm made it.
    """
    environment = TorchDistributedEnvironment()
    environment.export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = reachable(os.environ["MASTER_ADDR"])


def reachable(node: str) -> str:
    """The node's name where it resolves, else the address that Slurm itself reaches it by."""
    try:
        socket.getaddrinfo(node, None)
    except socket.gaierror:
        return control.node_address(node)
    return node
