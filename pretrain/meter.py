"""What a run says of itself while it goes: averages between two records, and one line of progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from hvc.pretrain.network import StepLoss
from hvc.pretrain.order import RankBatch

_NAMES = ("train/loss", "train/static", "train/dynamic", "train/positive_pairs")


class Meter:
    """Sums over the steps since the last record; figures stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._images = 0
        self._steps = 0
        self._start = time.monotonic()

    def add(self, plan: RankBatch, loss: StepLoss) -> None:
        """Count one step of this rank."""
        own = len(plan.samples) if plan.weight else 0
        values = torch.stack([loss.total.detach(), loss.static, loss.dynamic, loss.positives]).double()
        self._sums = values * own if self._sums is None else self._sums + values * own
        self._images += own
        self._steps += 1

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock, so that saving does not count as slow training."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def result(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over all images of all ranks, and the speed of the whole run in images/s."""
        assert self._sums is not None
        local = torch.cat([self._sums.cpu(), torch.tensor([self._images], dtype=torch.float64)])
        *sums, images = sum_over_ranks(local).tolist()
        seconds = max(time.monotonic() - self._start, 1e-9)
        values = {name: total / images for name, total in zip(_NAMES, sums, strict=True)}
        return values | {
            "perf/images_per_second": images / seconds,
            "perf/step_seconds": seconds / self._steps,
        }


class ProgressLine:
    """One line on a terminal; nothing elsewhere."""

    def __init__(self, total: int, done: int, visible: bool) -> None:
        console = Console(stderr=True)
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
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: int, values: dict[str, float]) -> None:
        """Show step, loss and speed."""
        speed = values["perf/images_per_second"]
        figures = f"loss {values['train/loss']:+.3f}, {speed:.0f} images/s"
        self._progress.update(self._task, completed=step, figures=figures)
