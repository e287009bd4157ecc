"""The job that a cluster's file describes, as parameters of which submitit makes the sbatch script."""

import shlex
import sys
from typing import Any

from hvc.slurm.cluster import ClusterConfig


def parameters(cluster: ClusterConfig, job_name: str) -> dict[str, Any]:
    """Parameters for submitit's SlurmExecutor; what the cluster leaves open is left out."""
    optional = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": None if cluster.memory_gb is None else f"{round(cluster.memory_gb * 1024)}M",
        "setup": setup_lines(cluster) or None,
    }
    return {
        "job_name": job_name,
        "time": cluster.time_minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "signal_delay_s": cluster.grace_seconds,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own default is refused by clusters that check it
        "additional_parameters": {"requeue": True, **cluster.sbatch},
        "srun_args": srun_arguments(cluster),
        **{key: value for key, value in optional.items() if value is not None},
    }


def srun_arguments(cluster: ClusterConfig) -> list[str]:
    """How srun starts the processes of a job.

    srun does not inherit `--cpus-per-task` since Slurm 22.05 and would pin every process to one CPU;
    a log that is not appended to is lost with the next attempt; a rank that fails has to end the others.
    """
    return [
        f"--cpus-per-task={cluster.cpus_per_task}",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
        "--open-mode=append",
        *cluster.srun_args,
    ]


def python_command(cluster: ClusterConfig) -> str:
    """The command that starts Python in every task, deaf to the signals that ask a stage to stop.

    Until our handlers are there such a signal would end the process, and the job as failed; a job that
    has just started has nothing to save, and Slurm requeues a preempted one by itself.
    """
    python = shlex.quote(sys.executable) if cluster.python is None else cluster.python
    return f"""sh -c 'trap "" TERM USR2; exec "$@"' sh {python}"""


def setup_lines(cluster: ClusterConfig) -> list[str]:
    """Shell lines before the start: the cluster's own, then its environment, quoted."""
    exports = [f"export {key}={shlex.quote(value)}" for key, value in cluster.environment.items()]
    return [*cluster.setup, *exports]
