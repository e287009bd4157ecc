"""Remake exactly what is damaged in a dataset, from the inputs that it was made from."""

import itertools
import shutil
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import never
from hvc.base.storage import Store, open_store
from hvc.data_prep import plan
from hvc.data_prep.blueprint import Blueprint
from hvc.data_prep.catalog import Catalog
from hvc.data_prep.commit import commit
from hvc.data_prep.dedupe import find_duplicates, hash_catalog
from hvc.data_prep.manifest import MANIFEST_VERSION, FileRef, Manifest, Shard, read_manifest
from hvc.data_prep.peek import load_index
from hvc.data_prep.pool import Workers, default_workers, spare_core
from hvc.data_prep.progress import Progress
from hvc.data_prep.sources import FrameOptions, build_catalog
from hvc.data_prep.stock import check_stock
from hvc.data_prep.tree import printable
from hvc.data_prep.verify import Problem, VerifyReport, check_lists, check_shards, surplus, verify
from hvc.data_prep.writer import Run, ShardRecord, Task, write_shard


@dataclass(frozen=True)
class RepairReport:
    """What was done, and how the dataset is now."""

    remade: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """What is still wrong with the files that were remade or with the lists."""


def repair(address: str, inputs: Sequence[str], before: VerifyReport, workers: int = 0) -> RepairReport:
    """Remake the files that `before` (a report of `verify`) names, and remove what is surplus.

    `inputs` are what the dataset was made from, in the same order, as ADDRESS or SOURCE:ADDRESS. A file
    is replaced only by one with the hash that the manifest has. Killed at any moment, it can be done
    again. HvcError when the inputs are not what they were, or a file does not come out the same.
    """
    store = open_store(address)
    manifest = read_manifest(store)
    damaged = {problem.file for problem in before.problems if not problem.surplus}
    _need_whole(manifest, damaged)
    progress = Progress(store, manifest.digest)
    with progress.alone(), _tidy(progress):
        if damaged:
            with Workers(workers or default_workers()) as processes:
                _Work(store, manifest, inputs, progress, processes).remake(damaged)
        extra = [problem.file for problem in surplus(store, manifest)]
        for name in extra:
            store.delete(name)
    shards = [shard for shard in manifest.shards if not damaged.isdisjoint({shard.path, shard.index.path})]
    problems = check_shards(store, shards, workers) + check_lists(store, manifest)
    return RepairReport(sorted(damaged), extra, problems)


@contextmanager
def _tidy(progress: Progress) -> Iterator[None]:
    """Nothing is left, and nothing is taken from an earlier repair: it may have hashed altered files."""
    progress.close()
    try:
        yield
    finally:
        progress.close()


def report_of(address: str, inputs: Sequence[str], workers: int, *, stock: bool = False) -> dict[str, Any]:
    """What `hvc verify` says of a dataset, as plain data; with `inputs` it is repaired first."""
    found = verify(address, workers)
    problems, done = found.problems, {}
    if inputs:
        repaired = repair(address, inputs, found)
        problems = repaired.problems
        done = {"remade": repaired.remade, "removed": repaired.removed}
    if stock and not problems:
        store = open_store(address)
        problems = check_stock(store, read_manifest(store).shards)
    values = {
        "dataset": address,
        "ok": not problems,
        "shards": found.shards,
        "samples": found.samples,
        "bytes": found.bytes,
        **done,
        "problems": [str(problem) for problem in problems],
        "notes": found.notes,
    }
    if problems and not inputs:
        values["next"] = f"hvc verify {address} --repair INPUT... makes these files again, from its inputs"
    return values


