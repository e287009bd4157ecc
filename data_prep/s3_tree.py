"""The objects below a prefix on S3 as a tree of files."""

from collections.abc import Iterator

from hvc.base.storage import open_store
from hvc.data_prep.tree import Entry, need_small


class S3Tree:
    """All objects below `s3://bucket/prefix`, but for the empty ones that stand for folders."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._store = open_store(address)

    def entries(self) -> Iterator[Entry]:
        for name, size in self._store.entries():
            if not name.endswith("/"):
                yield Entry(name, size)

    def read(self, entry: Entry) -> bytes:
        need_small(entry.size)
        return self._store.read(entry.path)
