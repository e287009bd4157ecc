"""What a run says of itself while it goes: averages between two records, and one line of progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from hvc.pretrain.batch import Batch
from hvc.pretrain.indexes import Counts
from hvc.pretrain.network import StepLoss

_NAMES = ("train/loss", "train/static", "train/dynamic", "train/positive_pairs")


class Meter:
    """Sums over the steps since the last record; figures stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._images = 0
        self._waited = 0.0
        self._counts = np.zeros(len(Counts.NAMES))
        self._steps = 0
        self._start = time.monotonic()

    def add(self, batch: Batch, loss: StepLoss) -> None:
        """Count one step of this rank."""
        own = len(batch.plan.samples) if batch.plan.weight else 0
        values = torch.stack([loss.total.detach(), loss.static, loss.dynamic, loss.positives]).double()
        self._sums = values * own if self._sums is None else self._sums + values * own
        self._images += own
        self._steps += 1
        self._waited += batch.waited
        self._counts += batch.counts

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock, so that saving does not count as slow training."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def result(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over all images of all ranks, and the speed of the whole run in images/s."""
        assert self._sums is not None
        own = torch.tensor([1, self._images, self._waited, *self._counts], dtype=torch.float64)
        totals = sum_over_ranks(torch.cat([self._sums.cpu(), own])).tolist()
        sums, (ranks, images, waited), counts = totals[:4], totals[4:7], totals[7:]
        seconds = max(time.monotonic() - self._start, 1e-9)
        values = {name: total / images for name, total in zip(_NAMES, sums, strict=True)}
        return (
            values
            | _reading(dict(zip(Counts.NAMES, counts, strict=True)))
            | {
                "perf/images_per_second": images / seconds,
                "perf/step_seconds": seconds / self._steps,
                "data/wait_share": waited / ranks / seconds,
            }
        )


def _reading(counts: dict[str, float]) -> dict[str, float]:
    """What reading from object storage cost since the last record, over all ranks."""
    values = {
        "data/fetched_mb": counts["bytes"] / 1e6,
        "data/requests": counts["requests"],
        "data/retries": counts["retries"],
        "data/refetches": counts["refetches"],
    }
    asked = counts["cache_hits"] + counts["cache_misses"]
    return values | {"data/cache_hit_rate": counts["cache_hits"] / asked} if asked else values


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
