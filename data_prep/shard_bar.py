"""The one line that sharding shows while it runs, if somebody is looking."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hvc.data_prep.writer import ShardRecord

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ShardBar:
    """Counts what is done; shows it on `bar`, unless that is None."""

    def __init__(self, bar: "Progress | None") -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._begin = time.monotonic()
        self._images = self._bytes = self._rejects = 0

    def begin(self, doing: str, unit: str, total: int) -> None:
        """From now on something else is done, `total` of it."""
        self._begin = time.monotonic()
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(doing, total=total, unit=unit, speed="")

    def advance(self, count: int = 1) -> None:
        """So much of it is done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)

    def made(self, record: ShardRecord) -> None:
        """A shard is in place, made by this run."""
        self._rejects += len(record.rejects)
        if record.shard is not None:
            self._images += record.shard.samples
            self._bytes += record.shard.bytes
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, speed=self._speed())
        self.advance()

    def _speed(self) -> str:
        seconds = max(time.monotonic() - self._begin, 1e-9)
        return (
            f"{self._images / seconds:,.0f} images/s  {self._bytes / seconds / 1e6:,.1f} MB/s  "
            f"{self._rejects} rejected"
        )


@contextmanager
def shard_bar() -> Iterator[ShardBar]:
    """A bar on stderr where that is a terminal, else one that shows nothing."""
    if not sys.stderr.isatty():
        yield ShardBar(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[unit]}  {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield ShardBar(bar)
