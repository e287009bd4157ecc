"""Where the images of a shard lie, from its index file; and what reading costs."""

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.data_prep.images import EXTENSIONS
from hvc.data_prep.index import ShardIndex
from hvc.pretrain.data.dataset import TrainingData

_INDEX_BYTES = 256 << 20
"""Indexes kept in memory: 20 bytes per sample, so that only the largest datasets reach this."""


class Counts:
    """What reading cost since it was last asked; a race between threads may lose a count, never data."""

    NAMES = ("bytes", "requests", "retries", "refetches", "cache_hits", "cache_misses")

    def __init__(self) -> None:
        self._values = dict.fromkeys(self.NAMES, 0)
        self._lock = threading.Lock()

    def add(self, **amounts: int) -> None:
        """Count something."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[name] += amount

    def take(self) -> NDArray[np.int64]:
        """The counts, in the order of NAMES, and begin anew."""
        with self._lock:
            taken = np.array(list(self._values.values()), np.int64)
            self._values = dict.fromkeys(self.NAMES, 0)
        return taken


class Places(NamedTuple):
    """Where the images of a shard lie; offset 0: the sample has no image."""

    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    crcs: NDArray[np.uint32] | None


class Indexes:
    """Places of the shards that were touched lately; threads that want the same one read it once."""

    def __init__(self, data: TrainingData, counts: Counts, limit_bytes: int = _INDEX_BYTES) -> None:
        self._data, self._counts, self._limit = data, counts, limit_bytes
        self._known: OrderedDict[int, Future[Places]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def places(self, shard: int) -> Places:
        """Places of a shard; HvcError when its index is missing or was altered."""
        with self._lock:
            future = self._known.get(shard)
            if future is not None:
                self._known.move_to_end(shard)
        return future.result() if future is not None else self._load(shard)

    def key(self, shard: int, position: int) -> str:
        """A sample's key, for messages: read anew, keys are not kept."""
        return self._read(shard).key(position)

    def _load(self, shard: int) -> Places:
        own: Future[Places] = Future()
        with self._lock:
            future = self._known.setdefault(shard, own)
        if future is own:
            try:
                own.set_result(self._places(shard))
            except BaseException as error:
                own.set_exception(error)
                with self._lock:
                    del self._known[shard]
                raise
            self._evict(own.result())
        return future.result()

    def _places(self, shard: int) -> Places:
        places = Places(*self._read(shard).image_places(EXTENSIONS))
        size = self._data.shards[shard].bytes
        if np.any((places.offsets > size) | (places.lengths > size - places.offsets)):
            where = self._data.store_of(shard).where(self._data.shards[shard].index.path)
            raise HvcError(f"{where}: points beyond the end of its shard; run `hvc verify`")
        return places

    def _evict(self, new: Places) -> None:
        with self._lock:
            self._bytes += _size(new)
            for shard in list(self._known):
                if self._bytes <= self._limit or len(self._known) == 1:
                    return
                if self._known[shard].done():
                    self._bytes -= _size(self._known.pop(shard).result())

    def _read(self, shard: int) -> ShardIndex:
        reference, store = self._data.shards[shard].index, self._data.store_of(shard)
        data, where = store.read(reference.path), store.where(reference.path)
        self._counts.add(bytes=len(data), requests=1)
        if hashlib.sha256(data).hexdigest() != reference.sha256:
            raise HvcError(f"{where}: altered since the dataset was made; run `hvc verify`")
        index = ShardIndex.from_bytes(data, where)
        if len(index) != self._data.shards[shard].samples:
            raise HvcError(f"{where}: of another shard, its number of samples is wrong; run `hvc verify`")
        return index


def _size(places: Places) -> int:
    return sum(part.nbytes for part in places if part is not None)
