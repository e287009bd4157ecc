"""Runs a job's script on this machine as Slurm would, for clusters' files with `executor: local`.

The script, its ranks and what follows them are the same as on a cluster. Only the commands that they call
(`srun`, `scontrol`, `scancel`, `sinfo`; and `sbatch` on submission) are those of `local_commands`. A job's
id is the id of the process that looks after it, which outlives the shell that it was submitted in.
"""

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from hvc.base.files import read_json, write_atomic
from hvc.slurm.job_index import index_file
from hvc.slurm.script import sbatch_options

COMMANDS = ("sbatch", "srun", "scontrol", "scancel", "sinfo")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
_BY_NAME, _RUNNER = "hvc.slurm.local_commands", "hvc.slurm.local"
_POLL_SECONDS = 0.1
_WISHES = {"requeue": "REQUEUED", "cancel": "CANCELLED"}
KILL_WAIT_SECONDS = 30.0
"""Between SIGTERM and SIGKILL when a job is ended."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Options:
    """What the runner obeys of a script's `#SBATCH` lines."""

    tasks: int
    cpus_per_task: int
    seconds: float
    signal: signal.Signals
    grace_seconds: float
    output: str
    array: list[int | None]
    """Tasks of an array, which run one after another; [None] is no array."""
    dependency: str | None

    @classmethod
    def of(cls, script: str) -> "Options":
        """Read a script that `plan` made."""
        values = sbatch_options(script)
        name, _, grace = values["signal"].partition("@")
        array = re.match(r"0-(\d+)", values.get("array", ""))
        return cls(
            tasks=int(values["ntasks-per-node"]),
            cpus_per_task=int(values["cpus-per-task"]),
            seconds=60 * float(values["time"]),
            signal=signal.Signals[f"SIG{name}"],
            grace_seconds=float(grace),
            output=values["output"],
            array=list(range(int(array[1]) + 1)) if array else [None],
            dependency=values.get("dependency"),
        )


def state_folder() -> Path:
    """Where jobs of this machine are on record."""
    return index_file().parent / "local"


def record(job_id: str) -> dict[str, str]:
    """`state` and `reason` in Slurm's words, `restarts` and `since` (unix time) of a job.

    Empty where there is none.
    """
    return {key: str(value) for key, value in (read_json(state_folder() / f"{job_id}.json") or {}).items()}


def state_of(job_id: str) -> str | None:
    """A job's state in Slurm's words; None where it has not ended, and what looks after it is gone."""
    state = record(job_id).get("state")
    return state if state in ENDED or _is_runner(int(job_id.partition("_")[0])) else None


def _is_runner(process_id: int) -> bool:
    """Whether that process looks after a job: ids come again, e.g. after a restart."""
    try:
        return _RUNNER in psutil.Process(process_id).cmdline()
    except psutil.Error:
        return False


def request(job_id: str, what: str) -> None:
    """Ask the runner of a job for `requeue` or `cancel`."""
    write_atomic(_wish(job_id), what)


def _wish(job_id: str) -> Path:
    return state_folder() / f"{job_id}.request"


def _is_cancelled(job_id: str) -> bool:
    return _wish(job_id).exists() and _wish(job_id).read_text() == "cancel"


def output_of(pattern: str, environment: Mapping[str, str]) -> Path:
    """The file that `--output` names in a job, or in a task of an array."""
    names = {"%j": "SLURM_JOB_ID", "%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID"}
    for sign, name in names.items():
        pattern = pattern.replace(sign, environment.get(name, ""))
    return Path(pattern)


def commands_in(folder: Path) -> Path:
    """Where the commands of a local submission are; one that went to Slurm has no such folder."""
    return folder / "local-bin"


def write_commands(folder: Path) -> Path:
    """A folder, below the submission's, of commands by Slurm's names."""
    place = commands_in(folder)
    place.mkdir(exist_ok=True)
    for name in COMMANDS:
        path = place / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {_BY_NAME} {name} "$@"\n')
        path.chmod(0o755)
    return place


