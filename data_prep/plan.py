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
    """`order`: item numbers int64 [items] in sample order; `bounds`: int64 [shards + 1] cuts in it."""

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def items(self, shard: int) -> NDArray[np.int64]:
        """Numbers, in the sorted input, of the shard's items."""
        return self.order[self.bounds[shard] : self.bounds[shard + 1]]


def plan_shards(
    items: int,
    total_bytes: int,
    target_mb: float,
    seed: int = 0,
    order: Order = "shuffled",
    min_shards: int = 1,
) -> ShardPlan:
    """Cut `items` images of `total_bytes` together into shards of about `target_mb` (10^6 bytes).

    Shard sizes differ by at most one item; there are at least `min_shards` of them, but never more
    than items. A later reject leaves its place empty, so that one bad file moves no other sample.
    """
    by_size = (total_bytes + items * _TAR_OVERHEAD) / (target_mb * _MB)
    shards = min(items, max(min_shards, round(by_size), 1))
    cuts = np.arange(shards + 1, dtype=np.int64) * items // max(shards, 1)
    return ShardPlan(_order(items, seed, order), cuts)


def shard_name(shard: int) -> str:
    """File name of a shard or its index, without the ending."""
    return f"shard-{shard:06d}"


def key(item: int) -> str:
    """Key of a sample: the item's number in the sorted input. Unique, sortable, without a dot."""
    return f"{item:09d}"


def _order(items: int, seed: int, order: Order) -> NDArray[np.int64]:
    if order == "input":
        return np.arange(items, dtype=np.int64)
    # The raw stream of a bit generator is guaranteed to stay as it is across numpy versions, which
    # `Generator.permutation` is not: the same seed must give the same shards years later.
    draws = np.random.PCG64(seed).random_raw(items)
    return np.argsort(draws, kind="stable").astype(np.int64)
