"""What was read from object storage, kept on a disk of the node for all its loader processes.

    FOLDER/ab/SHA256-OFFSET-LENGTH    bytes of a shard (its sha256), then their CRC-32
    FOLDER/.lock                      held while files are taken up or evicted
    FOLDER/.size                      bytes of all files, as text

A file is written under another name and renamed when whole, so a reader sees all of it or nothing. The
limit holds at every moment. A process may die anywhere: what it left is cleared away, and a count that
is wrong for it is made anew. Trouble with the disk costs the cache, never the training.
"""

import contextlib
import fcntl
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

_CRC_BYTES = 4
_ROOM = 0.9
"""Eviction makes room down to this share of the limit, so that it is rare."""
_TEMPORARY = ".part"


class BlockCache:
    """Byte ranges of shards in a folder, up to a limit; the ones not used for longest go first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self.trouble: str | None = None
        """Why nothing is stored any more; None while all is well."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked(wait=False) as held:
                if held:
                    self._clear_temporaries()
                    self._set_size(sum(size for _, size, _ in self._files()))
        except OSError as error:
            self._give_up(error)

    def get(self, sha256: str, offset: int, length: int) -> bytes | None:
        """The range, if it is here and whole; a damaged file is removed."""
        path = self._path(sha256, offset, length)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None  # not here, or evicted just now: the store has it
        content, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if len(content) == length and zlib.crc32(content).to_bytes(_CRC_BYTES, "little") == crc:
            return content
        self._drop(path)
        return None

    def put(self, sha256: str, offset: int, content: bytes) -> None:
        """Store a range."""
        size = len(content) + _CRC_BYTES
        if self.trouble is not None or size > self._limit:
            return
        try:
            self._put(self._path(sha256, offset, len(content)), content, size)
        except OSError as error:
            self._give_up(error)

    def _put(self, path: Path, content: bytes, size: int) -> None:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=_TEMPORARY)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # nobody takes it for a dead process's
                file.write(content)
                file.write(zlib.crc32(content).to_bytes(_CRC_BYTES, "little"))
                file.flush()
                with self._locked():
                    if not path.exists():
                        self._make_room(size)
                        temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Under the lock: let the coming file in, at the cost of old ones if need be."""
        total = self._size()
        if total is None or total + size > self._limit:
            files = sorted(self._files())
            total = sum(each for _, each, _ in files)
            goal = self._limit * _ROOM - size if total + size > self._limit else self._limit
            for _, each, path in files:
                if total <= max(goal, 0):
                    break
                path.unlink(missing_ok=True)
                total -= each
        # Before the file is there: if this process dies now, the count is too high, never too low.
        self._set_size(total + size)

    def _drop(self, path: Path) -> None:
        with contextlib.suppress(OSError), self._locked():
            size = path.stat().st_size
            path.unlink()
            self._set_size(max((self._size() or 0) - size, 0))

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of all ranges."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.suffix != _TEMPORARY:
                    state = path.stat()
                    yield state.st_mtime, state.st_size, path

    def _clear_temporaries(self) -> None:
        for path in self._folder.glob(f"[0-9a-f][0-9a-f]/.*{_TEMPORARY}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    @contextlib.contextmanager
    def _locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the folder against other processes and threads; without waiting: whether that worked."""
        with (self._folder / ".lock").open("ab") as file:  # a handle of its own: threads exclude each other
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _size(self) -> int | None:
        try:
            return int((self._folder / ".size").read_text())
        except (OSError, ValueError):
            return None  # not counted yet, or half a number of a process that died

    def _set_size(self, total: int) -> None:
        (self._folder / ".size").write_text(str(total))

    def _path(self, sha256: str, offset: int, length: int) -> Path:
        return self._folder / sha256[:2] / f"{sha256}-{offset}-{length}"

    def _give_up(self, error: OSError) -> None:
        if self.trouble is None:
            self.trouble = (
                f"the cache in {self._folder} is not written any more: {error.strerror}; training goes on "
                "without. Free space, or choose another stream.cache"
            )
