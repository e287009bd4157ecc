"""How well an order mixes, measured beside a uniform shuffle, and what it costs to read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hvc.pretrain.data.order import EpochOrder, rank_slice
from hvc.pretrain.data.permutation import Purpose, permutation

Ids = NDArray[np.int64]
NEIGHBOURS = 16
"""Samples of a shard in a row that count as neighbours, whatever the order's own blocks are."""


@dataclass(frozen=True)
class Quality:
    """Means over the looked-at batches (or stretches of several batches)."""

    samples: int
    """Samples of a batch."""
    neighbour_pairs: float
    """Pairs of samples out of one run of `NEIGHBOURS` samples of a shard."""
    shard_pairs: float
    """Pairs of samples of one shard."""
    video_pairs: float
    """Pairs of frames of one video."""
    distance: float
    """Mean distance in the manifest of samples that follow each other, as share of the dataset."""
    entropy: float
    """Entropy of the shards in a batch, as share of the greatest possible."""


@dataclass(frozen=True)
class ReadCost:
    """What one pass costs when each loader worker reads the blocks that it needs, each once."""

    requests: float
    """Ranged requests per 1,000 samples; one per block at best."""
    read_factor: float
    """Samples read per sample used, if blocks are read whole: 1 unless workers share blocks."""
    open_samples: int
    """Samples of the blocks that one worker has open at a time."""


