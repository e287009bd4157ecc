"""A tar as a tree of files: scanned once by its headers, read by position, never unpacked.

A member `n01440764.tar` is the folder `n01440764/`: the tar of 1,000 tars that ImageNet comes as is one
tree. Links and sparse files are listed, and turned down when they are read.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hvc.base.errors import HvcError
from hvc.data_prep.container import Container, Headers
from hvc.data_prep.tree import Entry, Place, inner_path, need_small, unreadable

_BLOCK = 512
_END = b"\0" * _BLOCK
_MAX_NESTING = 8
_MAX_HEADER_DATA = 1 << 20  # a long name or pax header of more than this is no name

_FILES = frozenset(b"\x0007")
_NO_FILES = frozenset(b"3456VMDN")  # devices, folders, pipes, GNU volume names and the like
_LINKS = {ord("1"): "a link", ord("2"): "a link", ord("S"): "a sparse file"}

Read = Callable[[int, int], bytes]


class Member(NamedTuple):
    """A file in a tar: name, where its data begins, bytes, and what it is (0: an ordinary file)."""

    name: str
    offset: int
    size: int
    kind: int = 0


class TarTree:
    """An uncompressed tar on disk or on S3."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._container = Container(address)

    def entries(self) -> Iterator[Entry]:
        read = Headers(self._container).read
        try:
            yield from _entries(read, self.address, "", 0, self._container.size(), 0)
        except OSError as error:
            raise HvcError(f"cannot read {self.address}: {error.strerror}") from None

    def read(self, entry: Entry) -> bytes:
        assert entry.place is not None
        offset, length, kind, _ = entry.place
        if kind:
            raise unreadable(f"{_LINKS[kind]} inside a tar; unpack the tar and give the folder")
        need_small(length)
        return self._container.read(offset, length)


def _entries(read: Read, address: str, top: str, start: int, end: int, depth: int) -> Iterator[Entry]:
    """Files of the tar between two positions, sorted by path; a tar inside it is listed in its place."""
    found = []
    for name, offset, size, kind in members(read, address, start, end):
        path = top + inner_path(address, name)
        nested = path.endswith(".tar") and not kind
        found.append((path[:-4] + "/" if nested else path, nested, size, offset, kind))
    found.sort()
    for path, nested, size, offset, kind in found:
        if not nested:
            yield Entry(path, size, Place(offset, size, kind))
            continue
        if depth == _MAX_NESTING:
            raise HvcError(f"{address}: more than {_MAX_NESTING} tars inside each other")
        yield from _entries(read, f"{address}: {path[:-1]}.tar", path, offset, offset + size, depth + 1)


def members(read: Read, address: str, start: int, end: int) -> Iterator[Member]:
    """Everything but folders and devices in the tar between two positions, in the tar's own order.

    `read(offset, length)` gives fewer bytes only at the end. HvcError (with name and position) for
    whatever is no tar, was cut short, or is damaged.
    """
    at, last = start, "the start"
    names: dict[str, str] = {}
    while True:
        header = read(at, _BLOCK) if at + _BLOCK <= end else b""
        if header == _END:
            return
        if len(header) < _BLOCK:
            raise HvcError(
                f"{address} was cut short after {last} (byte {at}): a tar ends with a block of zeros; "
                "get the file again"
            )
        kind, size = header[156], _size(header, address, at)
        if "size" in names:
            size = _decimal(names["size"], address, at)
        if kind in b"12":  # a link has no data of its own
            size = 0
        data = at + _BLOCK
        following = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind in b"LKxg":
            names |= _long_names(kind, read, address, data, size, end)
            at = following
            continue
        name = names.get("path") or _name(header)
        if data + size > end:
            raise HvcError(
                f"{address} was cut short in {name}: its {size} bytes from byte {data} on are not all "
                "there; get the file again"
            )
        if kind not in _NO_FILES and not name.endswith("/"):
            sparse = ord("S") if any(key.startswith("GNU.sparse") for key in names) else 0
            yield Member(name, data, size, sparse or (kind if kind in _LINKS else 0))
        at, last, names = following, name, {}


def _size(header: bytes, address: str, at: int) -> int:
    """A member's bytes, from a header whose checksum is right."""
    written = _octal(header[148:156])
    if written != sum(header) - sum(header[148:156]) + 8 * 32:
        hint = "; it is compressed: decompress it first" if _compressed(header) else ""
        raise HvcError(f"{address} is no tar, or damaged, at byte {at}{hint}")
    size = int.from_bytes(header[125:136]) if header[124] & 0x80 else _octal(header[124:136])
    if size is None:
        raise HvcError(f"{address} is damaged at byte {at}: it states no size")
    return size


def _octal(field: bytes) -> int | None:
    text = field.rstrip(b"\0 ").lstrip(b" ")
    try:
        return int(text, 8) if text.isdigit() else None if text else 0
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape")


def _long_names(kind: int, read: Read, address: str, data: int, size: int, end: int) -> dict[str, str]:
    """What a GNU long name or a pax header says about the next member."""
    if size > _MAX_HEADER_DATA or data + size > end:
        raise HvcError(f"{address} is damaged at byte {data}: a name of {size} bytes")
    if kind in b"Kg":  # a link's target, or remarks on the whole archive
        return {}
    content = read(data, size)
    if kind == ord("L"):
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    return _pax(content, address, data)


def _pax(content: bytes, address: str, at: int) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE` and a line feed, where the length counts the whole record."""
    values = {}
    while content:
        length, _, rest = content.partition(b" ")
        if not length.isdigit() or not len(length) + 3 <= int(length) <= len(content):
            raise HvcError(f"{address} is damaged at byte {at}: a pax header that is none")
        record = rest[: int(length) - len(length) - 2]
        key, _, value = record.partition(b"=")
        values[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return values


def _decimal(text: str, address: str, at: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise HvcError(f"{address} is damaged at byte {at}: a size of {text!r} bytes")
    return int(text)


def _compressed(header: bytes) -> bool:
    return header.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
