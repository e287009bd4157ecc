"""The files of a checkpoint, wherever it is, as local files of the right content."""

import tempfile
from pathlib import Path
from typing import IO

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, StorageError, Store, sha256_file
from hvc.pretrain.checkpoints.marker import DamagedError, Marker
from hvc.pretrain.checkpoints.retention import local_folder


class Files:
    """The files of one checkpoint on this machine, each checked when it is first asked for.

    Those of a bucket are fetched into temporary files without a name, which go with this object, and with
    the process however it ends.
    """

    def __init__(self, store: Store, marker: Marker) -> None:
        self._store, self._marker = store, marker
        self._checked: dict[str, Path] = {}
        self._fetched: list[IO[bytes]] = []

    def path(self, name: str) -> Path:
        """A local file of the right content; DamagedError that names it otherwise."""
        if name not in self._checked:
            self._checked[name] = self._check(name)
        return self._checked[name]

    def _check(self, name: str) -> Path:
        where, expected = self._store.where(name), self._marker.files.get(name)
        if expected is None:
            raise HvcError(f"{self._store.address}: a checkpoint without {name}; use another one")
        try:
            size = self._store.size(name)
            if size != expected.bytes:
                raise DamagedError(f"{where}: {size} bytes, not {expected.bytes}; use another checkpoint")
            path = self._local(name)
            if sha256_file(path) != expected.sha256:
                raise DamagedError(f"{where}: altered since it was written; use another checkpoint")
        except MissingError:
            raise DamagedError(f"{where}: missing; use another checkpoint") from None
        except OSError as error:
            raise StorageError(
                f"cannot read {where}: {error.strerror}; move its folder away to go on from an older one"
            ) from None
        return path

    def _local(self, name: str) -> Path:
        folder = local_folder(self._store)
        if folder is not None:
            return folder / name
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this object)
            self._fetched.append(file)
            self._store.fetch(name, file)
            file.flush()
        except OSError as error:
            raise StorageError(
                f"cannot copy {self._store.where(name)} to {tempfile.gettempdir()}: {error.strerror}; free "
                "some space or set TMPDIR to another folder"
            ) from None
        return Path(f"/proc/self/fd/{file.fileno()}")
