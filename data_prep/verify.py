"""Is a dataset whole? Every byte of it is read and compared with what the manifest says."""

import hashlib
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import MissingError, Store, open_store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import FileRef, Manifest, Shard, read_manifest
from hvc.data_prep.progress import SHARD_FILE

_CHUNK = 8 << 20


@dataclass(frozen=True)
class VerifyReport:
    """`problems` name the file and what is wrong with it; counts are what the manifest promises."""

    problems: list[str]
    shards: int
    samples: int
    bytes: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(address: str, workers: int = 8) -> VerifyReport:
    """Check manifest, shards, index files and list of rejects of the dataset at a folder or s3:// address.

    `workers` threads read one shard each (0: as many as suit the CPUs). Damage is reported, not
    raised; HvcError when there is no readable manifest or the store cannot be asked.
    """
    if workers < 0:
        raise UsageError(f"workers {workers}: give a number from 0 on")
    store = open_store(address)
    manifest = read_manifest(store)
    with ThreadPoolExecutor(workers or None) as executor:
        found = list(executor.map(lambda shard: _check_shard(store, shard), manifest.shards))
    problems = [problem for part in found for problem in part]
    if manifest.rejects is not None:
        problems += _check_file(store, manifest.rejects)[0]
    problems += _surplus(store, manifest)
    size = sum(shard.bytes for shard in manifest.shards)
    return VerifyReport(problems, len(manifest.shards), manifest.samples, size)


def _check_shard(store: Store, shard: Shard) -> list[str]:
    problems, index_bytes = _check_file(store, shard.index)
    try:
        size = store.size(shard.path)
        if size != shard.bytes:
            return [*problems, f"{shard.path}: {size} bytes, the manifest says {shard.bytes}"]
        reader = _HashingReader(store, shard.path, size)
        members = _read_members(reader)
        if reader.finish() != shard.sha256:
            return [*problems, f"{shard.path}: its content is not what was written (sha256 differs)"]
    except MissingError:
        return [*problems, f"{shard.path}: missing"]
    if index_bytes is not None:
        problems += _compare(shard, index_bytes, members)
    return problems


def _check_file(store: Store, ref: FileRef) -> tuple[list[str], bytes | None]:
    """Problems of a small file, and its content if there are none."""
    try:
        data = store.read(ref.path)
    except MissingError:
        return [f"{ref.path}: missing"], None
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        return [f"{ref.path}: its content is not what was written (sha256 differs)"], None
    return [], data


def _compare(shard: Shard, index_bytes: bytes, members: dict[str, tuple[int, int]] | None) -> list[str]:
    """Problems between a shard's tar, index and manifest entry, each of them undamaged."""
    if members is None:
        return [f"{shard.path}: not a tar"]
    try:
        index = ShardIndex.from_bytes(index_bytes, shard.index.path)
    except HvcError as error:
        return [str(error)]
    listed = {
        f"{index.key(i)}.{ext}": place for i in range(len(index)) for ext, place in index.members(i).items()
    }
    if listed != members or len(index) != shard.samples:
        return [f"{shard.index.path}: does not describe the members of {shard.path}"]
    return []


def _surplus(store: Store, manifest: Manifest) -> list[str]:
    known = {name for shard in manifest.shards for name in (shard.path, shard.index.path)}
    found = (name for name in store.names("shard-") if SHARD_FILE.fullmatch(name))
    return [f"{name}: not in the manifest, remove it" for name in found if name not in known]


def _read_members(reader: "_HashingReader") -> dict[str, tuple[int, int]] | None:
    """Name -> (offset, length) of the data of every member; None if it is no tar."""
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as archive:
            return {member.name: (member.offset_data, member.size) for member in archive}
    except HvcError:
        raise
    except Exception:  # noqa: BLE001 (on damaged data tarfile raises nearly everything)
        return None


class _HashingReader(io.RawIOBase):
    """An object of known size, read once from front to end, in pieces, hashed on the way."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name, self._size = store, name, size
        self._position = 0
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self._position
        data = self._store.read_range(self._name, self._position, left if size < 0 else min(size, left))
        self._position += len(data)
        self._hash.update(data)
        return data

    def finish(self) -> str:
        """Hex sha256 of the whole object, after reading what is left of it."""
        while self.read(_CHUNK):
            pass
        return self._hash.hexdigest()
