"""A zip or tar as bytes at positions: a local file, or an object on S3."""

import errno
import io
import os
from typing import BinaryIO

from hvc.base.storage import StorageError, Store, open_store
from hvc.data_prep.tree import unreadable

_AHEAD = 1 << 20  # what a request to S3 brings at least while an archive is listed


class Container:
    """Picklable; every process opens the file (or connects) for itself, when it first reads."""

    def __init__(self, address: str) -> None:
        self._fd = -1  # first: `__del__` looks at it, whatever fails below
        self.address = address
        self._path = os.path.abspath(address)  # noqa: PTH100 (kept as text: names need not be Unicode)
        self._store: Store | None = None
        if address.startswith("s3://"):
            folder, _, self._name = address.rpartition("/")
            self._store = open_store(folder)
        self._size = -1

    def size(self) -> int:
        """Bytes of the whole archive."""
        if self._size < 0:
            if self._store is not None:
                self._size = self._store.size(self._name)
            else:
                self._size = os.fstat(self._open()).st_size
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; OSError when the archive ends before, StorageError from S3."""
        data = self.read_at_most(offset, length)
        if len(data) < length:
            raise unreadable(f"{self.address} ends at byte {self.size()}, before this file's last byte")
        return data

    def read_at_most(self, offset: int, length: int) -> bytes:
        """`length` bytes, or fewer at the archive's end."""
        length = min(length, self.size() - offset)
        if length <= 0:
            return b""
        if self._store is not None:
            return self._store.read_range(self._name, offset, length)
        return _pread(self._open(), offset, length)

    def file(self) -> BinaryIO:
        """A seekable file that reads ahead, for listing."""
        return io.BufferedReader(_RawFile(self), _AHEAD)

    def _open(self) -> int:
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY)
            except OSError as error:
                # Not this one file's fault: no reason to reject it.
                raise StorageError(f"cannot open {self.address}: {error.strerror}") from None
        return self._fd

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_fd": -1}

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class Headers:
    """Small reads in rising order, as listing a tar needs them: few requests, little memory."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._ahead = _AHEAD if container.address.startswith("s3://") else 0
        self._start, self._block = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes, or fewer at the container's end."""
        if not self._ahead:
            return self._container.read_at_most(offset, length)
        at = offset - self._start
        if at < 0 or at + length > len(self._block):
            self._block = self._container.read_at_most(offset, max(length, self._ahead))
            self._start, at = offset, 0
        return self._block[at : at + length]


class _RawFile(io.RawIOBase):
    """A container behind the interface of a file."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._container.size()}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the start of the file")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._container.read_at_most(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) == length:
        return data
    parts = [data]  # one call brings 2 GB at most, and may bring less
    missing = length - len(data)
    while data and missing:
        data = os.pread(fd, missing, offset + length - missing)
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