def start(script: Path, folder: str | None = None) -> str:
    """Begin to run a script, in the background and in a folder, by default this one; the job's id."""
    begin = time.time()
    runner = subprocess.Popen(
        [sys.executable, "-m", _RUNNER, str(script.absolute())],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    job_id = str(runner.pid)
    while float(record(job_id).get("since", 0)) < begin and runner.poll() is None:  # process ids come again
        time.sleep(_POLL_SECONDS / 10)
    return job_id


def die_with_parent() -> None:
    """In a child before it begins: nothing of a job outlives what looks after it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Runner:
    """Looks after one job, or the tasks of an array one after another."""

    def __init__(self, script: Path) -> None:
        self.script, self.options = script, Options.of(script.read_text())
        self.since, self.asked_to_stop = time.time(), False
        self.group: int | None = None
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGTERM, self._pass_on)

    def run(self) -> None:
        """From waiting for other jobs to the end of the last attempt."""
        me = str(os.getpid())
        ids = [me if task is None else f"{me}_{task}" for task in self.options.array]
        for job_id in dict.fromkeys([*ids, me]):
            _wish(job_id).unlink(missing_ok=True)  # of an earlier process with this id
            self._note(job_id, "PENDING")
        begins, state = self._wait_for_others(ids), "COMPLETED"
        for job_id, task in zip(ids, self.options.array, strict=True):
            own = self._task(job_id, task) if begins and self._corresponding_done(task) else "CANCELLED"
            state = own if own != "COMPLETED" else state
            self._note(job_id, own, int(record(job_id)["restarts"]))
        self._note(me, state, int(record(me)["restarts"]))

    def _others(self) -> list[tuple[str, str]]:
        """(kind, job) of all that it depends on."""
        words = [word.partition(":") for word in (self.options.dependency or "").split(",")]
        return [(kind, job_id) for kind, _, ids in words for job_id in ids.split(":") if job_id]

    def _wait_for_others(self, ids: list[str]) -> bool:
        """Whether the jobs that it depends on have ended, and as it wants; False where it is cancelled."""
        for kind, job_id in self._others():
            while (state := state_of(job_id) or "FAILED") not in ENDED:
                if self.asked_to_stop or all(map(_is_cancelled, ids)):
                    return False
                time.sleep(_POLL_SECONDS)
            if kind == "afterok" and state != "COMPLETED":
                return False
        return True

    def _corresponding_done(self, task: int | None) -> bool:
        """Of `aftercorr`: whether the task of the same number is done."""
        ids = [job_id for kind, job_id in self._others() if kind == "aftercorr"]
        return all(record(f"{job_id}_{task}").get("state") == "COMPLETED" for job_id in ids)

    def _task(self, job_id: str, task: int | None) -> str:
        restarts = 0
        while not _is_cancelled(job_id):
            self._note(job_id, "RUNNING", restarts)
            state = self._attempt(job_id, task, restarts)
            if state != "REQUEUED":
                return state
            _wish(job_id).unlink()
            restarts += 1
        return "CANCELLED"

    def _attempt(self, job_id: str, task: int | None, restarts: int) -> str:
        environment = self._environment(task, restarts)
        with output_of(self.options.output, environment).open("ab") as log:
            shell = subprocess.Popen(
                ["bash", str(self.script)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.group, begin, warned = shell.pid, time.monotonic(), False
        wish = _wish(job_id)
        while True:
            code = shell.poll()
            if wish.exists():
                self._end()
                return _WISHES[wish.read_text()]
            if code is not None:
                self._end()
                return "COMPLETED" if code == 0 else "FAILED"
            passed = time.monotonic() - begin
            if passed > self.options.seconds:
                self._note(job_id, "RUNNING", restarts, reason="TimeLimit")
                self._end()
                return _WISHES[wish.read_text()] if wish.exists() else "TIMEOUT"
            if not warned and passed > self.options.seconds - self.options.grace_seconds:
                warned = True
                self._signal(self.options.signal)
            time.sleep(_POLL_SECONDS)

    def _environment(self, task: int | None, restarts: int) -> dict[str, str]:
        me = str(os.getpid())
        ours = {
            "SLURM_JOB_ID": me,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": socket.gethostname(),
            "SLURM_NTASKS": str(self.options.tasks),
            "SLURM_CPUS_PER_TASK": str(self.options.cpus_per_task),
            "SLURM_RESTART_COUNT": str(restarts),
            "PATH": f"{commands_in(self.script.parent)}:{os.environ.get('PATH', '')}",
        }
        if task is not None:
            ours |= {"SLURM_ARRAY_JOB_ID": me, "SLURM_ARRAY_TASK_ID": str(task)}
        others = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return others | ours

    def _pass_on(self, number: int, _frame: object) -> None:
        self.asked_to_stop = True
        self._signal(signal.Signals(number))

    def _signal(self, number: signal.Signals) -> None:
        """To the ranks alone, as Slurm does; the script has to outlive them."""
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
                os.kill(int((state_folder() / f"{self.group}.srun").read_text()), number)

    def _end(self) -> None:
        """End what is left of the attempt."""
        assert self.group is not None
        end = time.monotonic() + KILL_WAIT_SECONDS
        number = signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, number)
            while self._reap():
                if time.monotonic() > end:
                    os.killpg(self.group, signal.SIGKILL)
                time.sleep(_POLL_SECONDS)
        (state_folder() / f"{self.group}.srun").unlink(missing_ok=True)
        self.group = None

    def _note(self, job_id: str, state: str, restarts: int = 0, reason: str = "None") -> None:
        values = {"state": state, "restarts": restarts, "since": self.since, "reason": reason}
        write_atomic(state_folder() / f"{job_id}.json", json.dumps(values))

    def _reap(self) -> bool:
        """Take leave of processes that have ended; whether one is left."""
        assert self.group is not None
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.group, os.WNOHANG)[0]:
                pass
        os.killpg(self.group, 0)
        return True


if __name__ == "__main__":
    Runner(Path(sys.argv[1])).run()
