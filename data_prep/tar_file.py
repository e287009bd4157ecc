"""A tar on its way to disk: hashed, indexed and written as it grows, and never read again.

On request a thread beside the one that feeds it hashes and writes. Both let go of Python's lock, so that
where a core is free, a shard takes little longer than reading or decoding its images.
"""

import ctypes
import hashlib
import os
import queue
import sys
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hvc.data_prep import tar
from hvc.data_prep.index import ShardIndex

_BATCH_BYTES = 1 << 20  # handed over at once
_JOINED = 4 << 20  # bytes up to which a batch is made one piece
_BATCH_PARTS = 900  # a single writev takes 1,024
_BATCHES = 2  # waiting at most
_SMALL = 1 << 12  # parts that are joined: copying them costs less than handling them
_WRITE_BACK = 16 << 20  # bytes after which the disk is asked to begin
_SYNC_FILE_RANGE_WRITE = 2


@dataclass(frozen=True)
class Written:
    """A finished tar: size in bytes, hex sha256, and where everything lies in it."""

    bytes: int
    sha256: str
    index: ShardIndex


class TarFile:
    """Samples in, a tar out. Leaving the context without `finish` removes the file.

    With a thread, its errors (OSError when the disk is full) are raised by the calls that follow.
    """

    def __init__(self, path: Path, *, thread: bool) -> None:
        self._path, self._with_thread = path, thread
        self._samples: list[tuple[str, dict[str, tuple[int, int, int]]]] = []
        self._size = 0
        self._batch: list[bytes] = []
        self._small = bytearray()  # what follows the batch and is not worth a part of its own
        self._handed_over = 0
        self._complete = False

    def __enter__(self) -> Self:
        self._sink = _SinkThread(self._path) if self._with_thread else _Sink(self._path)
        return self

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample: its members by extension, in name order."""
        places = {}
        for ext, data in sorted(members.items()):
            length = len(data)
            self._small += tar.header(f"{key}.{ext}", length)
            start = self._size + tar.BLOCK
            places[ext] = (start, length, zlib.crc32(data))
            if length < _SMALL:
                self._small += data
            else:
                self._batch += (bytes(self._small), data)
                self._small.clear()
            filling = tar.padding(length)
            self._small += filling
            self._size = start + length + len(filling)
        self._samples.append((key, places))
        if self._size - self._handed_over >= _BATCH_BYTES or len(self._batch) >= _BATCH_PARTS:
            self._hand_over()

    def drain(self) -> None:
        """Wait until everything so far is written and no longer held in memory."""
        self._hand_over()
        self._sink.wait()

    def finish(self) -> Written:
        """End the archive; the file is whole, though perhaps not on disk yet."""
        end = tar.end(self._size)
        self._small += end
        self._size += len(end)
        self.drain()
        index = ShardIndex.build(self._samples)
        self._complete = True
        return Written(self._size, self._sink.hash.hexdigest(), index)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.close()
        if not self._complete:
            self._path.unlink(missing_ok=True)

    def _hand_over(self) -> None:
        parts = [*self._batch, bytes(self._small)]
        # Each piece costs the thread a turn at Python's lock, far more than copying what is small.
        self._sink.put([b"".join(parts)] if self._size - self._handed_over <= _JOINED else parts)
        self._batch.clear()
        self._small.clear()
        self._handed_over = self._size


class _Sink:
    """A new file; what is put is hashed and written at once."""

    def __init__(self, path: Path) -> None:
        self.hash = hashlib.sha256()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._size = self._written_back = 0

    def put(self, parts: list[bytes]) -> None:
        """Take what comes next in the file."""
        for part in parts:
            self.hash.update(part)
        self._size += _write_all(self._file, parts)
        if self._size - self._written_back >= _WRITE_BACK:
            _begin_write_back(self._file, self._written_back, self._size - self._written_back)
            self._written_back = self._size

    def wait(self) -> None:
        """Until all is written."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class _SinkThread(_Sink):
    """The same, done by a thread while the next parts are made."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(_BATCHES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tar", daemon=True)
        self._thread.start()

    def put(self, parts: list[bytes]) -> None:
        self._raise_error()
        self._queue.put(parts)  # blocks while there is too much to write already

    def wait(self) -> None:
        self._queue.join()
        self._raise_error()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        super().close()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (parts := self._queue.get()) is not None:
            try:
                if self._error is None:  # after an error the rest is only taken off
                    super().put(parts)
            except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
                self._error = error
            del parts  # or they would stay in memory until the next ones come
            self._queue.task_done()


def _write_all(file: int, parts: Sequence[bytes]) -> int:
    """Bytes written: all of them, though a single call may write fewer."""
    size = sum(map(len, parts))
    done = os.writev(file, parts)
    if done < size:
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            rest = rest[os.write(file, rest) :]
    return size


def _begin_write_back(file: int, offset: int, size: int) -> None:
    """Ask the kernel to begin writing to disk, so that the later fsync has little left to wait for."""
    if sys.platform == "linux":  # only a hint, and only there: its answer does not matter
        call = ctypes.CDLL(None).sync_file_range
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        call(file, offset, size, _SYNC_FILE_RANGE_WRITE)
