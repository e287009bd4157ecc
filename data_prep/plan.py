"""Which image goes into which shard, at which place: a pure function, fixed before any byte is written."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["shuffled", "input"]

_TAR_OVERHEAD = 2048  # bytes per sample: two headers, two paddings, the small JSON member
_MB = 1_000_000


@dataclass(frozen=True)
class ShardPlan:
    """`order`: record numbers int64 [planned] in sample order; `bounds`: int64 [shards + 1] cuts in it."""

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def items(self, shard: int) -> NDArray[np.int64]:
        """Numbers, in the catalog, of the shard's records."""
        return self.order[self.bounds[shard] : self.bounds[shard + 1]]


def plan_shards(
    items: int,
    total_bytes: int,
    target_mb: float,
    seed: int = 0,
    order: Order = "shuffled",
    min_shards: int = 1,
    group_ids: NDArray[np.int32] | NDArray[np.int64] | None = None,
    kept: NDArray[np.int64] | None = None,
) -> ShardPlan:
    """Cut records of `total_bytes` together into shards of about `target_mb` (10^6 bytes).

    There are `items` records; `kept`, increasing numbers int64 [k], leaves the others out. Records that
    follow each other with the same `group_ids` int [items] (0 or more) are one group, e.g. a video;
    -1 is a group of its own. A shuffled order permutes groups and leaves each as it is.

    Shard sizes differ by at most one record; there are at least `min_shards` of them, but never more
    than records. A later reject leaves its place empty, so that one bad file moves no other sample.
    """
    numbers = np.arange(items, dtype=np.int64) if kept is None else kept.astype(np.int64)
    count = len(numbers)
    by_size = (total_bytes + count * _TAR_OVERHEAD) / (target_mb * _MB)
    shards = min(count, max(min_shards, round(by_size), 1))
    cuts = np.arange(shards + 1, dtype=np.int64) * count // max(shards, 1)
    if order == "input":
        return ShardPlan(numbers, cuts)
    groups = None if group_ids is None else group_ids[numbers]
    return ShardPlan(numbers[_shuffled(count, seed, groups)], cuts)


def shard_name(shard: int) -> str:
    """File name of a shard or its index, without the ending."""
    return f"shard-{shard:06d}"


def key(item: int) -> str:
    """Key of a sample: the record's number in the catalog. Unique, sortable, without a dot."""
    return f"{item:09d}"


def _shuffled(
    count: int, seed: int, group_ids: NDArray[np.int32] | NDArray[np.int64] | None
) -> NDArray[np.int64]:
    if group_ids is None or not np.any(group_ids >= 0):
        return _permutation(count, seed)
    begins = np.ones(count, np.bool_)
    begins[1:] = (group_ids[1:] != group_ids[:-1]) | (group_ids[1:] < 0)
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=count)
    chosen = _permutation(len(starts), seed)
    starts, lengths = starts[chosen], lengths[chosen]
    # Place p lies in the group that is p's in the new order, as far from its start as p is from the
    # group's new start.
    shifts = starts - (np.cumsum(lengths) - lengths)
    return np.arange(count, dtype=np.int64) + np.repeat(shifts, lengths)


def _permutation(count: int, seed: int) -> NDArray[np.int64]:
    # The raw stream of a bit generator is guaranteed to stay as it is across numpy versions, which
    # `Generator.permutation` is not: the same seed must give the same shards years later.
    draws = np.random.PCG64(seed).random_raw(count)
    return np.argsort(draws, kind="stable").astype(np.int64, copy=False)
