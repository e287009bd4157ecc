"""What holds files: a folder, a zip, a tar, an S3 prefix, a video. Layouts are read from any of them."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


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
