"""Samples from S3: those that will be needed are fetched ahead, neighbours by one ranged GET.

A loader process says early which samples it will ask for (`expect`), and later that they come near
(`prefetch`). When the first sample of a block (neighbouring samples of a shard) comes near, one thread
fetches all samples of the block that are expected by then, and of the blocks beside it if those are
expected, too; how many blocks ahead is a matter of bytes, `stream.buffer_mb`. A sample is held until it
is used. With a cache on the node's disk whole blocks are fetched one by one, for they come again in the
next epoch.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.pretrain.data.cache import BlockCache
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.data.indexes import Counts, Indexes
from hvc.pretrain.recipe import StreamConfig

MAX_GAP = 128 << 10
"""Fewer unwanted bytes between two samples than this cost less than a request."""
MAX_RANGE = 8 << 20
"""A longer range goes on as another request."""
MAX_BUFFER = 1_000_000_000
"""Bytes that are read ahead at most unless `stream.buffer_mb` allows more."""

Sample = tuple[int, int]
"""(shard, position)"""
Block = tuple[int, int]
"""(shard, number of the block in it)"""


class Range(NamedTuple):
    """One request: bytes of a shard, and the positions whose images they hold."""

    offset: int
    length: int
    positions: tuple[int, ...]


def coalesce(
    positions: Sequence[int], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[Range]:
    """Requests for some samples of a shard: neighbours together, up to MAX_RANGE, over small gaps.

    Args:
        positions: which samples; each is in exactly one range, those without an image in none.
        offsets: of all images of the shard in bytes, 0 where there is none.
        lengths: of all images in bytes.
    """
    wanted = sorted((int(offsets[p]), int(lengths[p]), p) for p in positions if offsets[p])
    ranges: list[Range] = []
    for offset, length, position in wanted:
        end = offset + length
        if ranges:
            last = ranges[-1]
            gap = offset - (last.offset + last.length)
            if gap <= MAX_GAP and end - last.offset <= MAX_RANGE:
                whole = max(end - last.offset, last.length)
                ranges[-1] = Range(last.offset, whole, (*last.positions, position))
                continue
        ranges.append(Range(offset, length, (position,)))
    return ranges


class _Job(NamedTuple):
    """Samples of one or more blocks under way: position -> bytes once it is done."""

    future: "Future[dict[int, bytes]]"
    share: int
    """Bytes that each of its samples counts for in the buffer; an estimate, as it is made before the
    index is read."""


class ObjectSource:
    """Samples of shards in object storage. One thread asks; the requests have threads of their own."""

    def __init__(
        self,
        data: TrainingData,
        indexes: Indexes,
        options: StreamConfig,
        counts: Counts,
        buffer_bytes: int = MAX_BUFFER,
    ) -> None:
        self._data, self._indexes, self._options, self._counts = data, indexes, options, counts
        self._budget = buffer_bytes if options.buffer_mb is None else int(options.buffer_mb * 1e6)
        self._cache: BlockCache | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._queue: deque[Sample] = deque()  # near, in order; begins with what is not under way
        self._waiting: dict[Block, list[Sample]] = {}  # expected and not under way
        self._uses: dict[Sample, int] = {}  # how often each expected sample will be asked for
        self._jobs: dict[Sample, _Job] = {}
        self._held = 0

    def expect(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._uses[sample] = self._uses.get(sample, 0) + 1
            if self._uses[sample] == 1:
                self._waiting.setdefault(self._block(sample), []).append(sample)

    def prefetch(self, samples: Sequence[Sample]) -> None:
        self._queue.extend(samples)
        self._look_ahead()

    def read(self, shard: int, position: int) -> bytes:
        sample = (shard, position)
        if sample not in self._uses:  # in place of a corrupt one
            return self._fetch(shard, [position])[position]
        if sample not in self._jobs:
            self._begin(self._block(sample))
        job = self._jobs[sample]
        fetched = job.future.result()
        data = fetched[position]
        self._uses[sample] -= 1
        again = self._uses[sample] > 0  # in the next epoch of a small dataset
        if not again or self._held > self._budget:
            del self._jobs[sample], fetched[position]
            self._held -= job.share
            if again:
                self._waiting.setdefault(self._block(sample), []).append(sample)
            else:
                del self._uses[sample]
            self._look_ahead()
        return data

    def read_again(self, shard: int, position: int) -> bytes:
        places = self._indexes.places(shard)
        return self._get(shard, int(places.offsets[position]), int(places.lengths[position]))

    def trouble(self) -> str | None:
        """Why nothing is cached any more, if so."""
        return self._cache.trouble if self._cache else None

    def close(self) -> None:
        """Send for nothing any more."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _look_ahead(self) -> None:
        while self._queue and self._held < self._budget:
            sample = self._queue.popleft()
            if sample in self._uses and sample not in self._jobs:
                self._begin(self._block(sample))

    def _begin(self, block: Block) -> None:
        """Send for all samples of a block, and of blocks beside it, that are expected and not under way."""
        shard = self._data.shards[block[0]]
        share = shard.bytes // shard.samples
        samples = self._waiting.pop(block)
        if not self._options.cache:
            most = min(MAX_RANGE, self._budget) // max(share, 1)
            for direction in (1, -1):
                samples += self._take_beside(block, direction, most - len(samples))
        positions = [position for _, position in samples]
        job = _Job(self._threads().submit(self._fetch, block[0], positions), share)
        for sample in samples:
            self._jobs[sample] = job
        self._held += job.share * len(samples)

    def _take_beside(self, block: Block, direction: int, most: int) -> list[Sample]:
        """What waits in the blocks next to one, on one side: whole blocks, and at most so many samples."""
        shard, number = block
        taken: list[Sample] = []
        while waiting := self._waiting.get((shard, number := number + direction)):
            if len(taken) + len(waiting) > most:
                break
            taken += self._waiting.pop((shard, number))
        return taken

    def _fetch(self, shard: int, positions: list[int]) -> dict[int, bytes]:
        places = self._indexes.places(shard)
        asked = positions
        if self._cache:
            size, count = self._options.block, self._data.shards[shard].samples
            blocks = sorted({position // size for position in positions})
            asked = [p for block in blocks for p in range(block * size, min((block + 1) * size, count))]
        wanted, found = set(positions), dict.fromkeys(positions, b"")
        for piece in coalesce(asked, places.offsets, places.lengths):
            if self._cache and wanted.isdisjoint(piece.positions):
                continue
            data = self._cached(shard, piece)
            for position in wanted.intersection(piece.positions):
                start = int(places.offsets[position]) - piece.offset
                found[position] = data[start : start + int(places.lengths[position])]
        return found

    def _cached(self, shard: int, piece: Range) -> bytes:
        if self._cache is None:
            return self._get(shard, piece.offset, piece.length)
        name = self._data.shards[shard].sha256
        data = self._cache.get(name, piece.offset, piece.length)
        if data is not None:
            self._counts.add(cache_hits=1)
            return data
        self._counts.add(cache_misses=1)
        data = self._get(shard, piece.offset, piece.length)
        self._cache.put(name, piece.offset, data)
        return data

    def _get(self, shard: int, offset: int, length: int) -> bytes:
        data = self._data.store_of(shard).read_range(self._data.shards[shard].path, offset, length)
        self._counts.add(bytes=len(data), requests=1)
        return data

    def _block(self, sample: Sample) -> Block:
        return sample[0], sample[1] // self._options.block

    def _threads(self) -> ThreadPoolExecutor:
        # Late: a recipe whose data lies in folders needs neither threads nor a cache.
        if self._pool is None:
            if self._options.cache:
                self._cache = BlockCache(Path(self._options.cache), int(self._options.cache_gb * 1e9))
            self._pool = ThreadPoolExecutor(self._options.fetch_threads, "fetch")
        return self._pool
