"""Which sample belongs to which step, rank and worker: pure functions of plain numbers.

The order of an epoch depends on (seed, epoch) and the dataset alone, so the sequence of global batches
is the same on any number of ranks and workers; a rank takes a contiguous slice of each batch, a loader
worker a contiguous slice of its rank's.

How an epoch is shuffled is told in `mixing.py`; which samples it has, in `selection.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import UsageError
from hvc.pretrain.data.mixing import Shuffle as Shuffle
from hvc.pretrain.data.mixing import Streams
from hvc.pretrain.data.selection import Selection

Ids = NDArray[np.int64]
Remainder = Literal["short", "drop", "wrap"]


def steps_per_epoch(num_samples: int, batch_size: int, remainder: Remainder = "short") -> int:
    """Global batches in an epoch; UsageError if that is none."""
    if num_samples < 1:
        raise UsageError("an epoch without samples: the dataset is empty, or nothing of it is selected")
    if remainder == "drop" and num_samples < batch_size:
        raise UsageError(
            f"an epoch of {num_samples:,} samples has no full batch of {batch_size:,}, and the remainder "
            "is dropped; use a smaller batch_size, or another remainder"
        )
    return num_samples // batch_size if remainder == "drop" else -(-num_samples // batch_size)


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """This rank's part of a batch of `count`; parts differ by at most one sample."""
    share, rest = divmod(count, world_size)
    start = rank * share + min(rank, rest)
    return slice(start, start + share + (rank < rest))


class EpochOrder:
    """The order of one epoch, made piece by piece.

    Args:
        shard_sizes: samples of each shard, over all datasets.
        batch_size: samples of a global batch.
        seed: of the run.
        epoch: number of the epoch.
        shuffle: None for the order of the manifest, every epoch alike.
        remainder: what becomes of the samples that fill no batch. `short`: a smaller last batch.
            `drop`: left out, other ones each epoch. `wrap`: the last batch is filled up from the beginning
            of the same order, under further copy numbers (see `selection.py`).
        selection: virtual ids of the epoch, ascending; None: every sample once.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        shuffle: Shuffle | None,
        remainder: Remainder = "short",
        selection: Ids | None = None,
    ) -> None:
        starts = np.concatenate([[0], np.cumsum(np.asarray(shard_sizes, np.int64))])
        self.total = int(starts[-1])
        self.samples = self.total if selection is None else len(selection)
        self.steps = steps_per_epoch(self.samples, batch_size, remainder)
        self.batch_size, self.wraps = batch_size, remainder == "wrap"
        self._selection = selection
        self._streams: Streams | None = None
        if shuffle:
            edges = starts if selection is None else shard_edges(starts, selection)
            self._streams = Streams(edges, batch_size, shuffle, seed, epoch)

    @property
    def horizon(self) -> int:
        """Steps that a block's samples are spread over: who plans so far ahead sees blocks whole."""
        return self._streams.horizon if self._streams else 1

    def batch_samples(self, step: int) -> int:
        """Samples of the global batch of a step; only the last one may be smaller."""
        rest = self.samples - step * self.batch_size
        return self.batch_size if self.wraps else min(rest, self.batch_size)

    def batch(self, step: int) -> Ids:
        """Virtual ids of the global batch of a step in 0 .. steps-1."""
        return self.part(step, 0, self.batch_samples(step))

    def part(self, step: int, start: int, stop: int) -> Ids:
        """Positions start .. stop-1 of the batch; only the streams these belong to are touched."""
        rest = self.samples - step * self.batch_size  # samples of the batch that are not wrapped
        if stop <= max(rest, start):
            return self._ids(self._entries(step, start, stop))
        pieces = [self._ids(self._entries(step, start, rest))] if start < rest else []
        copies = 1 if self._selection is None else int(self._selection[-1]) // self.total + 1
        first = step * self.batch_size
        position, last = first + max(start, rest), first + stop
        while position < last:
            turn, place = divmod(position, self.samples)
            again, column = divmod(place, self.batch_size)
            length = min(last - position, self.samples - place, self.batch_size - column)
            entries = self._entries(again, column, column + length)
            pieces.append(self._ids(entries) + turn * copies * self.total)
            position += length
        return np.concatenate(pieces)

    def blocks_of(self, ids: Ids) -> Ids:
        """Number of the block that each virtual id of this epoch lies in; not shuffled, each is its own."""
        entries = ids if self._selection is None else np.searchsorted(self._selection, ids)
        return self._streams.blocks_of(entries) if self._streams else entries

    def _entries(self, step: int, start: int, stop: int) -> Ids:
        if self._streams:
            return self._streams.part(step, start, stop)
        return np.arange(step * self.batch_size + start, step * self.batch_size + stop)

    def _ids(self, entries: Ids) -> Ids:
        return entries if self._selection is None else self._selection[entries]


