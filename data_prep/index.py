"""Contract 1, second half: the index file of a shard, so that a reader can seek to any sample.

All numbers are little-endian; n samples, m member extensions (`jpg`, `json`, `mask.png`, ...):

    offset  bytes     what
    0       8         magic "HVCINDEX"
    8       4         u32 version
    12      4         u32 m
    16      8         u64 n
    24      8         u64 k, length of all keys together
    32      16 m      extensions, ASCII, padded with zeros, sorted
            8 n       u64 end of each key in the keys
            k         keys, UTF-8, without a dot, one after the other
            per extension:
            8 n       u64 offset of the member's data in the tar; 0 = the sample lacks it
            8 n       u64 length of the data in bytes
            4 n       u32 CRC-32 of the data (as in zip and PNG); not in version 1

Offset 0 is free to mean "absent": a tar begins with a header, so data never does.
"""

import re
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError

INDEX_VERSION = 2

_MAGIC = b"HVCINDEX"
_HEAD = struct.Struct("<8sIIQQ")
_EXT_BYTES = 16
_EXT = re.compile(rb"[a-z0-9_]+(\.[a-z0-9_]+)*")
_U64, _U32 = np.dtype("<u8"), np.dtype("<u4")
_BLOCK = 512  # data in a tar begins at a multiple of it
_FARTHEST = 1 << 61  # offset + length must fit signed 64-bit numbers

Numbers = NDArray[np.uint64]


class Member(NamedTuple):
    """Where a member's data lies in the tar, in bytes, and its CRC-32 (None: not known)."""

    offset: int
    length: int
    crc: int | None = None


class _Column(NamedTuple):
    """Of one extension, for all n samples."""

    offsets: Numbers
    lengths: Numbers
    crcs: NDArray[np.uint32] | None


class ShardIndex:
    """Keys of a shard in tar order, and where the data of each member lies."""

    def __init__(self, key_ends: Numbers, key_text: bytes, columns: Mapping[str, _Column]) -> None:
        self._ends, self._text = key_ends, key_text
        self._columns = dict(sorted(columns.items()))

    @classmethod
    def build(cls, samples: Sequence[tuple[str, Mapping[str, tuple[int, int, int]]]]) -> Self:
        """From key and members (extension -> offset, length, CRC-32) of each sample in tar order.

        ValueError for keys, extensions or places that the format cannot hold.
        """
        keys = [key.encode() for key, _ in samples]
        columns = {}
        for ext in sorted({ext for _, members in samples for ext in members}):
            places = np.array([members.get(ext, (0, 0, 0)) for _, members in samples], _U64)
            offsets, lengths, crcs = places.T.copy()
            columns[ext] = _Column(offsets, lengths, crcs.astype(_U32))
        ends = np.cumsum([len(key) for key in keys], dtype=_U64)
        index = cls(ends, b"".join(keys), columns)
        if fault := _fault([ext.encode() for ext in columns], ends, index._text, columns.values()):
            raise ValueError(fault)
        return index

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

    def members(self, i: int) -> dict[str, Member]:
        """The members that sample `i` has, by extension."""
        return {
            ext: Member(
                int(column.offsets[i]),
                int(column.lengths[i]),
                None if column.crcs is None else int(column.crcs[i]),
            )
            for ext, column in self._columns.items()
            if column.offsets[i]
        }

    def offsets(self, ext: str) -> tuple[Numbers, Numbers]:
        """Offsets and lengths u64 [n] of one extension for all samples; offset 0 where it is absent."""
        if ext not in self._columns:
            return np.zeros(len(self), _U64), np.zeros(len(self), _U64)
        return self._columns[ext].offsets, self._columns[ext].lengths

    def crcs(self, ext: str) -> NDArray[np.uint32] | None:
        """CRC-32 u32 [n] of one extension's data, 0 where it is absent; None if the file has none."""
        if ext not in self._columns:
            return np.zeros(len(self), _U32) if self._has_crcs else None
        return self._columns[ext].crcs

    def image_places(
        self, extensions: Collection[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32] | None]:
        """Offsets and lengths i64 [n] and CRC-32 u32 [n] (or None) of each sample's image.

        That is its first member with one of these extensions; offset 0 where it has none.
        """
        offsets, lengths = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        crcs = np.zeros(len(self), np.uint32)
        for ext, column in self._columns.items():
            if ext in extensions:
                new = (offsets == 0) & (column.offsets != 0)
                offsets[new], lengths[new] = column.offsets[new], column.lengths[new]
                if column.crcs is not None:
                    crcs[new] = column.crcs[new]
        return offsets, lengths, crcs if self._has_crcs else None

    def to_bytes(self) -> bytes:
        """The file's content; of version 1 if there are no CRCs, as then it was read from one."""
        version = INDEX_VERSION if self._has_crcs else 1
        head = _HEAD.pack(_MAGIC, version, len(self._columns), len(self), len(self._text))
        exts = [ext.encode().ljust(_EXT_BYTES, b"\0") for ext in self._columns]
        parts = [part for column in self._columns.values() for part in column if part is not None]
        numbers = [part.astype(part.dtype.newbyteorder("<")).tobytes() for part in parts]
        return b"".join([head, *exts, self._ends.astype(_U64).tobytes(), self._text, *numbers])

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "index") -> Self:
        """Parse and check; HvcError that names `where` when the bytes are damaged or newer."""
        version, ext_count, samples, key_bytes = _read_head(data, where)
        start = _HEAD.size + ext_count * _EXT_BYTES
        exts = [data[at : at + _EXT_BYTES].rstrip(b"\0") for at in range(_HEAD.size, start, _EXT_BYTES)]
        ends = np.frombuffer(data, _U64, samples, start)
        text = data[start + ends.nbytes :][:key_bytes]
        columns, start = [], start + ends.nbytes + key_bytes
        for _ in exts:
            offsets, lengths = np.frombuffer(data, _U64, 2 * samples, start).reshape(2, samples)
            start += 2 * offsets.nbytes
            crcs = np.frombuffer(data, _U32, samples, start) if version > 1 else None
            start += 0 if crcs is None else crcs.nbytes
            columns.append(_Column(offsets, lengths, crcs))
        if fault := _fault(exts, ends, text, columns):
            raise _damaged(where, fault)
        return cls(ends, text, {ext.decode(): column for ext, column in zip(exts, columns, strict=True)})

    @property
    def _has_crcs(self) -> bool:
        return all(column.crcs is not None for column in self._columns.values())


