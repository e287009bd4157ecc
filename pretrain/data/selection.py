"""Which samples an epoch has: a fixed subset, some frames of each video, datasets by weight.

Samples are numbered over all datasets of a run, one after the other, 0 .. total-1. A dataset of weight 2
comes twice in an epoch: what is selected are *virtual* ids, `copy * total + sample`, so that copies of a
sample get crops of their own. Every epoch of a run has the same length.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hvc.pretrain.data.permutation import Purpose, permutation, raw_bits

Ids = NDArray[np.int64]


def _no_runs() -> Ids:
    return np.zeros((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class Selection:
    """How the samples of an epoch are chosen; the parts apply in the order subset, frames, weights."""

    sizes: tuple[int, ...]
    """Samples of each dataset."""
    weights: tuple[float, ...] = ()
    """How often each dataset comes in an epoch, above 0; none given: once each."""
    subset: int | None = None
    """Number of samples that the run sees at all, drawn from all datasets."""
    frames_per_video: int | None = None
    """Most frames of a video in one epoch."""
    runs: Ids = field(default_factory=_no_runs)
    """int64 [videos, 2]: first sample and number of samples of each video, ascending."""
    seed: int = 0

    @property
    def total(self) -> int:
        """Samples of all datasets."""
        return sum(self.sizes)

    @cached_property
    def base(self) -> Ids | None:
        """The run's samples, ascending; None: all of them."""
        if self.subset is None or self.subset >= self.total:
            return None
        return subset(self.total, self.subset, self.seed)

    @cached_property
    def base_runs(self) -> Ids:
        """The videos as runs of positions in `base`; the same shape as `runs`."""
        if self.base is None:
            return self.runs
        ends = np.stack([self.runs[:, 0], self.runs.sum(axis=1)], axis=1)
        found = np.searchsorted(self.base, ends)
        return np.stack([found[:, 0], found[:, 1] - found[:, 0]], axis=1)

    @cached_property
    def kept_sizes(self) -> tuple[int, ...]:
        """Samples of each dataset that an epoch has, before weights."""
        ends = np.cumsum([0, *self.sizes])
        if self.base is not None:
            ends = np.searchsorted(self.base, ends)
        sizes = np.diff(ends)
        if self.frames_per_video is not None:
            surplus = np.maximum(self.base_runs[:, 1] - self.frames_per_video, 0)
            dataset = np.searchsorted(ends, self.base_runs[:, 0], side="right") - 1
            # A video without a sample in the subset may point behind the last dataset; its surplus is 0.
            np.subtract.at(sizes, np.minimum(dataset, len(sizes) - 1), surplus)
        return tuple(int(size) for size in sizes)

    @cached_property
    def length(self) -> int:
        """Samples of an epoch, the same in every epoch."""
        weights = self.weights or (1.0,) * len(self.sizes)
        shares = zip(self.kept_sizes, weights, strict=True)
        return sum(size * int(weight) + fraction_size(size, weight) for size, weight in shares)

    def epoch(self, epoch: int) -> Ids | None:
        """Virtual ids of an epoch, int64 [length], ascending; None: every sample once."""
        kept = self.base
        if self.frames_per_video is not None and len(self.runs):
            count = self.total if kept is None else len(kept)
            frames = frames_per_video(self.base_runs, count, self.frames_per_video, self.seed, epoch)
            kept = frames if kept is None else kept[frames]
        positions = weighted(self.kept_sizes, self.weights, self.seed, epoch) if self.weights else None
        if positions is None or kept is None:
            return kept if positions is None else positions
        copy, position = np.divmod(positions, len(kept))
        return copy * self.total + kept[position]


def subset(total: int, count: int, seed: int) -> Ids:
    """`count` of `total` samples, ascending; a smaller subset of the same seed lies within a larger one."""
    if count >= total:
        return np.arange(total)
    if count <= 0:
        return np.zeros(0, np.int64)
    bits = raw_bits(total, Purpose.SUBSET, seed)
    return np.flatnonzero(bits <= np.partition(bits, count - 1)[count - 1])[:count]


def frames_per_video(runs: Ids, total: int, limit: int, seed: int, epoch: int) -> Ids:
    """At most `limit` frames of each video, drawn anew each epoch; single images all stay.

    Args:
        runs: int64 [videos, 2], first sample and number of samples of each video, not overlapping.
        total: number of samples; those outside of `runs` are single images.
        limit: most frames of a video, at least 1.
        seed: of the run.
        epoch: number of the epoch.

    Returns:
        The samples, ascending; in every epoch as many.
    """
    long = runs[runs[:, 1] > limit]
    counts = long[:, 1]
    # rank: place of a frame among the frames of its video; frame: its sample number
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    frame = np.repeat(long[:, 0], counts) + rank
    bits = raw_bits(len(frame), Purpose.FRAMES, seed, epoch)
    drawn = np.lexsort((bits, np.repeat(np.arange(len(long)), counts)))  # video after video, mixed inside
    keep = np.ones(total, np.bool_)
    keep[frame[drawn[rank >= limit]]] = False
    return np.flatnonzero(keep)


def weighted(sizes: tuple[int, ...], weights: tuple[float, ...], seed: int, epoch: int) -> Ids | None:
    """Each dataset as often as its weight says, as virtual ids; None: everything once.

    The integer part of a weight gives whole copies. Of its fraction every epoch takes the next part of a
    permutation that is fixed for the run, so after any number of epochs two samples of a dataset differ
    by one appearance at most.

    Returns:
        `copy * sum(sizes) + sample`, ascending.
    """
    if all(weight == 1 for weight in weights):
        return None
    total, starts = sum(sizes), np.cumsum([0, *sizes])
    pieces: list[Ids] = []
    for copy in range(int(max(weights)) + 1):
        for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            if copy < int(weight):
                part = np.arange(size)
            elif copy == int(weight):
                part = _rotating(size, fraction_size(size, weight), seed, number, epoch)
            else:
                continue
            pieces.append(copy * total + starts[number] + part)
    return np.concatenate(pieces)


def fraction_size(size: int, weight: float) -> int:
    """Samples that the fraction of a weight takes of a dataset; a weight below 1 takes at least one."""
    count = int(size * (weight - int(weight)) + 0.5)
    return max(count, 1) if 0 < weight < 1 and size else count


def _rotating(size: int, count: int, seed: int, number: int, epoch: int) -> Ids:
    if count == 0:
        return np.zeros(0, np.int64)
    places = (np.arange(count) + epoch * count) % size
    chosen = np.zeros(size, np.bool_)
    chosen[permutation(size, Purpose.WEIGHTS, seed, number)[places]] = True
    return np.flatnonzero(chosen)