class Layout:
    """Where samples lie.

    Args:
        shard_sizes: samples of each shard.
        runs: int64 [videos, 2], first sample and number of samples of each video.
    """

    def __init__(self, shard_sizes: Sequence[int], runs: Ids | None = None) -> None:
        sizes = np.asarray(shard_sizes, np.int64)
        self.total = int(sizes.sum())
        starts = np.cumsum(sizes) - sizes
        self.shard = np.repeat(np.arange(len(sizes)), sizes)
        inside = np.arange(self.total) - starts[self.shard]
        self.neighbourhood = _numbered(self.shard * (int(sizes.max(initial=0)) + 1) + inside // NEIGHBOURS)
        self.video = np.arange(self.total)  # a single image is a video of its own
        for number, (first, count) in enumerate(np.zeros((0, 2), int) if runs is None else runs):
            self.video[first : first + count] = self.total + number
        self.video = _numbered(self.video)


def _numbered(groups: Ids) -> Ids:
    """The same groups under numbers 0, 1, ..; equal numbers must stand side by side."""
    return np.cumsum(np.diff(groups, prepend=groups[:1]) != 0)


def measure(order: EpochOrder, layout: Layout, *, stretches: int = 32, span: int = 1) -> Quality:
    """Quality of up to `stretches` evenly spread stretches of `span` consecutive full batches."""
    steps = max(1, order.samples // order.batch_size)
    span = min(span, steps)
    starts = np.unique(np.linspace(0, steps - span, stretches).astype(int))

    def batch(number: int) -> Ids:
        first = int(starts[number])
        return np.concatenate([order.batch(step) for step in range(first, first + span)]) % layout.total

    return _mean_quality(batch, len(starts), layout)


def measure_uniform(samples: int, layout: Layout, *, stretches: int = 32, seed: int = 0) -> Quality:
    """Quality of batches of `samples` out of a uniform shuffle: what an order is compared with.

    Pairs are the exact expectation; distance and entropy are measured on drawn batches.
    """
    samples = min(samples, layout.total)
    mixed = permutation(layout.total, Purpose.SUBSET, seed)
    count = max(1, min(stretches, layout.total // samples))
    drawn = _mean_quality(lambda number: mixed[number * samples :][:samples], count, layout)
    share = samples * (samples - 1) / max(layout.total * (layout.total - 1), 1)
    return replace(
        drawn,
        neighbour_pairs=share * _pairs(layout.neighbourhood),
        shard_pairs=share * _pairs(layout.shard),
        video_pairs=share * _pairs(layout.video),
    )


def _mean_quality(batch: Callable[[int], Ids], count: int, layout: Layout) -> Quality:
    rows = [_one(batch(number), layout) for number in range(count)]
    samples, *means = np.mean(rows, axis=0).tolist()
    return Quality(round(samples), *means)


def _one(batch: Ids, layout: Layout) -> tuple[float, ...]:
    shards = layout.shard[batch]
    distance = np.abs(np.diff(batch)).mean() / layout.total if len(batch) > 1 else 0.0
    pairs = (_pairs(groups[batch]) for groups in (layout.neighbourhood, layout.shard, layout.video))
    return (len(batch), *pairs, float(distance), _entropy(shards, int(layout.shard[-1]) + 1))


def _pairs(groups: Ids) -> float:
    counts = np.unique(groups, return_counts=True)[1]
    return float((counts * (counts - 1)).sum()) / 2


def _entropy(groups: Ids, possible: int) -> float:
    shares = np.unique(groups, return_counts=True)[1] / len(groups)
    most = np.log(min(len(groups), possible))
    return float(-(shares * np.log(shares)).sum() / most) if most > 0 else 1.0


def read_cost(order: EpochOrder, ranks: int, workers: int, *, most_samples: int = 200_000) -> ReadCost:
    """Cost of reading for `ranks` ranks of `workers` workers, over a stretch in the middle of the epoch.

    A block that the stretch's ends cut off counts with what lies inside, which makes blocks look a little
    smaller than they are.
    """
    steps = min(order.steps, max(1, most_samples // order.batch_size), 8 * order.horizon)
    first = (order.steps - steps) // 2
    batches = [order.batch(step) for step in range(first, first + steps)]
    reader = np.concatenate([_readers(len(batch), ranks, workers) for batch in batches])
    step = np.repeat(np.arange(steps), [len(batch) for batch in batches])
    block = order.blocks_of(np.concatenate(batches))
    visits = _Visits.of(reader, block, step)
    used = visits.samples.sum()
    # A block's size is the sum of what its readers used of it.
    sizes = np.bincount(visits.block, visits.samples)[visits.block].astype(np.int64)
    return ReadCost(1000 * len(sizes) / used, float(sizes.sum() / used), visits.most_open(sizes))


@dataclass(frozen=True)
class _Visits:
    """One row per (reader, block): samples used of it, first and last step."""

    reader: Ids
    block: Ids
    samples: Ids
    first: Ids
    last: Ids

    @classmethod
    def of(cls, reader: Ids, block: Ids, step: Ids) -> "_Visits":
        width = int(block.max()) + 1
        key, index, counts = np.unique(reader * width + block, return_index=True, return_counts=True)
        last = np.zeros(len(key), np.int64)
        last[np.searchsorted(key, reader * width + block)] = step  # steps ascend: the last one stays
        return cls(key // width, key % width, counts, step[index], last)

    def most_open(self, sizes: Ids) -> int:
        """Most samples of blocks between first and last use that a reader has at a time."""
        steps = int(self.last.max()) + 2
        change = np.zeros((int(self.reader.max()) + 1) * steps, np.int64)
        np.add.at(change, self.reader * steps + self.first, sizes)
        np.add.at(change, self.reader * steps + self.last + 1, -sizes)
        return int(change.reshape(-1, steps).cumsum(axis=1).max())


def _readers(count: int, ranks: int, workers: int) -> Ids:
    """int64 [count]: number of the loader worker that reads each position of a batch."""
    reader = np.zeros(count, np.int64)
    for rank in range(ranks):
        own = reader[rank_slice(count, rank, ranks)]
        for worker in range(workers):
            own[rank_slice(len(own), worker, workers)] = rank * workers + worker
    return reader


def report(order: EpochOrder, layout: Layout, *, ranks: int = 1, workers: int = 4) -> list[str]:
    """Lines for people: the order beside a uniform shuffle, and what reading it costs."""
    mixed = measure(order, layout)
    uniform = measure_uniform(mixed.samples, layout)
    cost = read_cost(order, ranks, workers)
    rows = [
        (f"pairs of neighbours ({NEIGHBOURS} in a row)", mixed.neighbour_pairs, uniform.neighbour_pairs),
        ("pairs of one shard", mixed.shard_pairs, uniform.shard_pairs),
        ("pairs of one video", mixed.video_pairs, uniform.video_pairs),
        ("distance in the manifest (share of all)", mixed.distance, uniform.distance),
        ("entropy of shards (1: greatest possible)", mixed.entropy, uniform.entropy),
    ]
    return [
        f"{'per batch of ' + format(mixed.samples, ','):<42} {'this order':>10} {'uniform':>10}",
        *(f"{name:<42} {value:>10.3f} {reference:>10.3f}" for name, value, reference in rows),
        f"read by {ranks} x {workers} workers: {cost.requests:.0f} requests per 1,000 samples, "
        f"{cost.read_factor:.2f} samples read per sample used, {cost.open_samples:,} open per worker",
    ]