def _read_head(data: bytes, where: str) -> tuple[int, int, int, int]:
    """Version, extensions, samples and bytes of keys, once the file is as long as they make it."""
    if len(data) < _HEAD.size or data[:8] != _MAGIC:
        raise _damaged(where, "it does not begin like an index file")
    _, version, ext_count, samples, key_bytes = _HEAD.unpack_from(data)
    if version > INDEX_VERSION:
        raise HvcError(
            f"{where} has index version {version}, this hvc reads up to {INDEX_VERSION}; update hvc"
        )
    if version < 1:
        raise _damaged(where, "version 0")
    per_member = 2 * _U64.itemsize + (_U32.itemsize if version > 1 else 0)
    per_sample = _U64.itemsize + ext_count * per_member
    expected = _HEAD.size + ext_count * _EXT_BYTES + samples * per_sample + key_bytes
    if len(data) != expected:
        raise _damaged(where, f"{len(data)} bytes, its head promises {expected}")
    return version, ext_count, samples, key_bytes


def _fault(exts: Sequence[bytes], ends: Numbers, text: bytes, columns: Collection[_Column]) -> str:
    """What is wrong with the parts of an index; nothing if all is well."""
    if sorted(set(exts)) != list(exts) or not all(
        _EXT.fullmatch(ext) and len(ext) <= _EXT_BYTES for ext in exts
    ):
        return f"its extensions are not in order, or not of at most {_EXT_BYTES} of a-z, 0-9, _ and ."
    if (int(ends[-1]) if len(ends) else 0) != len(text) or not _rises(ends):
        return "its keys do not follow each other"
    if not _are_keys(text, ends):
        return "its keys are not UTF-8 without a dot"
    for column in columns:
        absent = column.offsets == 0
        crcs = np.zeros(0, _U32) if column.crcs is None else column.crcs[absent]
        if np.any(column.lengths[absent]) or np.any(crcs):
            return "a member that is absent has a length or a CRC"
        far = (column.offsets > _FARTHEST) | (column.lengths > _FARTHEST)
        if np.any(far) or np.any(column.offsets % _U64.type(_BLOCK)):
            return "data lies where no tar can have it"
    return ""


def _rises(ends: Numbers) -> bool:
    return not len(ends) or bool(ends[0] > 0 and np.all(ends[1:] > ends[:-1]))


def _are_keys(text: bytes, ends: Numbers) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    starts = ends[:-1].astype(np.intp)  # the text is UTF-8, but is it cut between characters?
    inside = np.frombuffer(text, np.uint8)[starts] & 0xC0 == 0x80
    return b"." not in text and b"\0" not in text and not np.any(inside)


def _damaged(where: str, why: str) -> HvcError:
    return HvcError(f"{where} is damaged: {why}; run `hvc verify`, then shard the images again")
