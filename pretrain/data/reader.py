"""Image bytes by sample number, checked against the CRC-32 of the shard's index.

From a folder a sample is one `pread`. From S3 it comes out of a block that was fetched ahead, see
`fetcher.py`. Nothing of a dataset is read but indexes of the shards that are touched, and samples.
"""

import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.base.storage import FolderStore
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.data.fetcher import MAX_BUFFER, ObjectSource
from hvc.pretrain.data.indexes import Counts, Indexes
from hvc.pretrain.recipe import StreamConfig

_OPEN_FILES = 128


class CorruptSampleError(HvcError):
    """One sample cannot be used; the rest of its shard may be well."""


class Source(Protocol):
    """How samples are read from one kind of store."""

    def read(self, shard: int, position: int) -> bytes:
        """A sample's image bytes, as they are."""
        ...

    def read_again(self, shard: int, position: int) -> bytes:
        """The same from the store itself, whatever is held of it."""
        ...


class FolderSource:
    """Samples of shards in folders."""

    def __init__(self, data: TrainingData, indexes: Indexes) -> None:
        self._data, self._indexes = data, indexes
        self._files: OrderedDict[int, int] = OrderedDict()

    def read(self, shard: int, position: int) -> bytes:
        places = self._indexes.places(shard)
        offset, length = int(places.offsets[position]), int(places.lengths[position])
        try:
            data = os.pread(self._file(shard), length, offset)
        except OSError:
            data = b""
        # The store reads on after a short count, opens a stale handle anew, or says what is wrong.
        return data if len(data) == length else self.read_again(shard, position)

    def read_again(self, shard: int, position: int) -> bytes:
        places = self._indexes.places(shard)
        place = int(places.offsets[position]), int(places.lengths[position])
        return self._data.store_of(shard).read_range(self._data.shards[shard].path, *place)

    def _file(self, shard: int) -> int:
        file = self._files.get(shard)
        if file is not None:
            self._files.move_to_end(shard)
            return file
        while len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        where, size = self._data.where(shard), self._data.shards[shard].bytes
        file = self._files[shard] = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
        if (there := os.fstat(file).st_size) != size:  # else lengths that are no lengths would be believed
            raise HvcError(f"{where}: {there} bytes, the manifest says {size}; run `hvc verify`")
        return file

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)


class SampleReader:
    """Image bytes of a run's samples; each process makes its own.

    Args:
        data: where they lie.
        options: how they are read.
        buffer_bytes: how much is read ahead from S3 where `options` leave that open.
    """

    def __init__(self, data: TrainingData, options: StreamConfig, buffer_bytes: int = MAX_BUFFER) -> None:
        self._data, self._counts = data, Counts()
        self._starts: list[int] = data.starts.tolist()
        self.indexes = Indexes(data, self._counts)
        folders = FolderSource(data, self.indexes)
        self._objects = ObjectSource(data, self.indexes, options, self._counts, buffer_bytes)
        kinds: list[Source] = [
            folders if isinstance(source.store, FolderStore) else self._objects for source in data.sources
        ]
        self._sources = [kinds[number] for number in data.source_of]
        self.looks_ahead = self._objects in kinds
        """Whether it helps to be told of coming samples."""
        self._retries = 0

    def expect(self, samples: Sequence[int]) -> None:
        """These samples will be asked for, in this order, after those named before."""
        self._objects.expect(self._in_object_storage(samples))

    def prefetch(self, samples: Sequence[int]) -> None:
        """Of those expected these come next: fetch them, and all that is expected of their blocks."""
        self._objects.prefetch(self._in_object_storage(samples))

    def image_bytes(self, sample: int) -> bytes:
        """A sample's image, still encoded.

        Raises CorruptSampleError when the sample itself is bad, and any other HvcError when its
        shard, index or store is.
        """
        shard, position = self.locate(sample)
        places, source = self.indexes.places(shard), self._sources[shard]
        data = source.read(shard, position)
        if not places.offsets[position]:
            raise self.corrupt(sample, "it has no image")
        crcs = places.crcs
        if crcs is None or zlib.crc32(data) == crcs[position]:
            return data
        self._counts.add(refetches=1)
        data = source.read_again(shard, position)  # in case it went wrong on its way
        if zlib.crc32(data) == crcs[position]:
            return data
        raise self.corrupt(sample, "its bytes are not those that were written")

    def corrupt(self, sample: int, reason: str) -> CorruptSampleError:
        """The error that names a sample."""
        shard, position = self.locate(sample)
        key = self.indexes.key(shard, position)
        return CorruptSampleError(f"{self._data.where(shard)}: sample {key}: {reason}")

    def locate(self, sample: int) -> tuple[int, int]:
        """Shard that a sample lies in, and its position there."""
        shard = bisect_right(self._starts, sample) - 1
        return shard, sample - self._starts[shard]

    def where(self, sample: int) -> str:
        """Address of the shard that a sample lies in."""
        return self._data.where(self.locate(sample)[0])

    def next_in_shard(self, sample: int) -> int:
        """The sample behind this one in its shard; behind the last one comes the first."""
        shard, position = self.locate(sample)
        return self._starts[shard] + (position + 1) % self._data.shards[shard].samples

    def take_counts(self) -> NDArray[np.int64]:
        """What reading cost since this was last asked, in the order of `Counts.NAMES`."""
        retries = sum(getattr(source.store, "retries", 0) for source in self._data.sources)
        self._counts.add(retries=retries - self._retries)
        self._retries = retries
        return self._counts.take()

    def close(self) -> None:
        """End the reading ahead."""
        self._objects.close()

    def trouble(self) -> str | None:
        """What the user should hear of, once; None if all is well."""
        return self._objects.trouble()

    def _in_object_storage(self, samples: Sequence[int]) -> list[tuple[int, int]]:
        located = [self.locate(sample) for sample in samples]
        return [place for place in located if self._sources[place[0]] is self._objects]
