"""A folder (or S3 prefix) of tars as one tree: each tar is the folder that it is named after."""

import re
from collections.abc import Iterator

from hvc.data_prep.tar_tree import TarTree
from hvc.data_prep.tree import Entry, Tree

_MAX_OPEN = 64  # tars a process keeps open: ImageNet-21k has 21,841 of them


class TarFolder:
    """Files of another tree; tars whose names (without `.tar`) match `pattern` are entered.

    Workers find the tar again by the file's path, so that no list of tars travels to them: `Place.crc`,
    which a tar has no use for, holds how many parts of the path name the tar.
    """

    def __init__(self, tree: Tree, pattern: re.Pattern[str]) -> None:
        self.address = tree.address
        self._tree = tree
        self._pattern = pattern
        self._open: dict[str, TarTree] = {}

    def entries(self) -> Iterator[Entry]:
        for entry in self._tree.entries():
            folder = entry.path.removesuffix(".tar")
            if folder == entry.path or not self._pattern.fullmatch(folder.rpartition("/")[2]):
                yield entry
                continue
            depth = folder.count("/") + 1
            for path, size, place in self._tar(folder).entries():
                assert place is not None
                yield Entry(f"{folder}/{path}", size, place._replace(crc=depth))

    def read(self, entry: Entry) -> bytes:
        if entry.place is None:
            return self._tree.read(entry)
        folder = "/".join(entry.path.split("/")[: entry.place.crc])
        return self._tar(folder).read(entry)

    def _tar(self, folder: str) -> TarTree:
        tar = self._open.pop(folder, None)
        if tar is None:
            if len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)))
            tar = TarTree(f"{self.address.rstrip('/')}/{folder}.tar")
        self._open[folder] = tar  # at the end: the one used last
        return tar

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}
