"""A few samples of a dataset, by their number in it: one small index per shard, one read per sample."""

import itertools
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from hvc.base.errors import HvcError
from hvc.base.storage import Store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import Manifest, Shard

_AT_ONCE = 64  # samples in memory


@dataclass(frozen=True)
class Peeked:
    """A sample as it lies in its shard."""

    number: int
    """From 0 on, in the order of the dataset."""
    shard: str
    position: int
    """From 0 on, in the shard."""
    key: str
    members: dict[str, bytes]
    """Extension -> content."""


def peek(
    store: Store,
    manifest: Manifest,
    numbers: Iterable[int],
    only: str | None = None,
    workers: int = 8,
) -> Iterator[Peeked]:
    """Samples by number (ascending), read by `workers` threads; `only` one extension, or all members.

    Raises HvcError when an index or a sample is damaged.
    """
    starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)])
    in_shards = ((int(np.searchsorted(starts, number, "right")) - 1, number) for number in numbers)
    with ThreadPoolExecutor(workers) as executor:
        for at, group in itertools.groupby(in_shards, key=lambda pair: pair[0]):
            shard, start = manifest.shards[at], int(starts[at])
            index = load_index(store, shard)

            read = partial(_read, store, shard, index, start, only)
            wanted = [number for _, number in group]
            for first in range(0, len(wanted), _AT_ONCE):
                yield from executor.map(read, wanted[first : first + _AT_ONCE])


def load_index(store: Store, shard: Shard) -> ShardIndex:
    """The index of a shard; HvcError when it is damaged or of another shard."""
    where = store.where(shard.index.path)
    index = ShardIndex.from_bytes(store.read(shard.index.path), where)
    if len(index) != shard.samples:
        raise HvcError(
            f"{where}: {len(index)} samples, the manifest says {shard.samples}; run `hvc verify`"
        )
    return index


def _read(
    store: Store, shard: Shard, index: ShardIndex, start: int, only: str | None, number: int
) -> Peeked:
    position = number - start
    members = {ext: at for ext, at in index.members(position).items() if only in (None, ext)}
    key = index.key(position)
    first = min((at.offset for at in members.values()), default=0)
    last = max((at.offset + at.length for at in members.values()), default=0)
    if last > shard.bytes:
        raise _damaged(store, shard, key)
    data = store.read_range(shard.path, first, last - first)
    found = {}
    for ext, at in members.items():
        found[ext] = data[at.offset - first :][: at.length]
        if at.crc is not None and zlib.crc32(found[ext]) != at.crc:
            raise _damaged(store, shard, f"{key}.{ext}")
    return Peeked(number, shard.path, position, key, found)


def _damaged(store: Store, shard: Shard, what: str) -> HvcError:
    return HvcError(f"{store.where(shard.path)}: {what} is damaged; run `hvc verify` to find all damage")
