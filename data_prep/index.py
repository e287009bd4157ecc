"""Contract 1, second half: the index file of a shard, so that a reader can seek to any sample.

All numbers are little-endian; n samples, m member extensions (`jpg`, `json`, ...):

    offset  bytes     what
    0       8         magic "HVCINDEX"
    8       4         u32 version
    12      4         u32 m
    16      8         u64 n
    24      8         u64 k, length of all keys together
    32      16 m      extensions, ASCII, padded with zeros, sorted
            8 n       u64 end of each key in the keys
            k         keys, UTF-8, one after the other
            per extension:
            8 n       u64 offset of the member's data in the tar; 0 = the sample lacks it
            8 n       u64 length of the data in bytes

Offset 0 is free to mean "absent": a tar begins with a header, so data never does.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError

INDEX_VERSION = 1

_MAGIC = b"HVCINDEX"
_HEAD = struct.Struct("<8sIIQQ")
_EXT_BYTES = 16
_U64 = np.dtype("<u8")

Members = Mapping[str, tuple[int, int]]
"""Extension -> (offset, length) of the data in the tar, in bytes."""


class ShardIndex:
    """Keys of a shard in tar order, and where the data of each member lies."""

    def __init__(
        self,
        key_ends: NDArray[np.uint64],
        key_text: bytes,
        columns: Mapping[str, tuple[NDArray[np.uint64], NDArray[np.uint64]]],
    ) -> None:
        self._ends, self._text = key_ends, key_text
        self._columns = dict(sorted(columns.items()))

    @classmethod
    def build(cls, samples: Sequence[tuple[str, Members]]) -> Self:
        """From (key, members) of each sample in tar order; extensions of at most 16 ASCII letters."""
        keys = [key.encode() for key, _ in samples]
        columns = {}
        for ext in sorted({ext for _, members in samples for ext in members}):
            if not ext.isascii() or not 0 < len(ext) <= _EXT_BYTES:
                raise ValueError(f"extension {ext!r} does not fit {_EXT_BYTES} ASCII letters")
            places = np.array([members.get(ext, (0, 0)) for _, members in samples], _U64)
            columns[ext] = (places[:, 0].copy(), places[:, 1].copy())
        return cls(np.cumsum([len(key) for key in keys], dtype=_U64), b"".join(keys), columns)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def extensions(self) -> tuple[str, ...]:
        """All member extensions in the shard, sorted."""
        return tuple(self._columns)

    def key(self, i: int) -> str:
        """Key of sample `i` (0 <= i < len)."""
        end = int(self._ends[i])
        start = int(self._ends[i - 1]) if i else 0
        return self._text[start:end].decode()

    def members(self, i: int) -> dict[str, tuple[int, int]]:
        """Extension -> (offset, length) of the members that sample `i` has."""
        found = {ext: (int(offset[i]), int(length[i])) for ext, (offset, length) in self._columns.items()}
        return {ext: place for ext, place in found.items() if place[0]}

    def offsets(self, ext: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Offsets and lengths u64 [n] of one extension for all samples; offset 0 where it is absent."""
        if ext not in self._columns:
            return self._nothing
        return self._columns[ext]

    def to_bytes(self) -> bytes:
        """The file's content."""
        head = _HEAD.pack(_MAGIC, INDEX_VERSION, len(self._columns), len(self), len(self._text))
        exts = b"".join(ext.encode().ljust(_EXT_BYTES, b"\0") for ext in self._columns)
        numbers = [part.astype(_U64).tobytes() for column in self._columns.values() for part in column]
        return b"".join([head, exts, self._ends.astype(_U64).tobytes(), self._text, *numbers])

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "index") -> Self:
        """Parse and check; HvcError that names `where` when the bytes are damaged or newer."""
        ext_count, samples, key_bytes = _read_head(data, where)
        exts = [data[_HEAD.size + i * _EXT_BYTES :][:_EXT_BYTES].rstrip(b"\0") for i in range(ext_count)]
        if sorted(set(exts)) != exts or not all(ext.isalnum() for ext in exts):
            raise _damaged(where, "its extensions are not names in order")
        start = _HEAD.size + ext_count * _EXT_BYTES
        ends = np.frombuffer(data, _U64, samples, start)
        start += ends.nbytes
        text = data[start : start + key_bytes]
        if (samples and int(ends[-1]) != key_bytes) or np.any(ends[1:] <= ends[:-1]):
            raise _damaged(where, "its keys do not follow each other")
        table = np.frombuffer(data, _U64, 2 * ext_count * samples, start + key_bytes)
        table = table.reshape(ext_count, 2, samples)
        return cls(
            ends,
            text,
            {ext.decode(): (column[0], column[1]) for ext, column in zip(exts, table, strict=True)},
        )

    @cached_property
    def _nothing(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        return np.zeros(len(self), _U64), np.zeros(len(self), _U64)


def _read_head(data: bytes, where: str) -> tuple[int, int, int]:
    if len(data) < _HEAD.size or data[:8] != _MAGIC:
        raise _damaged(where, "it does not begin like an index file")
    _, version, ext_count, samples, key_bytes = _HEAD.unpack_from(data)
    if version != INDEX_VERSION:
        raise HvcError(f"{where} has index version {version}, this hvc reads {INDEX_VERSION}; update hvc")
    expected = _HEAD.size + ext_count * _EXT_BYTES + samples * 8 * (1 + 2 * ext_count) + key_bytes
    if len(data) != expected:
        raise _damaged(where, f"{len(data)} bytes, its head promises {expected}")
    return ext_count, samples, key_bytes


def _damaged(where: str, why: str) -> HvcError:
    return HvcError(f"{where} is damaged: {why}; run `hvc verify`, then shard the images again")
