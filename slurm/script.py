"""The shell lines around `srun` in a job's script: the attempt's number before it, what becomes of the job
after it.

Both run on the first node, in the shell that outlives every rank.
"""

import shlex
from pathlib import Path

EARLY_LOG = "logs/slurm-%j.out"
"""What is said before a rank has its own log, and by srun; `%j` is Slurm's id of the job."""


def attempt_lines(folder: Path, tasks_per_node: int) -> list[str]:
    """Number the attempt by a folder for its logs that nobody made before, and count its processes.

    Slurm's own count of restarts begins again when the same folder is submitted again; its number of tasks
    stays the one of the submission when the job gets another number of nodes.
    """
    logs = shlex.quote(str(folder / "logs")) + "${SLURM_ARRAY_TASK_ID:+/task-$SLURM_ARRAY_TASK_ID}"
    return [
        "trap : TERM  # what comes after srun has to run, too",
        f"HVC_LOGS={logs}",
        'mkdir -p "$HVC_LOGS"',
        "export HVC_ATTEMPT=1",
        'until mkdir "$HVC_LOGS/attempt-$HVC_ATTEMPT" 2>/dev/null; do',
        '  [ -d "$HVC_LOGS/attempt-$HVC_ATTEMPT" ] || exit 1',
        "  HVC_ATTEMPT=$((HVC_ATTEMPT + 1))",
        "done",
        f"export SLURM_NTASKS=$((SLURM_JOB_NUM_NODES * {tasks_per_node}))",
        "export SLURM_NPROCS=$SLURM_NTASKS",
    ]


def aftermath_lines(folder: Path, python: str) -> list[str]:
    """Unless all ranks ended well, ask `hvc.slurm.aftermath` what becomes of the job; first of all lines.

    Args:
        python: The command that starts Python. It ignores SIGTERM, which Slurm sends to this shell as
            soon as the job is back in the queue, while there may be more to say about it.
    """
    command = f"{python} -u -m hvc.slurm.aftermath {shlex.quote(str(folder))}"
    return ["hvc_status=$?", f'[ "$hvc_status" -eq 0 ] || exec {command} "$hvc_status"']
