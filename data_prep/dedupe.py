"""Exact duplicates: files whose bytes are the same, found by their sha256 before anything is planned.

The hashes of a few thousand files at a time are kept below `.progress/`, so that a run that is killed,
or one of several parts, need not read again what has been read.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.base.stage import Stop
from hvc.base.storage import MissingError, StorageError
from hvc.data_prep.catalog import Catalog, Record
from hvc.data_prep.images import MAX_BYTES
from hvc.data_prep.pool import Workers
from hvc.data_prep.progress import Progress
from hvc.data_prep.tree import Tree
from hvc.data_prep.writer import NOT_THE_FILES_FAULT

_HASH_BYTES = 32
_NO_HASH = bytes(_HASH_BYTES)  # of a file that cannot be read or is empty: no other is the same

_FEWEST, _MOST, _CHUNKS = 32, 8192, 256
"""Records per chunk, from the number of records alone: every run has to cut alike."""


@dataclass(frozen=True)
class Chunk:
    """Records to be hashed: the chunk's number, and what to read."""

    number: int
    records: tuple[Record, ...]
    trees: tuple[Tree, ...]


def find_duplicates(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For uint8 [n, 32] hashes: int64 [n], number of the first record of the same hash, else -1.

    The first itself has -1, as have all whose hash is zero.
    """
    first = np.full(len(hashes), -1, np.int64)
    heads = np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]
    order = np.argsort(heads, kind="stable")
    heads = heads[order]
    same = np.zeros(len(order) + 1, np.bool_)
    same[1:-1] = heads[1:] == heads[:-1]
    seen: dict[bytes, int] = {}
    for number in np.sort(order[same[1:] | same[:-1]]).tolist():  # few: those with an equal neighbour
        digest = hashes[number].tobytes()
        earliest = seen.setdefault(digest, number)
        if earliest != number and digest != _NO_HASH:
            first[number] = earliest
    return first


def hash_catalog(
    catalog: Catalog,
    progress: Progress,
    workers: Workers,
    stop: Stop,
    tell: Callable[[int], None],
    turn: float,
) -> NDArray[np.uint8] | None:
    """sha256 uint8 [n, 32] of every record's file, zeros for one that cannot be read; None if stopped.

    `turn` (0 <= turn < 1) is where among the chunks to begin, so that several who share the work begin
    at different ones. `tell` hears how many records have just been done.
    """
    size = chunk_size(len(catalog))
    starts = range(0, len(catalog), size)
    whole: dict[int, bytes] = {}

    def take(number: int, data: bytes) -> None:
        whole[number] = data
        tell(len(data) // _HASH_BYTES)

    def missing() -> Iterator[Chunk]:
        begin = int(turn * len(starts))
        for number in [*range(begin, len(starts)), *range(begin)]:
            numbers = range(starts[number], min(starts[number] + size, len(catalog)))
            data = progress.kept_hashes(number)
            if data is not None and len(data) == _HASH_BYTES * len(numbers):
                take(number, data)
            else:
                yield Chunk(number, tuple(catalog.record(i) for i in numbers), catalog.trees)

    with closing(workers.run(hash_chunk, missing(), stop)) as answers:
        for number, data in answers:
            progress.keep_hashes(number, data)
            take(number, data)
    if len(whole) < len(starts):
        return None
    joined = b"".join(whole[number] for number in range(len(starts)))
    return np.frombuffer(joined, np.uint8).reshape(-1, _HASH_BYTES)


def chunk_size(records: int) -> int:
    """Records per chunk."""
    return min(_MOST, max(_FEWEST, -(-records // _CHUNKS)))


def hash_chunk(chunk: Chunk) -> tuple[int, bytes]:
    """The chunk's number, and the hashes of its files one after the other."""
    return chunk.number, b"".join(_hash(record, chunk.trees) for record in chunk.records)


def _hash(record: Record, trees: tuple[Tree, ...]) -> bytes:
    if record.size > MAX_BYTES:
        return _NO_HASH
    tree = trees[record.input]
    try:
        data = tree.read(record.entry)
    except OSError as error:
        if error.errno in NOT_THE_FILES_FAULT:
            raise HvcError(f"{tree.address}: cannot read {record.path}: {error.strerror}") from None
        return _NO_HASH  # writing its shard meets the same and lists it among the rejects
    except HvcError as error:
        if isinstance(error, StorageError) and not isinstance(error, MissingError):
            raise
        return _NO_HASH
    return hashlib.sha256(data).digest() if data else _NO_HASH
