"""What a cluster is like: one YAML file per cluster and kind of job, in `configs/clusters/`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.slurm.secrets import Environment, Unseen

AbsolutePath = Annotated[str, Field(pattern=r"^/")]


class Container(Config):
    """An Apptainer image that every process of the job starts in; see `configs/clusters/hvc.def`."""

    image: str
    """Path of the image, on a file system that all nodes share."""
    command: str = "apptainer"
    """Apptainer by its name on the nodes, e.g. `singularity`."""
    binds: list[str] = Field(default_factory=list)
    """Folders (`/from[:/to]`) that are visible inside, beside `folder` and `shared`."""
    arguments: Annotated[list[str], Unseen] = Field(default_factory=list)
    """Further arguments of `exec`; `--nv` comes by itself where there are GPUs."""


class ClusterConfig(Config):
    """Where and with what a stage runs; the resources are per job, node or task as their names say."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the cluster in logs and on the runs it made."""
    executor: Literal["slurm", "local"] = "slurm"
    """`local` starts the processes on this machine, without Slurm."""
    partition: str | None = None
    """Partition (queue); by default the cluster's own default."""
    account: str | None = None
    """Account that pays; null where the cluster wants none."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, e.g. `h100` or `a100|h100`."""
    nodes: int = Field(1, ge=1)
    """Nodes of the job."""
    tasks_per_node: int = Field(1, ge=1)
    """Processes on every node; for training with GPUs one per GPU."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs on every node; 0 is a CPU job."""
    cpus_per_task: int = Field(1, ge=1)
    """CPUs of every process, its loader's worker processes included."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory per node in GiB; by default what the partition gives."""
    time_minutes: int = Field(60, ge=1)
    """Time limit of one attempt; a stage that needs longer saves, is requeued and goes on."""
    grace_seconds: int = Field(120, ge=1)
    """The stage is asked to stop this long before the time limit (Slurm may ask a minute earlier).
    It has to cover the rest of a step and the writing of a checkpoint."""
    signal: Literal["USR2", "TERM"] = "USR2"
    """Signal that asks it; TERM where something on the way swallows USR2."""
    folder: str = "slurm-jobs"
    """Every submission gets a folder below this one for its script, job file and logs
    (`logs/attempt-N/rank-R.log`). Must be on a file system that all nodes share."""
    shared: list[AbsolutePath] = Field(default_factory=list)
    """Folders that all nodes share; where some are named, every path of a job has to be in one of them."""
    scratch: str | None = Field(None, pattern=r"^/[A-Za-z0-9_./${}-]*$")
    """Folder on every node's own disk for temporary files, e.g. `/scratch/$USER/$SLURM_JOB_ID`; it is
    made where it is missing, and becomes TMPDIR."""
    interface: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Network interface between nodes for NCCL and Gloo, e.g. `ib0`; by default they choose."""
    s3_endpoint: CleanUri | None = None
    """S3 server of the jobs; by default AWS_ENDPOINT_URL_S3 of the environment that submits."""
    mlflow: CleanUri | None = None
    """MLflow server of the jobs; by default MLFLOW_TRACKING_URI of the environment that submits."""
    container: Container | None = None
    """Image to run in; without one the interpreter runs on the nodes themselves."""
    setup: Annotated[list[str], Unseen] = Field(default_factory=list)
    """Shell lines before the start: `module load cuda`, `source .venv/bin/activate`."""
    python: Annotated[str | None, Unseen] = None
    """Command that starts Python on the nodes; by default the interpreter that submits, in a
    container `python3`."""
    environment: Environment = Field(default_factory=dict)
    """Variables for the job, e.g. `NCCL_SOCKET_IFNAME: ib0`. They are written into the script in
    plain text: no secrets. Numbers need no quotes. The environment that submits reaches the job as well."""
    max_requeues: int | None = Field(3, ge=0)
    """How often in a row the job may be requeued without any progress before it gives up; null is without
    end. With progress it always is; requeues by Slurm itself (preemption, node failure) don't count."""
    slow_node_factor: float = Field(5.0, ge=0)
    """A node that computes so many times slower than the median is left out of the next attempt; 0 minds
    no slow nodes, only those that compute wrongly or give no sign."""
    srun_args: Annotated[list[str], Unseen] = Field(default_factory=list)
    """Further arguments of srun, e.g. `--mpi=pmi2`; they win over this project's own."""
    sbatch: Annotated[dict[str, str | int | bool], Unseen] = Field(default_factory=dict)
    """Further options of sbatch, e.g. `exclusive: true`, `wckey: vision`; they win too."""

    @property
    def place(self) -> Path:
        """`folder` as a path from the root."""
        return Path(self.folder).expanduser().absolute()

    @property
    def variables(self) -> dict[str, str]:
        """All variables that the file sets for a job; those of `environment` win."""
        named = {
            "NCCL_SOCKET_IFNAME": self.interface,
            "GLOO_SOCKET_IFNAME": self.interface,
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
            "MLFLOW_TRACKING_URI": self.mlflow,
        }
        return {key: value for key, value in named.items() if value is not None} | self.environment

    @model_validator(mode="after")
    def _fits(self) -> "ClusterConfig":
        if self.gpus_per_node and self.tasks_per_node > self.gpus_per_node:
            raise ValueError(
                f"tasks_per_node is {self.tasks_per_node} but gpus_per_node is {self.gpus_per_node}; "
                "every process needs a GPU of its own"
            )
        if self.executor == "local" and self.nodes > 1:
            raise ValueError(f"nodes is {self.nodes}, but `executor: local` is this one machine")
        if self.executor == "local" and self.container is not None:
            raise ValueError("a container is for Slurm jobs; start hvc inside of it instead")
        if self.grace_seconds >= self.time_minutes * 60:
            raise ValueError(
                f"grace_seconds ({self.grace_seconds}) must be less than time_minutes ({self.time_minutes})"
            )
        return self
