"""Which sample belongs to which step and rank: pure functions of plain numbers.

The order of an epoch depends on (seed, epoch) and the manifest alone, so the sequence of global
batches is the same on any number of ranks; a rank takes a contiguous slice of each batch.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RankBatch(NamedTuple):
    """What one rank does in one step."""

    step: int
    epoch: int
    samples: NDArray[np.int64]  # sample numbers in the manifest's own order
    weight: float  # factor on the local mean loss so that ranks average to the global mean


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Global batches in an epoch; the last one may be smaller."""
    return -(-num_samples // batch_size)


def epoch_order(
    shard_sizes: Sequence[int], seed: int, epoch: int, shuffle: bool, window: int = 16
) -> NDArray[np.int64]:
    """All sample numbers of one epoch, each once.

    Shuffled: shards in random order, then all samples of `window` neighbouring shards mixed. Reading
    touches only that many shards at a time. Not shuffled: the manifest's order, every epoch alike.
    """
    sizes = np.asarray(shard_sizes, np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if not shuffle:
        return np.arange(starts[-1])
    bits = np.random.PCG64([seed, epoch])
    shards = shuffled(np.arange(len(sizes)), bits)
    pieces = []
    for first in range(0, len(shards), window):
        group = [np.arange(starts[s], starts[s + 1]) for s in shards[first : first + window]]
        pieces.append(shuffled(np.concatenate(group), bits))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def shuffled(values: NDArray[np.int64], bits: np.random.PCG64) -> NDArray[np.int64]:
    """The values in an order drawn from a raw bit stream.

    numpy keeps those streams as they are over versions, `Generator.permutation` it may change: a run
    that goes on under a newer numpy must not see another order.
    """
    return values[np.argsort(bits.random_raw(len(values)), kind="stable")]


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """This rank's part of a batch of `count`; parts differ by at most one sample."""
    share, rest = divmod(count, world_size)
    start = rank * share + min(rank, rest)
    return slice(start, start + share + (rank < rest))


def rank_batch(batch: NDArray[np.int64], step: int, epoch: int, rank: int, world_size: int) -> RankBatch:
    """One rank's part of a global batch, with its weight.

    A rank left without a sample (last batch smaller than the world) computes the batch's first one
    with weight 0: every rank takes part in every collective, and the sample still counts once.
    """
    own = batch[rank_slice(len(batch), rank, world_size)]
    weight = len(own) * world_size / len(batch)
    return RankBatch(step, epoch, own if len(own) else batch[:1], weight)


def rank_batches(
    shard_sizes: Sequence[int],
    batch_size: int,
    rank: int,
    world_size: int,
    *,
    seed: int,
    shuffle: bool,
    first_step: int,
    last_step: int,
) -> Iterator[RankBatch]:
    """This rank's batches for steps first_step .. last_step-1, over as many epochs as that takes."""
    num_samples = int(sum(shard_sizes))
    per_epoch = steps_per_epoch(num_samples, batch_size)
    known_epoch, order = -1, np.zeros(0, np.int64)
    for step in range(first_step, last_step):
        epoch, number = divmod(step, per_epoch)
        if epoch != known_epoch:
            known_epoch, order = epoch, epoch_order(shard_sizes, seed, epoch, shuffle)
        batch = order[number * batch_size : (number + 1) * batch_size]
        yield rank_batch(batch, step, epoch, rank, world_size)
