"""What holds files: a folder, a zip, a tar, an S3 prefix, a video. Layouts are read from any of them."""

import errno
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from hvc.base.errors import HvcError

MAX_BYTES = 64_000_000
"""No single file of an input is read beyond this: a worker's memory has to stay small."""


class Place(NamedTuple):
    """Where a file's bytes lie in its container, so that a worker need not list the container again.

    What the numbers mean is the tree's own affair: for a tar offset and length of the data, for a zip
    its header's offset, packed length, method and CRC-32, for a video the frame's time stamp.
    """

    offset: int
    packed: int = 0
    method: int = 0
    crc: int = 0


class Entry(NamedTuple):
    """A file: path below the tree's top (with `/`), size in bytes, and its place in a container."""

    path: str
    size: int
    place: Place | None = None


class Tree(Protocol):
    """A source of files. Picklable: worker processes read from it, each with handles of its own."""

    address: str
    """As the user wrote it, for messages."""

    def entries(self) -> Iterator[Entry]:
        """All files, sorted by path. HvcError names what cannot be listed."""
        ...

    def read(self, entry: Entry) -> bytes:
        """A file's whole content; OSError (with a reason in `strerror`) or HvcError when that fails."""
        ...


def printable(text: str) -> str:
    """The text with `\\x..` for bytes of a file name that are not UTF-8: what any reader of JSON takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def unreadable(reason: str) -> OSError:
    """The error of a file that cannot be had, for a reason of its container's."""
    return OSError(errno.EIO, reason)


def need_small(size: int) -> None:
    """OSError for a file that is too large to be one image."""
    if size > MAX_BYTES:
        raise unreadable(f"{size} bytes are more than the limit of {MAX_BYTES} for one file")


def inner_path(address: str, name: str) -> str:
    """An archive member's name as a path below the top; HvcError if it could lead anywhere else."""
    if not name or "\\" in name or "\0" in name or name.startswith("/"):
        raise _unsafe(address, name)
    if name.startswith("./") or "//" in name or "/." in name or ".." in name:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise _unsafe(address, name)
        return "/".join(parts)
    return name


def _unsafe(address: str, name: str) -> HvcError:
    return HvcError(
        f"{address}: the member name {name!r} is not a plain relative path; an archive with such "
        "names is not read: unpack it with a tool you trust and give the folder"
    )
