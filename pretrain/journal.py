"""`metrics.jsonl`: what a run measured, on disk before anybody else is told."""

import json
import time
from pathlib import Path


class Journal:
    """`metrics.jsonl`: one line per record, the truth about a run's metrics."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Drop records after `step`: they are about to be made again."""
        kept = [record for record in self.records() if record["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        temporary.replace(self.path)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add one record."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")

    def records(self) -> list[dict[str, float]]:
        """All whole records (a killed run may leave half a last line)."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().split("\n")
        return [json.loads(line) for line in lines if line.endswith("}")]
