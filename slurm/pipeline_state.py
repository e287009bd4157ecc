"""What a pipeline knows of itself: `pipeline.json` in its folder, written whole before and after each
submission, so that the same command goes on wherever it was killed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic
from hvc.slurm import local
from hvc.slurm.known_jobs import KnownJob
from hvc.slurm.pipeline_plan import Batch, Task
from hvc.slurm.submission import FILE as NOTED

FILE = "pipeline.json"
_VERSION = 1
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


@dataclass(frozen=True)
class Sent:
    """One batch that was, or was about to be, submitted."""

    folder: str
    """Its submission folder, that of no other batch."""
    keys: tuple[str, ...]
    """Its tasks, in the order of an array."""
    digests: tuple[str, ...]
    role: str
    job_id: str | None = None
    """Slurm's id; None: killed before it was known."""

    @classmethod
    def of(cls, batch: Batch, folder: Path) -> Self:
        """Before it is submitted."""
        keys, digests = zip(*((task.key, task.digest) for task in batch.tasks), strict=True)
        return cls(str(folder), keys, digests, batch.role)

    def reference(self, index: int) -> str:
        """Slurm's id of a task."""
        return f"{self.job_id}_{index}" if len(self.keys) > 1 else str(self.job_id)


@dataclass
class PipelineState:
    """All of it."""

    run_key: str = ""
    """Names the run at MLflow before a server does."""
    run_id: str | None = None
    """Of the run that holds the others together."""
    tracking_uri: str | None = None
    """As it may be shown."""
    tasks: list[Task] = field(default_factory=list)
    """As planned by the last command."""
    sent: list[Sent] = field(default_factory=list)
    """Oldest first."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The state in a pipeline's folder, a new one where there is none; HvcError for another version."""
        path = folder / FILE
        values = read_json(path)
        if values is None:
            if path.exists():
                raise HvcError(f"{path} is not readable as JSON; move it away to begin anew: outputs stay")
            return cls()
        if values.pop("version", None) != _VERSION:
            raise HvcError(f"{path} is of another version of hvc; use that one, or another `folder`")
        values["tasks"] = [Task(**task) for task in values["tasks"]]
        values["sent"] = [Sent(**{k: _tuple(v) for k, v in one.items()}) for one in values["sent"]]
        return cls(**values)

    def write(self, folder: Path) -> None:
        """Write it, whole."""
        write_atomic(folder / FILE, json.dumps({"version": _VERSION, **asdict(self)}, indent=1) + "\n")

    def refresh(self, known: Mapping[str, KnownJob]) -> None:
        """Ids as they are now: a job submitted again has another one, and a kill can keep one from here.

        Batches that were never submitted go.
        """
        self.sent = [found for one in self.sent if (found := _found(one, known)) is not None]

    def local_jobs(self) -> dict[str, KnownJob]:
        """What is on record of those that run on this machine, without Slurm."""
        ids = [
            one.reference(index)
            for one in self.sent
            if one.job_id and local.commands_in(Path(one.folder)).is_dir()
            for index in range(len(one.keys))
        ]
        return {job_id: KnownJob(job_id, local.state_of(job_id) or "FAILED") for job_id in ids}

    def live(self, tasks: Iterable[Task], known: Mapping[str, KnownJob]) -> dict[str, str]:
        """Slurm's ids of the tasks that are queued or running just as they are now, by key."""
        digests = {task.key: task.digest for task in tasks}
        return {key: job_id for key, digest, job_id in self._at_work(known) if digests.get(key) == digest}

    def outdated(self, tasks: Iterable[Task], known: Mapping[str, KnownJob]) -> dict[str, str]:
        """The same of work that nobody wants any more: its config or input has changed since."""
        digests = {task.key: task.digest for task in tasks}
        work = [*self._at_work(known), *self._parts_at_work(known)]
        return {job_id: key for key, digest, job_id in work if digests.get(key) != digest}

    def last_of(self, task: Task) -> tuple[Sent, str] | None:
        """The last submission that was to finish a task, and Slurm's id of it."""
        for one in reversed(self.sent):
            if one.role != "parts" and one.job_id and task.digest in one.digests:
                return one, one.reference(one.digests.index(task.digest))
        return None

    def _at_work(self, known: Mapping[str, KnownJob]) -> list[tuple[str, str, str]]:
        found = []
        for one in self.sent:
            if one.role == "parts" or one.job_id is None:
                continue
            for index, (key, digest) in enumerate(zip(one.keys, one.digests, strict=True)):
                job = known.get(one.reference(index))
                if job and job.state not in _ENDED and job.belongs_to(Path(one.folder)):
                    found.append((key, digest, one.reference(index)))
        return found

    def _parts_at_work(self, known: Mapping[str, KnownJob]) -> list[tuple[str, str, str]]:
        """An array whose tasks are parts of one: by its own id."""
        alive = [job for job in known.values() if job.state not in _ENDED]
        return [
            (one.keys[0], one.digests[0], one.job_id)
            for one in self.sent
            if one.role == "parts" and one.job_id
            if any(
                job.job_id.partition("_")[0] == one.job_id and job.belongs_to(Path(one.folder))
                for job in alive
            )
        ]


def _found(one: Sent, known: Mapping[str, KnownJob]) -> Sent | None:
    folder = Path(one.folder)
    noted = (read_json(folder / NOTED) or {}).get("job_id") or one.job_id
    if noted is not None:
        return replace(one, job_id=str(noted))
    ids = [path.name.partition("_")[0] for path in folder.glob("*_submission.sh")]  # named so by then
    ids += [
        job.job_id.partition("_")[0] for job in known.values() if job.command and job.belongs_to(folder)
    ]
    return replace(one, job_id=ids[0]) if ids else None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