class _Work:
    """A dataset's plan, made again from its inputs."""

    def __init__(
        self, store: Store, manifest: Manifest, inputs: Sequence[str], progress: Progress, workers: Workers
    ) -> None:
        self._store, self._manifest, self._progress, self._workers = store, manifest, progress, workers
        self._catalog = _catalog(manifest, inputs)
        self._blueprint = Blueprint(self._catalog, manifest.made, self._find_duplicates())
        self._number_of = {f"{plan.shard_name(i)}.tar": i for i in range(len(self._blueprint))}

    def remake(self, damaged: Set[str]) -> None:
        """Put every damaged file into its place again."""
        shards = {shard.path: shard for shard in self._manifest.shards}
        wanted = [
            shard for shard in shards.values() if not {shard.path, shard.index.path}.isdisjoint(damaged)
        ]
        with self._progress.work_folder() as work:
            tasks = (self._task(shard) for shard in wanted)
            make = partial(write_shard, folder=work, thread=spare_core(self._workers))
            with closing(self._workers.run(make, tasks, never)) as made:
                for record in made:
                    self._replace(shards[f"{record.name}.tar"], record, work, damaged)
            lists = damaged & {ref.path for ref in _lists(self._manifest)}
            if lists:
                self._remake_lists(lists, work)

    def _replace(self, shard: Shard, record: ShardRecord, work: Path, damaged: Set[str]) -> None:
        if record.shard != shard:
            raise _not_the_same(self._store.where(shard.path), self._manifest)
        for name, sha256 in ((shard.path, shard.sha256), (shard.index.path, shard.index.sha256)):
            if name in damaged:
                self._store.upload(name, work / name, sha256)
            else:
                (work / name).unlink()

    def _remake_lists(self, names: Set[str], work: Path) -> None:
        """Commit the dataset once more, to a folder aside, and take the lists from there."""
        aside = work / "lists"
        found = commit(
            self._manifest, list(self._all_records(work)), self._blueprint.duplicates(), open_store(aside)
        )
        there = {ref.path: ref for ref in _lists(found)}
        for ref in _lists(self._manifest):
            if ref.path in names:
                if there.get(ref.path) != ref:
                    raise _not_the_same(self._store.where(ref.path), self._manifest)
                self._store.upload(ref.path, aside / ref.path, ref.sha256)
        shutil.rmtree(aside)

    def _all_records(self, work: Path) -> Iterator[ShardRecord]:
        """What became of every shard: the keys in the indexes tell which images were good."""
        shards = {shard.path: shard for shard in self._manifest.shards}
        bad: list[int] = []
        for number in range(len(self._blueprint)):
            name = plan.shard_name(number)
            shard = shards.get(f"{name}.tar")
            good = [] if shard is None else _numbers(self._store, shard)
            items = self._blueprint.numbers(number)
            if not set(good) <= set(items):
                raise _not_the_same(self._store.where(f"{name}.tar"), self._manifest)
            bad += sorted(set(items).difference(good))
            yield ShardRecord(name=name, shard=shard, rejects=(), runs=tuple(self._runs(good)))
        if bad:
            yield self._look_again(bad, work)

    def _look_again(self, numbers: list[int], work: Path) -> ShardRecord:
        record = write_shard(self._blueprint.task_of("rejected", numbers), work)
        if record.shard is not None:
            raise HvcError(
                f"{self._store.address}: an image that was rejected is good now; another version of "
                "Pillow may decode more; shard the images again"
            )
        return record

    def _runs(self, numbers: list[int]) -> Iterator[Run]:
        groups = self._catalog.group_ids
        ids = [-1] * len(numbers) if groups is None else groups[numbers].tolist()
        for group, together in itertools.groupby(zip(ids, numbers, strict=True), key=lambda pair: pair[0]):
            members = list(together)
            source = 0 if group < 0 else self._catalog.input_of(members[0][1])
            video = self._catalog.video_name(group)
            yield Run(None if video is None else printable(video), len(members), source)

    def _task(self, shard: Shard) -> Task:
        number = self._number_of.get(shard.path)
        if number is None:
            raise _not_the_same(self._store.where(shard.path), self._manifest)
        return self._blueprint.task(number)

    def _find_duplicates(self) -> NDArray[np.int64] | None:
        if not self._manifest.made.dedupe:
            return None
        hashes = hash_catalog(self._catalog, self._progress, self._workers, never, lambda _: None, 0.0)
        assert hashes is not None  # nothing stops it
        return find_duplicates(hashes)


def _need_whole(manifest: Manifest, damaged: Set[str]) -> None:
    """HvcError when a file is damaged that nothing else says how to remake."""
    known = {name for shard in manifest.shards for name in (shard.path, shard.index.path)}
    known |= {ref.path for ref in _lists(manifest)}
    if len(known) < 2 * len(manifest.shards) + len(_lists(manifest)) or not damaged <= known:
        raise HvcError(f"the manifest of {manifest.name} is wrong in itself; shard the images again")


def _catalog(manifest: Manifest, inputs: Sequence[str]) -> Catalog:
    """The inputs listed anew; HvcError unless they are what the dataset was made from."""
    made = manifest.made
    if manifest.version != MANIFEST_VERSION:
        raise HvcError(f"{manifest.name} was made by an earlier hvc ({made.hvc}); shard the images again")
    if len(inputs) != len(made.sources):
        names, count = ", ".join(made.sources), len(made.sources)
        raise UsageError(
            f"{manifest.name} was made from {count} inputs ({names}), and {len(inputs)} are given; give "
            "the same ones in the same order"
        )
    pairs = [_pair(text, source) for text, source in zip(inputs, made.sources, strict=True)]
    frames = None if made.frames is None else FrameOptions(**made.frames.model_dump())
    catalog = build_catalog(pairs, frozenset(made.extras), frames)
    if catalog.digest() != made.input:
        raise HvcError(
            f"{', '.join(address for _, address in pairs)}: not what {manifest.name} was made from: files "
            "were added, removed, renamed or changed in size; restore them, or shard the images again"
        )
    return catalog


def _pair(text: str, source: str) -> tuple[str, str]:
    """Source and address of an input; the source may be left out."""
    before, colon, after = text.partition(":")
    if colon and not after.startswith("//") and before == source:
        return source, after
    return source, text


def _lists(manifest: Manifest) -> list[FileRef]:
    return [ref for ref in (manifest.rejects, manifest.duplicates_list, manifest.groups) if ref is not None]


def _numbers(store: Store, shard: Shard) -> list[int]:
    index = load_index(store, shard)
    return [int(index.key(i)) for i in range(len(index))]


def _not_the_same(where: str, manifest: Manifest) -> HvcError:
    made = manifest.made
    cause = "files of the input were altered"
    if made.pillow is not None:
        cause += f", or images were encoded by another Pillow than {made.pillow}"
    return HvcError(
        f"{where} cannot be remade as it was: {cause} (made by hvc {made.hvc}); nothing of it was "
        "replaced; restore the input, or shard the images again"
    )
