"""A folder on a local or shared file system, as a store of objects."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hvc.base.files import put_if_absent
from hvc.base.store import AlreadyExistsError, MissingError, StorageError, Stored, safe_name

_CHUNK = 1 << 20


class FolderStore:
    """A folder on a local or shared file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.address = str(self._folder)
        self.retries = 0

    def where(self, name: str) -> str:
        return str(self._path(name))

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def size(self, name: str) -> int:
        try:
            return self._path(name).stat().st_size
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            with self._path(name).open("rb") as file:
                data = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None
        if len(data) != length:
            raise StorageError(f"cannot read {self.where(name)}: it ends before byte {offset + length}")
        return data

    def fetch(self, name: str, target: BinaryIO) -> None:
        try:
            with self._path(name).open("rb") as file:
                shutil.copyfileobj(file, target, _CHUNK)
        except OSError as error:
            raise _os_error("copy", self.where(name), error) from None

    def write(self, name: str, data: bytes) -> None:
        temporary = self._temporary(name, data)
        try:
            temporary.replace(self._path(name))
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _os_error("write", self.where(name), error) from None

    def create(self, name: str, data: bytes) -> None:
        temporary = self._temporary(name, data)
        try:
            put_if_absent(temporary, self._path(name))
        except FileExistsError:
            raise AlreadyExistsError(f"{self.where(name)} is already there") from None
        except OSError as error:
            raise _os_error("write", self.where(name), error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def upload(self, name: str, path: Path, sha256: str | None = None) -> None:  # noqa: ARG002 (nowhere to note it)
        target = self._path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_dev == target.parent.stat().st_dev:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                path.replace(target)
                return
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with path.open("rb") as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                    sink.flush()
                    os.fsync(sink.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            path.unlink()
        except OSError as error:
            raise _os_error("write", self.where(name), error) from None

    def stored(self, name: str) -> Stored:
        return Stored(self.size(name), None)

    def names(self, prefix: str = "") -> Iterator[str]:
        return (name for name, _ in self._walk("", prefix))

    def entries(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        for name, entry in self._walk("", prefix):
            try:
                yield name, entry.stat().st_size
            except OSError as error:
                raise _os_error("read", self.where(name), error) from None

    def abort_uploads(self, prefix: str = "") -> int:  # noqa: ARG002 (killed writers leave none)
        return 0

    def delete(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise _os_error("delete", self.where(name), error) from None

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Files in the order of their names; `folder` is "" or ends with `/`."""
        try:
            with os.scandir(self._folder / folder) as found:
                entries = {f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name: e for e in found}
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _os_error("list", self.where(folder or "."), error) from None
        for short in sorted(entries):
            name = folder + short
            if not name.startswith(prefix) and not (short.endswith("/") and prefix.startswith(name)):
                continue
            if short.endswith("/"):
                yield from self._walk(name, prefix)
            elif entries[short].is_file():
                yield name, entries[short]

    def _path(self, name: str) -> Path:
        return self._folder / safe_name(name)

    def _temporary(self, name: str, data: bytes) -> Path:
        target = self._path(name)
        path: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, text = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
            path = Path(text)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o644)
        except OSError as error:
            if path is not None:
                path.unlink(missing_ok=True)
            raise _os_error("write", self.where(name), error) from None
        return path


def _os_error(verb: str, where: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return MissingError(f"cannot {verb} {where}: there is no such file")
    advice = {28: "; free some space or choose another disk", 13: "; check the permissions"}
    return StorageError(f"cannot {verb} {where}: {error.strerror}{advice.get(error.errno or 0, '')}")
