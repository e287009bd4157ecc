"""Corrupt samples of a run: named, counted, and when there are too many, the end of it."""

import logging
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.pretrain.data.batch import Batch

LINES = 20
"""So many are named per process; the rest is counted."""
_log = logging.getLogger(__name__)


def allowed(max_bad: float, epoch_samples: int) -> int:
    """How many corrupt samples an epoch may have: a share below 1 of its samples, or a count."""
    return int(max_bad) if max_bad >= 1 else math.ceil(max_bad * epoch_samples)


class BadSamples:
    """Counts the corrupt samples that this rank met, by epoch."""

    def __init__(self, limit: int, rank: int) -> None:
        self._limit, self._rank = limit, rank
        self._counts: Counter[int] = Counter()
        self._named: set[str] = set()
        self._checked = -1
        self._met = 0
        """Batches of the order, from its beginning, that were met or left out."""

    def add(self, batch: Batch) -> None:
        """Name and count the corrupt samples of a batch, and pass on what its loaders have to say."""
        if batch.plan.step >= self._met:  # else met again after going back
            self._counts[batch.plan.epoch] += len(batch.bad) if batch.plan.weight else 0
            self._met = batch.plan.step + 1
        for bad in batch.bad:
            self._name(f"{bad.reason}; the next of its shard stands in for it")
        for note in {part.note for part in batch.parts if part.note}:
            if note not in self._named:
                self._named.add(note)
                _log.warning("rank %d: %s", self._rank, note)

    def check(self, epoch: int, sum_over_ranks: Callable[[Tensor], Tensor]) -> int:
        """Corrupt samples of this epoch on all ranks so far; HvcError when an epoch has too many.

        Every rank must call it at the same step.
        """
        epochs = range(max(self._checked, 0), epoch + 1)
        totals = sum_over_ranks(torch.tensor([self._counts[each] for each in epochs], dtype=torch.float64))
        self._checked = epoch
        worst = int(totals.max())
        if worst > self._limit:
            raise HvcError(
                f"an epoch has {worst} corrupt samples, {self._limit} are allowed (stream.max_bad), "
                "named above. `hvc verify --repair` makes their shards anew; or raise the limit"
            )
        return int(totals[-1])

    def _name(self, text: str) -> None:
        if len(self._named) < LINES and text not in self._named:
            self._named.add(text)
            _log.warning("rank %d: %s", self._rank, text)
            if len(self._named) == LINES:
                _log.warning("rank %d: further corrupt samples are only counted", self._rank)
