"""What a run says of its progress while it goes: a moving line on a terminal, plain lines in a log."""

import logging
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hvc.pretrain.tracking.runs import duration

FIRST_GAP, LONGEST_GAP = 5.0, 60.0
"""Seconds between two lines in a log, doubled with each up to the longest: soon a first sign of life, and
a log of days that can still be read."""
_log = logging.getLogger(__name__)


class ProgressLine:
    """Step, loss, speed and time left; only where `visible`, which is rank 0's.

    Args:
        total: steps of the run.
        done: steps that earlier attempts made.
        visible: whether to say anything.
    """

    def __init__(self, total: int, done: int, visible: bool) -> None:
        console = Console(stderr=True)
        self._total, self._done = total, done
        self._plain = visible and not console.is_terminal
        self._begin, self._gap, self._next = time.monotonic(), FIRST_GAP, 0.0
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (visible and console.is_terminal),
        )
        self._task = self._progress.add_task("training", total=total, completed=done, figures="")

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: int, values: dict[str, float]) -> None:
        """Show step, loss and speed; in a log only if it is time for a line, and after the last step."""
        speed = values["perf/images_per_second"]
        loss = f"loss {values['train/loss']:+.3f}, " if "train/loss" in values else ""
        figures = f"{loss}{speed:,.0f} images/s"
        self._progress.update(self._task, completed=step, figures=figures)
        passed = time.monotonic() - self._begin
        if self._plain and (passed >= self._next or step == self._total):
            _log.info("%s", self._sentence(step, figures, passed))
            self._next, self._gap = passed + self._gap, min(2 * self._gap, LONGEST_GAP)

    def _sentence(self, step: int, figures: str, passed: float) -> str:
        said = f"step {step:,}/{self._total:,} ({100 * step // self._total} %), {figures}"
        left = passed / max(step - self._done, 1) * (self._total - step)
        return f"{said}, {duration(left)} left" if left else said
