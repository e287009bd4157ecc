"""Slurm's commands on a machine without Slurm, as far as jobs of `executor: local` call them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hvc.slurm import local

_KILL_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.05


def sbatch(arguments: list[str]) -> int:
    """Start a script in the background."""
    sys.stdout.write(f"Submitted batch job {local.start(Path(arguments[-1]))}\n")
    return 0


def srun(arguments: list[str]) -> int:
    """Start the ranks; one that fails ends the others. The exit code is the highest of theirs."""
    local.die_with_parent()
    output, command = split(arguments)
    path = local.output_of(output, os.environ)
    ranks: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for rank in ranks:
            rank.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGUSR2, pass_on)
    (local.state_folder() / f"{os.getpgid(0)}.srun").write_text(str(os.getpid()))
    with path.open("ab") as log:
        for rank in range(int(os.environ["SLURM_NTASKS"])):
            place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
            ranks.append(
                subprocess.Popen(
                    command,
                    env=os.environ | place,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=local.die_with_parent,
                )
            )
    return _wait(ranks)


def _wait(ranks: list["subprocess.Popen[bytes]"]) -> int:
    end: float | None = None
    while any(rank.poll() is None for rank in ranks):
        if end is None and any(rank.returncode for rank in ranks):
            end = time.monotonic() + _KILL_WAIT_SECONDS
            for rank in ranks:
                rank.terminate()
        if end is not None and time.monotonic() > end:
            for rank in ranks:
                rank.kill()
        time.sleep(_POLL_SECONDS)
    # as a shell says it: killed by signal N is 128 + N
    return max(rank.returncode if rank.returncode >= 0 else 128 - rank.returncode for rank in ranks)


def split(arguments: list[str]) -> tuple[str, list[str]]:
    """srun's output file and the command that it is to start; the last `--output` counts."""
    output, place = "/dev/null", 0
    while arguments[place].startswith("-"):
        name, equals, value = arguments[place].partition("=")
        if name == "--output":
            place += not equals
            output = value if equals else arguments[place]
        place += 1
    return output, arguments[place:]


def scontrol(arguments: list[str]) -> int:
    """`show` of job, config, node and hostnames, and `requeue`; what cannot be changed here is refused."""
    words = [word for word in arguments if not word.startswith("-")]
    if words[:2] == ["show", "job"]:
        known = local.record(words[2])
        if not known:
            sys.stderr.write("Invalid job id specified\n")
            return 1
        sys.stdout.write(
            f"JobId={words[2]} JobState={known['state']} Reason={known['reason']} "
            f"Restarts={known['restarts']} Partition=local "
            f"NodeList={socket.gethostname()} ExcNodeList=(null)\n"
        )
    elif words == ["show", "config"]:
        sys.stdout.write(f"KillWait                = {local.KILL_WAIT_SECONDS:.0f} sec\n")
    elif words[:2] == ["show", "node"]:
        sys.stdout.write(f"NodeName={words[2]} NodeAddr=127.0.0.1\n")
    elif words[:2] == ["show", "hostnames"]:
        sys.stdout.write("".join(f"{name}\n" for name in words[2].split(",")))
    elif words[:1] == ["requeue"]:
        local.request(words[1], "requeue")
    else:
        sys.stderr.write(f"{' '.join(arguments)}: not on a single machine\n")
        return 1
    return 0


def scancel(arguments: list[str]) -> int:
    """End jobs for good."""
    for job_id in arguments:
        local.request(job_id, "cancel")
    return 0


def sinfo(_arguments: list[str]) -> int:
    """The one node there is."""
    sys.stdout.write(f"{socket.gethostname()} idle\n")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "sbatch": sbatch,
    "srun": srun,
    "scontrol": scontrol,
    "scancel": scancel,
    "sinfo": sinfo,
}

if __name__ == "__main__":
    sys.exit(_COMMANDS[sys.argv[1]](sys.argv[2:]))
