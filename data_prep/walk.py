"""A tar read once from front to end in bounded pieces, and compared with its index on the way."""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from hvc.base.storage import Store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.tar import BLOCK

PIECE = 8 << 20
"""Bytes that are read, and held in memory, at once."""

_END, _LONGEST_END = 2 * BLOCK, 22 * BLOCK  # so many zeros end a tar, at least and at most
_NAMED = 3  # so many members are named, the others counted


class Pieces:
    """An object of known size, read in order, a piece at a time, and hashed."""

    def __init__(
        self, store: Store, name: str, size: int, advance: Callable[[int], object] = lambda _: None
    ) -> None:
        self._store, self._name, self._size, self._advance = store, name, size, advance
        self._next = 0  # where the next piece begins
        self._piece = memoryview(b"")
        self._hash = hashlib.sha256()

    def take(self, count: int) -> bytes:
        """The next `count` bytes (fewer at the end), in one; for small counts."""
        if count <= len(self._piece):
            data, self._piece = self._piece[:count], self._piece[count:]
            return bytes(data)
        return b"".join(self.parts(count))

    def parts(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes (fewer at the end) as they come, none longer than a piece."""
        while count > 0 and (self._piece or self._load()):
            part, self._piece = self._piece[:count], self._piece[count:]
            count -= len(part)
            yield part

    def sha256(self) -> str:
        """Hex sha256 of the whole object; reads what is left of it."""
        while self._load():
            pass
        return self._hash.hexdigest()

    def _load(self) -> bool:
        count = min(PIECE, self._size - self._next)
        data = self._store.read_range(self._name, self._next, count) if count else b""
        self._next += len(data)
        self._hash.update(data)
        self._advance(len(data))
        self._piece = memoryview(data)
        return bool(data)


@dataclass
class Findings:
    """What does not fit between a tar and its index; empty when everything does."""

    headers: list[str] = field(default_factory=list)
    """Members whose header is not what the index says (name, size, checksum)."""
    contents: list[str] = field(default_factory=list)
    """Members whose data has another CRC-32 than the index says."""
    padding: list[str] = field(default_factory=list)
    """Members that are not followed by zeros, and `the end`."""

    def __str__(self) -> str:
        parts = [
            (self.contents, "altered data"),
            (self.headers, "damaged headers"),
            (self.padding, "no zeros after"),
        ]
        return "; ".join(f"{what}: {_some(names)}" for names, what in parts if names)

    def __bool__(self) -> bool:
        return bool(self.headers or self.contents or self.padding)


@dataclass(frozen=True)
class Layout:
    """The members of a tar in the order of their bytes, as an index tells it."""

    index: ShardIndex
    samples: list[int]
    extensions: list[str]
    lengths: list[int]
    crcs: list[int] | None
    """None where the index does not know them."""

    def names(self) -> Iterator[str]:
        """Names of the members in tar order."""
        for sample, ext in zip(self.samples, self.extensions, strict=True):
            yield f"{self.index.key(sample)}.{ext}"


def layout_of(index: ShardIndex, size: int) -> Layout | str:
    """The members in order if they cover a tar of `size` bytes without gap or overlap, else why not."""
    columns = [(ext, *index.offsets(ext), index.crcs(ext)) for ext in index.extensions]
    if not columns:
        return "it names no members"
    offsets = np.concatenate([column[1] for column in columns])
    lengths = np.concatenate([column[2] for column in columns])
    present = np.flatnonzero(offsets)
    if np.any(offsets[present] > size) or np.any(lengths[present] > size):
        return f"it points beyond the {size} bytes of the tar"
    order = present[np.argsort(offsets[present], kind="stable")]
    starts, counts = offsets[order].astype(np.int64), lengths[order].astype(np.int64)
    ends = starts + -(-counts // BLOCK) * BLOCK
    begins = np.concatenate([[0], ends])  # of headers, and of the end
    rest = size - int(begins[-1])
    if np.any(starts - BLOCK != begins[:-1]) or not _END <= rest <= _LONGEST_END or size % BLOCK:
        return "its members do not follow each other from the tar's first to its last byte"
    samples = order % len(index)
    if np.any(np.diff(samples) < 0) or len(np.unique(samples)) != len(index):
        return "its samples are not in the order of the tar"
    extensions = [columns[column][0] for column in (order // len(index)).tolist()]
    known = [column[3] for column in columns if column[3] is not None]
    crcs = np.concatenate(known)[order].tolist() if len(known) == len(columns) else None
    return Layout(index, samples.tolist(), extensions, counts.tolist(), crcs)


def walk(pieces: Pieces, layout: Layout) -> Findings:
    """Read the tar to its end; every header, every member's CRC-32 and every padding is checked."""
    found = Findings()
    for i, (name, length) in enumerate(zip(layout.names(), layout.lengths, strict=True)):
        if not is_header(pieces.take(BLOCK), name, length):
            found.headers.append(name)
        crc = _crc32(pieces, length)
        if layout.crcs is not None and crc != layout.crcs[i]:
            found.contents.append(name)
        if any(pieces.take(-length % BLOCK)):
            found.padding.append(name)
    if any(pieces.take(_LONGEST_END)):
        found.padding.append("the last member")
    return found


def is_header(header: bytes, name: str, size: int) -> bool:
    """Whether 512 bytes are the tar header of a plain file of this name and size in bytes."""
    if header[257:262] != b"ustar" or header[156:157] not in (b"0", b"\0"):
        return False
    if header[:100].rstrip(b"\0") != name.encode() or any(header[345:500]):
        return False
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    return _octal(header[124:136]) == size and _octal(header[148:156]) == checksum


def _octal(text: bytes) -> int | None:
    digits = text.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _crc32(pieces: Pieces, length: int) -> int:
    crc = 0
    for part in pieces.parts(length):
        crc = zlib.crc32(part, crc)
    return crc


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
