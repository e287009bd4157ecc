"""A job's script: the options that it gives sbatch, and the shell lines around `srun`: the attempt's number
before it, what becomes of the job after it, or at its time limit.

All run on the first node, in the shell that outlives every rank.
"""

import re
import shlex
from pathlib import Path

EARLY_LOG = "logs/slurm-%j.out"
"""What is said before a rank has its own log, and by srun; `%j` is Slurm's id of the job."""
EARLY_LOG_OF_TASK = "logs/slurm-%A_%a.out"
"""The same of an array's task, by the id that people see; `%j` is another number there."""


def submission_script(folder: Path, job_id: str) -> Path:
    """The script of a job, or of an array's task, as it went to sbatch; not there before that."""
    return folder / f"{job_id.partition('_')[0]}_submission.sh"


def sbatch_options(script: str) -> dict[str, str]:
    """What a script that `plan` made asks sbatch for: the values of its `#SBATCH` lines, unquoted."""
    lines = re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE)
    return {key: "".join(shlex.split(value)) for key, value in lines}


def variables_against(script: str) -> set[str]:
    """Variables that sbatch would follow instead of these `#SBATCH` lines."""
    names = re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE)
    others = {
        "time": ["TIMELIMIT"],
        "requeue": ["NO_REQUEUE"],
        "array": ["ARRAY_INX"],
        "mem": ["MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"],
    }
    found = [word for name in names for word in [name.upper().replace("-", "_"), *others.get(name, [])]]
    return {f"SBATCH_{word}" for word in found}


def attempt_lines(folder: Path, tasks_per_node: int) -> list[str]:
    """Number the attempt by a folder for its logs that nobody made before, and count its processes.

    Slurm's own count of restarts begins again when the same folder is submitted again; its number of tasks
    stays the one of the submission when the job gets another number of nodes.
    """
    logs = shlex.quote(str(folder / "logs")) + "${SLURM_ARRAY_TASK_ID:+/task-$SLURM_ARRAY_TASK_ID}"
    return [
        "set +e; trap : TERM  # what comes after srun has to run, too",
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


def step_lines() -> list[str]:
    """Give this attempt's step another number than those of the three attempts before had.

    Steps are numbered anew in every start of a job. A node that was given up may come back with an srun
    that knows of nothing; it then ends its step by job and number, which would be the one at work now.
    Local jobs have no such numbers, nor a `slurmd`.
    """
    nothing = "srun --quiet --nodes=1 --ntasks=1 --input=none --output=/dev/null true"
    return [
        "hvc_skip=${SLURMD_NODENAME:+$(((HVC_ATTEMPT - 1) % 4))}",
        "for ((; hvc_skip > 0; hvc_skip--)); do",
        f"  timeout --foreground 60 {nothing} 2>/dev/null",
        "done",
    ]


def watch_lines(folder: Path, python: str) -> list[str]:
    """Have `hvc.slurm.aftermath` look when Slurm asks this job to end, while its ranks may still run.

    At the time limit Slurm ends this shell together with the ranks. Where they do not leave by themselves
    (a step that takes longer, a collective that hangs) nobody would be left to put the job back into the
    queue. The shell itself is deaf while srun runs, so a second one listens; USR1 ends it, and so does the
    end of the first, however that was killed.

    Args:
        python: The command that starts Python.
    """
    return [
        "(",
        """  trap 'kill "$!" 2>/dev/null; exit' USR1""",
        f"  hvc_time_up() {{ {_aftermath(folder, python)} time-up; }}",
        """  trap 'hvc_time_up; kill "$!" 2>/dev/null' TERM""",
        # `kill -0` would find a killed shell that nobody has taken leave of yet
        '  while read -r _ _ _ parent _ <"/proc/$BASHPID/stat" && [ "$parent" = "$$" ]; do',
        '    sleep 5 & wait "$!"',
        "  done",
        ") &",
        "HVC_WATCH=$!",
    ]


def aftermath_lines(folder: Path, python: str) -> list[str]:
    """Unless all ranks ended well, ask `hvc.slurm.aftermath` what becomes of the job; first of all lines.

    Args:
        python: The command that starts Python. It ignores SIGTERM, which Slurm sends to this shell as
            soon as the job is back in the queue, while there may be more to say about it.
    """
    return [
        "hvc_status=$?",
        'kill -USR1 "$HVC_WATCH" 2>/dev/null',
        # Signalled before it had its traps, the second shell dies of it; bash would say so here.
        'while kill -0 "$HVC_WATCH" 2>/dev/null; do wait "$HVC_WATCH"; done 2>/dev/null',
        f'[ "$hvc_status" -eq 0 ] || exec {_aftermath(folder, python)} "$hvc_status"',
    ]


def _aftermath(folder: Path, python: str) -> str:
    return f"{python} -u -m hvc.slurm.aftermath {shlex.quote(str(folder))}"
