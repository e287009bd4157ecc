"""A zip as a tree of files: its directory is read once, its members by position, checked by CRC-32."""

import zlib
from collections.abc import Iterator
from struct import Struct, unpack_from
from typing import TYPE_CHECKING

from hvc.base.errors import HvcError
from hvc.data_prep.container import Container
from hvc.data_prep.tree import Entry, Place, inner_path, need_small, unreadable

if TYPE_CHECKING:
    from zipfile import ZipInfo

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flag bits
_LOCAL = Struct("<4s22xHH")  # signature, lengths of name and extra field
_LONGEST_END = 22 + 65_535 + 20 + 56  # the end record, its comment, and what zip64 has before it
_SEE_ZIP64 = 0xFFFF
_SPARE = 128  # read beyond the name at once: extra fields are mostly shorter


class ZipTree:
    """A zip on disk or on S3; members are stored or deflated."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._container = Container(address)

    def entries(self) -> Iterator[Entry]:
        found = [
            _entry(self.address, info) for info in self._directory() if not info.filename.endswith("/")
        ]
        found.sort()
        return iter(found)

    def read(self, entry: Entry) -> bytes:
        assert entry.place is not None
        need_small(max(entry.size, entry.place.packed))
        packed = self._packed(entry, entry.place)
        data = packed if entry.place.method == _STORED else _inflate(packed, entry.size)
        if len(data) != entry.size or zlib.crc32(data) != entry.place.crc:
            raise unreadable("its CRC-32 or size is not what the zip says: the zip is damaged")
        return data

    def _packed(self, entry: Entry, place: Place) -> bytes:
        """The member's bytes as they are in the file, with one read in nearly all cases."""
        guess = _LOCAL.size + len(entry.path.encode("utf-8", "surrogateescape")) + _SPARE
        block = self._container.read_at_most(place.offset, guess + place.packed)
        if len(block) < _LOCAL.size or not block.startswith(b"PK\3\4"):
            raise unreadable(f"no zip member at byte {place.offset}: the zip is damaged")
        _, name, extra = _LOCAL.unpack_from(block)
        start = _LOCAL.size + name + extra
        if start + place.packed <= len(block):
            return block[start : start + place.packed]
        return self._container.read(place.offset + start, place.packed)

    def _directory(self) -> "list[ZipInfo]":
        from zipfile import BadZipFile, ZipFile

        try:
            with self._container.file() as file, ZipFile(file) as archive:
                found = archive.infolist()
            if self._agrees(len(found)):
                return found
            reason = f"{len(found)} members are not as many as it announces"
        except OSError as error:
            raise HvcError(f"cannot read {self.address}: {error.strerror}") from None
        except BadZipFile as error:
            reason = str(error).lower()
        except (NotImplementedError, ValueError, OverflowError, EOFError) as error:
            if isinstance(error, HvcError):
                raise
            reason = str(error)
        raise HvcError(
            f"{self.address} is no zip, or was cut short ({reason}): its directory, at the end, cannot "
            "be read; get the file again"
        )

    def _agrees(self, found: int) -> bool:
        """Whether the directory's end announces so many members (`zipfile` does not look)."""
        start = max(0, self._container.size() - _LONGEST_END)
        tail = self._container.read_at_most(start, _LONGEST_END)
        end = tail.rfind(b"PK\5\6")
        (count,) = unpack_from("<H", tail, end + 10)
        large = tail.rfind(b"PK\6\6", 0, end)
        if count == _SEE_ZIP64 and large >= 0:
            return unpack_from("<Q", tail, large + 32) == (found,)
        return count == found % (1 << 16)  # some packers write large zips without zip64


def _entry(address: str, info: "ZipInfo") -> Entry:
    path = inner_path(address, _name(info))
    if info.flag_bits & _ENCRYPTED:
        raise HvcError(f"{address}: {path} is encrypted; unpack the zip and give the folder")
    if info.compress_type not in (_STORED, _DEFLATED):
        raise HvcError(
            f"{address}: {path} is packed by method {info.compress_type}, which is not read here "
            "(stored and deflate are); unpack the zip and give the folder"
        )
    place = Place(info.header_offset, info.compress_size, info.compress_type, info.CRC)
    return Entry(path, info.file_size, place)


def _name(info: "ZipInfo") -> str:
    """The name as its packer meant it: many write UTF-8 without saying so."""
    name = info.orig_filename
    if info.flag_bits & _UTF8:
        return name
    return name.encode("cp437").decode("utf-8", "surrogateescape")


def _inflate(packed: bytes, size: int) -> bytes:
    """At most one byte more than `size` is unpacked, whatever the data would unpack to."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise unreadable(f"cannot be unpacked from the zip: {error}") from None
