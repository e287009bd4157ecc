"""The job that a cluster's file describes, as parameters of which submitit makes the sbatch script."""

import shlex
import sys
from pathlib import Path
from typing import Any

from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.script import (
    EARLY_LOG,
    EARLY_LOG_OF_TASK,
    aftermath_lines,
    attempt_lines,
    step_lines,
    watch_lines,
)
from hvc.slurm.snapshot import code_path


def parameters(cluster: ClusterConfig, job_name: str, folder: Path, array: bool = False) -> dict[str, Any]:
    """Parameters for submitit's SlurmExecutor; what the cluster leaves open is left out."""
    early_log = str(folder / (EARLY_LOG_OF_TASK if array else EARLY_LOG))
    optional = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": None if cluster.memory_gb is None else f"{round(cluster.memory_gb * 1024)}M",
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
        "setup": [
            *setup_lines(cluster),
            *code_lines(folder),
            *PORT_LINES,
            *attempt_lines(folder, cluster.tasks_per_node),
            *step_lines(),
            *watch_lines(folder, python_command(cluster)),
        ],
        "teardown": aftermath_lines(folder, python_command(cluster)),
        "additional_parameters": {
            "requeue": True,
            "output": early_log,
            **_signal(cluster),
            **cluster.sbatch,
        },
        "srun_args": srun_arguments(cluster, early_log),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _signal(cluster: ClusterConfig) -> dict[str, str]:
    # submitit knows USR2 alone
    return {} if cluster.signal == "USR2" else {"signal": f"{cluster.signal}@{cluster.grace_seconds}"}


def srun_arguments(cluster: ClusterConfig, early_log: str) -> list[str]:
    """How srun starts the processes of a job.

    srun does not inherit `--cpus-per-task` since Slurm 22.05 and would pin every process to one CPU;
    a log that is not appended to is lost with the next attempt; a rank that fails has to end the others;
    and where sbatch was told to export nothing, it would hand on none of what the script sets.
    """
    return [
        f"--output={early_log}",
        f"--cpus-per-task={cluster.cpus_per_task}",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
        "--open-mode=append",
        "--export=ALL",
        *cluster.srun_args,
    ]


def python_command(cluster: ClusterConfig) -> str:
    """The command that starts Python in every task, deaf to the signals that ask a stage to stop.

    Until our handlers are there such a signal would end the process, and the job as failed; a job that
    has just started has nothing to save, and Slurm requeues a preempted one by itself.
    """
    if cluster.container is None:
        return _deaf(cluster, cluster.python or shlex.quote(sys.executable))
    return _deaf(cluster, f"{container_command(cluster)} {cluster.python or 'python3'}")


def _deaf(cluster: ClusterConfig, command: str) -> str:
    scratch = 'mkdir -p "$TMPDIR"; ' if cluster.scratch else ""
    return f"""sh -c 'trap "" TERM USR2; {scratch}exec "$@"' sh {command}"""


def container_command(cluster: ClusterConfig) -> str:
    """What starts a command inside the cluster's image; the job's folder and the shared ones are in it."""
    container = cluster.container
    assert container is not None
    places = [str(cluster.place), *cluster.shared, *container.binds]
    words = [container.command, "exec", *(["--nv"] if cluster.gpus_per_node else [])]
    words += [f"--bind={place}" for place in dict.fromkeys(places)]
    scratch = [f'--bind="{cluster.scratch}"'] if cluster.scratch else []  # the node's shell fills it in
    return " ".join([shlex.join(words), *scratch, shlex.join([*container.arguments, container.image])])


def setup_lines(cluster: ClusterConfig) -> list[str]:
    """Shell lines before the start: the cluster's own, then its environment, quoted."""
    exports = [f"export {key}={shlex.quote(value)}" for key, value in cluster.variables.items()]
    scratch = [f'export TMPDIR="{cluster.scratch}"'] if cluster.scratch else []
    return [*cluster.setup, *exports, *scratch]


def code_lines(folder: Path) -> list[str]:
    """Shell lines that put the submission's own copy of the code before all other code.

    Without PYTHONSAFEPATH a checkout that the job is started in would come first.
    """
    code = shlex.quote(str(code_path(folder)))
    return ["export PYTHONSAFEPATH=1", f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"]


PORT_LINES = [
    "for base in 20000 32000 44000; do",
    "  export MASTER_PORT=$((base + SLURM_JOB_ID % 12000))",
    '  (exec 3<>"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null || break',
    "done",
]
"""Shell lines, run on the first node, where rank 0 is: the port that the ranks meet on.

Jobs that run at once have other ids and so other ports, also on one node and when they start at the same
moment; where somebody else listens on it, the next is taken. Most are below those that Linux gives to
outgoing connections.
"""
