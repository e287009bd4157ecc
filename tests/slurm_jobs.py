"""Jobs on the test cluster and their processes, which all run on this machine."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from running import clean_env, hvc_json

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


def processes_of(job_id: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Everything that belongs to a job, with its environment, whichever attempt started it."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("SLURM_JOB_ID") == job_id:
            yield process, environment


def ranks_of(job_id: str) -> dict[int, psutil.Process]:
    """The processes that run the stage now, by rank."""
    found = {}
    for process, environment in processes_of(job_id):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "submitit.core._submit" in command and "python" in command[0]:
            found[int(environment["SLURM_PROCID"])] = process
    return found


def left_over(job_id: str, patience: float = 20) -> list[psutil.Process]:
    """Processes of a job that are still there a little after its end."""
    end = time.monotonic() + patience
    while (found := [process for process, _ in processes_of(job_id)]) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def until(ready: Callable[[], Any], what: str, timeout: float = 240) -> None:
    """Wait until something is so; AssertionError names what did not happen."""
    end = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < end, f"did not happen: {what}"
        time.sleep(0.1)


def logs(folder: Path) -> str:
    """All words of a submission's attempts."""
    paths = [*sorted(folder.glob("logs/*.out")), *sorted(folder.glob("logs/**/rank-*.log"))]
    return "\n".join(f"--- {path.relative_to(folder)}\n{path.read_text()}" for path in paths)


class TrainingJob:
    """One `hvc submit train` on a cluster."""

    def __init__(self, cluster: Any, recipe: Path, env: dict[str, str], **shape: Any) -> None:
        self.cluster, self.output = cluster, recipe.with_suffix("")
        file = recipe.with_name("mini.json")
        described = {"name": "mini", "partition": "batch", "time_minutes": 30, "grace_seconds": 30, **shape}
        file.write_text(json.dumps(described | {"environment": {"OMP_NUM_THREADS": "1"}}))
        words = ("submit", "train", str(recipe), "--cluster", str(file))
        answer = hvc_json(*words, cwd=recipe.parent, **(clean_env() | cluster.env | env))
        self.job_id, self.folder = str(answer["job_id"]), Path(answer["folder"])

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The journal's lines of a kind."""
        path = self.output / "journal.jsonl"
        whole = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [json.loads(line) for line in whole if line.endswith("\n")]
        return [line for line in lines if line["kind"] == kind]

    def steps(self) -> list[int]:
        """Steps that have metrics, in the order of the journal."""
        return [line["step"] for line in self.lines("metrics") if "train/loss" in line["values"]]

    def wait_for_step(self, step: int, timeout: float = 180) -> None:
        """Until a step is recorded."""
        until(lambda: max(self.steps(), default=0) >= step, f"step {step}\n{logs(self.folder)}", timeout)

    def attempts(self) -> list[dict[str, Any]]:
        """The records of its attempts, in order."""
        paths = sorted(
            self.folder.glob("attempts/attempt-*.json"), key=lambda path: (len(path.name), path.name)
        )
        return [json.loads(path.read_text()) for path in paths]

    def wait_for_attempt(self, number: int, timeout: float = 240) -> None:
        """Until an attempt has begun."""
        path = self.folder / "attempts" / f"attempt-{number}.json"
        until(path.exists, f"attempt {number}\n{logs(self.folder)}", timeout)

    def finish(self, timeout: float = 300) -> None:
        """Until it is done."""
        state = self.cluster.wait(self.job_id, ENDED, timeout=timeout)["JobState"]
        assert state == "COMPLETED", logs(self.folder)
