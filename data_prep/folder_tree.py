"""A local folder as a tree of files."""

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from hvc.base.errors import HvcError
from hvc.data_prep.tree import Entry, need_small, unreadable

_Identity = tuple[int, int]


class FolderTree:
    """All files below a folder, at any depth.

    Links are followed, but never into a folder that contains them. A link to nothing is listed with
    size 0: reading it gives the reason for its rejection.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._root = os.path.abspath(address)  # noqa: PTH100 (a prefix for strings, in hot loops)

    def entries(self) -> Iterator[Entry]:
        stat = Path(self._root).stat()
        yield from _walk(self._root + "/", "", ((stat.st_dev, stat.st_ino),))

    def read(self, entry: Entry) -> bytes:
        # Not to wait for ever on a pipe that is called .jpg, hence O_NONBLOCK.
        with os.fdopen(os.open(f"{self._root}/{entry.path}", os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as file:
            stat = os.fstat(file.fileno())
            if not S_ISREG(stat.st_mode):
                raise unreadable("not a regular file")
            need_small(stat.st_size)
            return file.read()


def _walk(root: str, folder: str, ancestors: tuple[_Identity, ...]) -> Iterator[Entry]:
    """Files in the order of their whole paths: beside files, a folder `a` counts as `a/`."""
    found = sorted((item.name + "/" if item.is_dir() else item.name, item) for item in _scan(root + folder))
    for name, item in found:
        if not name.endswith("/"):
            yield Entry(folder + name, _size(item))
            continue
        stat = item.stat()
        identity = (stat.st_dev, stat.st_ino)
        if identity not in ancestors:  # a link back up would never end
            yield from _walk(root, folder + name, (*ancestors, identity))


def _scan(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        raise HvcError(f"cannot read the folder {folder.rstrip('/')}: {error.strerror}") from None


def _size(item: "os.DirEntry[str]") -> int:
    try:
        return item.stat().st_size
    except OSError:
        return 0
