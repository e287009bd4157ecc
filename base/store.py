"""What a store of objects is: the same few operations on a folder and on S3, and their errors.

Every write is atomic (a reader sees the whole object or none) and every error names the object.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from hvc.base.errors import HvcError, UsageError


class StorageError(HvcError):
    """An object or folder could not be read or written."""


class AlreadyExistsError(StorageError):
    """`create` found that somebody else already wrote the object."""


class MissingError(StorageError):
    """The object, folder or bucket is not there."""


@dataclass(frozen=True)
class Stored:
    """What a store knows of an object without reading it."""

    size: int
    """Bytes."""
    sha256: str | None
    """Hex digest that the uploader noted; None where nothing was noted."""


class Store(Protocol):
    """One folder of objects; names are relative, with `/`."""

    address: str

    @property
    def retries(self) -> int:
        """Attempts that this process had to repeat so far."""
        ...

    def where(self, name: str) -> str:
        """Full address of an object, for messages and records."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the object is there (a store that cannot be asked raises)."""
        ...

    def size(self, name: str) -> int:
        """Size in bytes."""
        ...

    def read(self, name: str) -> bytes:
        """The whole object."""
        ...

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; StorageError if the object ends before."""
        ...

    def fetch(self, name: str, target: BinaryIO) -> None:
        """Copy the object into an open file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the object, whole or not at all."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write the object if it is not there yet; else raise AlreadyExistsError."""
        ...

    def upload(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Move a finished local file to the object (the local file is gone afterwards).

        `sha256` (hex, of the file) is noted with the object where the store can note it.
        """
        ...

    def stored(self, name: str) -> Stored:
        """Size and noted digest; MissingError when the object is not there."""
        ...

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all objects below the prefix, sorted."""
        ...

    def entries(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Name and size in bytes of all objects below the prefix, sorted by name."""
        ...

    def abort_uploads(self, prefix: str = "") -> int:
        """Remove the unfinished uploads that killed writers left below the prefix; gives their number.

        Those of a writer that is still at work go too: only for who holds the place alone. A store
        that cannot tell is no error, but a warning.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove the object; no error when it is not there."""
        ...


def safe_name(name: str) -> str:
    """The name itself, or UsageError if it could leave its folder (`..`, absolute, empty)."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UsageError(f"unsafe object name {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"unsafe object name {name!r}: not Unicode") from None
    return name
