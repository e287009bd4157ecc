"""The one line that an evaluation shows while it runs; a log gets a line now and then."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_SECONDS = 60.0
"""Time between two lines where there is no terminal."""
_log = logging.getLogger(__name__)


class FrameBar:
    """Counts frames over all processes."""

    def __init__(self, total: int, known: int, bar: "Progress | None" = None) -> None:
        """`known` of the `total` frames were done before."""
        self._total, self._known, self._done = total, known, 0
        self._begin = self._said = time.monotonic()
        self._bar = bar
        self._task = None if bar is None else bar.add_task("frames", total=total, completed=known, speed="")

    def advance(self, frames: int = 1) -> None:
        """So many more frames are labelled."""
        self._done += frames
        if self._bar is not None and self._task is not None:
            speed = f"{self._speed():.1f} frames/s"
            self._bar.update(self._task, completed=self._known + self._done, speed=speed)
        elif time.monotonic() - self._said >= LOG_SECONDS:
            self._said = time.monotonic()
            _log.info("%s", self.line())

    def take_back(self, frames: int) -> None:
        """A sequence was not finished: its frames count no more."""
        self._done -= frames

    def found(self, frames: int) -> None:
        """Somebody else has done so many; that says nothing of the speed here."""
        self._known += frames
        self.advance(0)

    def line(self) -> str:
        """The state in words: frames, speed, time left."""
        here = f"{self._known + self._done} of {self._total} frames, {self._speed():.1f} frames/s"
        left = self._total - self._known - self._done
        if not self._done:
            return here
        return f"{here}, {_clock(left / self._speed())} left"

    def _speed(self) -> float:
        return max(self._done, 0) / max(time.monotonic() - self._begin, 1e-9)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def frame_bar(total: int, known: int) -> Iterator[FrameBar]:
    """A bar on stderr where that is a terminal, else lines in the log."""
    if not sys.stderr.isatty():
        yield FrameBar(total, known)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield FrameBar(total, known, bar)