def shard_edges(starts: Ids, selection: Ids) -> Ids:
    """Positions in an ascending selection where shard or copy changes, with 0 and its length.

    Args:
        starts: [shards + 1] first sample of each shard, and the total.
        selection: [n] virtual ids.
    """
    total = int(starts[-1])
    copies = int(selection[-1]) // total + 1
    cuts = (np.arange(copies)[:, None] * total + starts[:-1]).ravel()
    return np.append(np.searchsorted(selection, cuts), len(selection))


class RankBatch(NamedTuple):
    """What one rank does in one step."""

    step: int
    epoch: int
    samples: Ids  # virtual ids, at least one
    weight: float  # factor on the local mean loss so that ranks average to the global mean


class Share(NamedTuple):
    """Where a rank's part of a step lies: positions start .. stop-1 of the batch of an epoch's step."""

    epoch: int
    number: int
    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class RunPlan:
    """All that decides the order of a run."""

    shard_sizes: tuple[int, ...]
    batch_size: int
    seed: int
    shuffle: Shuffle | None
    remainder: Remainder = "short"
    selection: Selection | None = None


class RunOrder:
    """The order of all epochs of a run. Steps count over the run, from 0."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.samples = plan.selection.length if plan.selection else sum(plan.shard_sizes)
        self.steps = steps_per_epoch(self.samples, plan.batch_size, plan.remainder)
        self._epochs: dict[int, EpochOrder] = {}

    def epoch(self, number: int) -> EpochOrder:
        """The order of an epoch; the two last used ones are kept (reading ahead crosses an epoch's end)."""
        order = self._epochs.pop(number, None) or self._make(number)
        self._epochs = dict([*self._epochs.items(), (number, order)][-2:])
        return order

    def share(self, step: int, rank: int, world_size: int) -> Share:
        """A rank's part of a step.

        A rank left without a sample (batch smaller than the world) computes the batch's first one with
        weight 0: every rank takes part in every collective, and the sample still counts once.
        """
        epoch, number = divmod(step, self.steps)
        left = self.samples - number * self.plan.batch_size
        count = self.plan.batch_size if self.plan.remainder == "wrap" else min(left, self.plan.batch_size)
        own = rank_slice(count, rank, world_size)
        weight = (own.stop - own.start) * world_size / count
        start, stop = (own.start, own.stop) if weight else (0, 1)
        return Share(epoch, number, start, stop, weight)

    def batch_of(self, step: int, rank: int, world_size: int) -> RankBatch:
        """A rank's samples of a step, and their weight."""
        share = self.share(step, rank, world_size)
        samples = self.epoch(share.epoch).part(share.number, share.start, share.stop)
        return RankBatch(step, share.epoch, samples, share.weight)

    def worker_part(self, step: int, rank: int, world_size: int, worker: int, workers: int) -> Ids:
        """Virtual ids that a loader worker reads for its rank; the workers' parts in order are the rank's.

        May be empty. 0 workers are one: the rank's own process.
        """
        share = self.share(step, rank, world_size)
        own = rank_slice(share.stop - share.start, worker, max(workers, 1))
        return self.epoch(share.epoch).part(share.number, share.start + own.start, share.start + own.stop)

    def _make(self, number: int) -> EpochOrder:
        plan = self.plan
        return EpochOrder(
            plan.shard_sizes,
            batch_size=plan.batch_size,
            seed=plan.seed,
            epoch=number,
            shuffle=plan.shuffle,
            remainder=plan.remainder,
            selection=plan.selection.epoch(number) if plan.selection else None,
        )
