"""Is a dataset whole? Every byte of it is read and compared with what the manifest says."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import MissingError, Store, open_store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import FileRef, Manifest, Shard, read_manifest
from hvc.data_prep.progress import SHARD_FILE
from hvc.data_prep.walk import PIECE, Findings, Pieces, layout_of, walk

_LISTS = ("rejects.jsonl", "duplicates.jsonl", "groups.jsonl")
_ALTERED = "its content is not what was written (sha256 differs)"
_INDEX_HEAD, _INDEX_SAMPLE = 4096, 2048  # no index file is larger than this, and this per sample


class Problem(NamedTuple):
    """One thing that is wrong with one file of a dataset."""

    file: str
    what: str
    surplus: bool = False
    """The dataset is whole, but this file does not belong to it."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class VerifyReport:
    """`problems` name the file and what is wrong with it; counts are what the manifest promises."""

    problems: list[Problem]
    shards: int
    samples: int
    bytes: int
    notes: list[str] = field(default_factory=list)
    """What lies around without doing harm."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(address: str, workers: int = 8) -> VerifyReport:
    """Check manifest, shards, index files and lists of the dataset at a folder or s3:// address.

    `workers` threads read one shard each, 8 MB at a time (0: as many as suit the CPUs). Damage is
    reported, not raised; HvcError when there is no readable manifest or the store cannot be asked.
    """
    if workers < 0:
        raise UsageError(f"workers {workers}: give a number from 0 on")
    store = open_store(address)
    manifest = read_manifest(store)
    problems = _doubles(manifest) + check_shards(store, manifest.shards, workers)
    problems += check_lists(store, manifest)
    problems += surplus(store, manifest)
    size = sum(shard.bytes for shard in manifest.shards)
    return VerifyReport(problems, len(manifest.shards), manifest.samples, size, _leftovers(store))


def check_shards(store: Store, shards: Iterable[Shard], workers: int) -> list[Problem]:
    """Problems of shards and their index files, in the order given."""
    shards = list(shards)
    with _bar(sum(shard.bytes for shard in shards)) as advance:
        executor = ThreadPoolExecutor(workers or None)
        try:
            found = list(executor.map(lambda shard: _check_shard(store, shard, advance), shards))
        finally:
            executor.shutdown(cancel_futures=True)  # after Ctrl-C nobody waits for the other shards
    return [problem for part in found for problem in part]


def check_lists(store: Store, manifest: Manifest) -> list[Problem]:
    """Problems of the lists of rejects, duplicates and groups that the manifest names."""
    problems = []
    for name, ref, expected in _lists(manifest):
        if ref is None:
            problems += [Problem("manifest.json", f"names no {name}")] if expected else []
            continue
        problem = _check_file(store, ref)
        if problem is None and name != "groups.jsonl" and (count := _lines(store, ref.path)) != expected:
            problem = Problem(ref.path, f"{count} lines, the manifest says {expected}")
        if problem is not None:
            problems.append(problem)
    return problems


def surplus(store: Store, manifest: Manifest) -> list[Problem]:
    """Shards, index files and lists that lie there and are not in the manifest."""
    known = set(_names(manifest))
    found = [name for name in store.names("shard-") if SHARD_FILE.fullmatch(name)]
    found += [name for name in _LISTS if name not in known and store.exists(name)]
    return [
        Problem(name, "not in the manifest, remove it", surplus=True) for name in found if name not in known
    ]


def _names(manifest: Manifest) -> Iterator[str]:
    """All files that the manifest names."""
    for shard in manifest.shards:
        yield from (shard.path, shard.index.path)
    yield from (ref.path for _, ref, _ in _lists(manifest) if ref is not None)


def _doubles(manifest: Manifest) -> list[Problem]:
    counts = Counter(PurePosixPath(name).as_posix() for name in _names(manifest))
    return [Problem(name, "named more than once by the manifest") for name, n in counts.items() if n > 1]


def _lists(manifest: Manifest) -> list[tuple[str, FileRef | None, int]]:
    """File name, reference and number of lines of every list."""
    return [
        (_LISTS[0], manifest.rejects, manifest.rejected),
        (_LISTS[1], manifest.duplicates_list, manifest.duplicates),
        (_LISTS[2], manifest.groups, 0),
    ]


def _check_shard(store: Store, shard: Shard, advance: Callable[[int], object]) -> list[Problem]:
    problem = _check_index_file(store, shard)
    problems = [] if problem is None else [problem]
    try:
        size = store.size(shard.path)
        if size != shard.bytes:
            return [*problems, Problem(shard.path, f"{size} bytes, the manifest says {shard.bytes}")]
        pieces = Pieces(store, shard.path, size, advance)
        fault, findings = (None, None) if problems else _compare(store, shard, pieces)
        if pieces.sha256() != shard.sha256:
            return [*problems, Problem(shard.path, _ALTERED + (f": {findings}" if findings else ""))]
    except MissingError:
        return [*problems, Problem(shard.path, "missing")]
    if fault is not None:
        problems.append(Problem(shard.index.path, fault))
    if findings:
        problems.append(Problem(shard.index.path, f"does not describe {shard.path}: {findings}"))
    return problems


def _check_index_file(store: Store, shard: Shard) -> Problem | None:
    try:
        size = store.size(shard.index.path)
    except MissingError:
        return Problem(shard.index.path, "missing")
    if size > _INDEX_HEAD + _INDEX_SAMPLE * shard.samples:
        return Problem(shard.index.path, f"{size} bytes are too many for {shard.samples} samples")
    return _check_file(store, shard.index)


def _check_file(store: Store, ref: FileRef) -> Problem | None:
    try:
        digest = hashlib.sha256()
        for piece in _pieces(store, ref.path):
            digest.update(piece)
    except MissingError:
        return Problem(ref.path, "missing")
    return None if digest.hexdigest() == ref.sha256 else Problem(ref.path, _ALTERED)


def _compare(store: Store, shard: Shard, pieces: Pieces) -> tuple[str | None, Findings | None]:
    """What is wrong with the index in itself, or else what does not fit between it and the tar."""
    try:
        index = ShardIndex.from_bytes(store.read(shard.index.path), shard.index.path)
    except HvcError as error:
        return str(error), None
    if len(index) != shard.samples:
        return f"{len(index)} samples, the manifest says {shard.samples}", None
    layout = layout_of(index, shard.bytes)
    if isinstance(layout, str):
        return f"does not describe {shard.path}: {layout}", None
    return None, walk(pieces, layout)


def _leftovers(store: Store) -> list[str]:
    progress = sum(1 for _ in store.names(".progress/"))
    temporary = [name for name in store.names(".") if "/" not in name and name.endswith(".tmp")]
    notes = [f".progress/: {progress} files of a run that was not finished"] if progress else []
    return notes + [f"{name}: left by a write that was killed" for name in temporary]


def _lines(store: Store, name: str) -> int:
    return sum(piece.count(b"\n") for piece in _pieces(store, name))


def _pieces(store: Store, name: str) -> Iterator[bytes]:
    size = store.size(name)
    return (store.read_range(name, start, min(PIECE, size - start)) for start in range(0, size, PIECE))


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Progress in bytes on stderr, if somebody is looking; gives what advances it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda count: bar.advance(task, count)
