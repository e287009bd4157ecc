"""What a run has already put into its journal, so that nothing is put there twice."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvc.pretrain.tracking.journal import read_lines


@dataclass
class JournalState:
    """What is in a journal; kept up to date by whoever adds to it."""

    header: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    last_step: dict[str, int] = field(default_factory=dict)
    """Highest step by metric name."""
    checkpoints: set[tuple[int, str]] = field(default_factory=set)
    """Step and sha256."""
    files: set[str] = field(default_factory=set)
    """Pictures and other files, by name."""
    pictures: dict[str, str] = field(default_factory=dict)
    """File of the newest picture by kind."""
    newest: dict[str, Any] | None = None
    """Record of the newest checkpoint."""
    status: str | None = None
    """Of the last attempt's end; None while one goes on."""

    @classmethod
    def of(cls, path: Path) -> "JournalState":
        """Read a journal, if there is one."""
        state = cls()
        for content, _ in read_lines(path):
            state.add(content)
        return state

    def add(self, line: dict[str, Any]) -> None:
        """Take one line into account."""
        kind = line["kind"]
        if kind == "metrics":
            for name in line["values"]:
                self.last_step[name] = max(line["step"], self.last_step.get(name, line["step"]))
        elif kind == "journal":
            self.header = self.header or line
        elif kind == "attempt":
            self.attempts.append(line)
            self.status = None
        elif kind == "checkpoint":
            record = line["record"]
            self.checkpoints.add((record["step"], record["sha256"]))
            if self.newest is None or record["step"] >= self.newest["step"]:
                self.newest = record
        elif kind in ("picture", "artifact"):
            self.files.add(line["file"])
            if kind == "picture":
                self.pictures[line["name"]] = line["file"]
        elif kind == "state":
            self.status = line["status"]

    def fresh(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """The values that the journal does not have for this step or a later one.

        After a restart or a roll-back steps are made again; what was recorded of them stays.
        """
        return {name: value for name, value in values.items() if step > self.last_step.get(name, -1)}
