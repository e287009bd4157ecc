"""One shard: records in, a plain WebDataset tar and its index file out, the same bytes every time.

Members of a sample, in name order: `KEY.EXT` (the image), `KEY.json` (`path`, `width`, `height` and,
where they apply, `input`, `video`, `frame`, `time`, `orientation`), `KEY.cls` (class number), and the
files that travel along (`KEY.txt`, `KEY.mask.png`).
"""

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, StorageError
from hvc.data_prep import images, plan
from hvc.data_prep.catalog import Record
from hvc.data_prep.images import Gate
from hvc.data_prep.layouts import MASK
from hvc.data_prep.manifest import FileRef, Shard
from hvc.data_prep.tar_file import TarFile, Written
from hvc.data_prep.tree import Tree, printable

_LARGE = 4_000_000  # bytes from which on a record is handled alone, so that few are in memory at once

# These say that the machine is in trouble, not that a file is bad: rejecting it would lose it.
NOT_THE_FILES_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.ESTALE})
"""Error numbers that say nothing about the file that was to be read."""


@dataclass(frozen=True)
class Task:
    """A shard to write: its name without ending, and (number in the catalog, record) in tar order."""

    name: str
    items: tuple[tuple[int, Record], ...]
    trees: tuple[Tree, ...]
    """The inputs, which records name by number."""
    gate: Gate = field(default_factory=Gate)
    classes: tuple[str, ...] = ()
    """Class names in order of their numbers."""


class Rejected(BaseModel):
    """A file that was left out, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    reason: str
    input: int | None = None
    """Which of several inputs it lies in, from 0."""

    def __str__(self) -> str:
        where = "" if self.input is None else f" (input {self.input})"
        return f"{self.path}{where}: {self.reason}"


class Run(NamedTuple):
    """Consecutive samples of one video (None: pictures of their own) of one input."""

    video: str | None
    samples: int
    input: int = 0


class ShardRecord(BaseModel):
    """What became of a task; `shard` is None when every one of its images was rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shard: Shard | None
    rejects: tuple[Rejected, ...]
    runs: tuple[Run, ...] = ()
    """In tar order."""


def write_shard(task: Task, folder: Path, *, thread: bool = True) -> ShardRecord:
    """Write `NAME.tar` and `NAME.idx` into a local folder (neither, if no image is good).

    With `thread`, a second thread hashes and writes: sooner done if a core is free, dearer if none is.
    HvcError when they cannot be written, or an input cannot be read at all; then neither is left.
    """
    tar, idx = folder / f"{task.name}.tar", folder / f"{task.name}.idx"
    samples = _Samples(task)
    try:
        with TarFile(tar, thread=thread) as file:
            samples.write(file)
            if not samples.runs:
                return ShardRecord(name=task.name, shard=None, rejects=tuple(samples.rejects))
            written = file.finish()
        index = written.index.to_bytes()
        idx.write_bytes(index)
    except OSError as error:
        tar.unlink(missing_ok=True)
        idx.unlink(missing_ok=True)
        raise HvcError(
            f"cannot write {tar}: {error.strerror}; make room there, or choose another output (for one on "
            "S3 another TMPDIR), then run the same command again"
        ) from None
    return ShardRecord(
        name=task.name,
        shard=_shard(tar, idx, written, index),
        rejects=tuple(samples.rejects),
        runs=tuple(samples.runs),
    )


def _shard(tar: Path, idx: Path, written: Written, index: bytes) -> Shard:
    return Shard(
        path=tar.name,
        bytes=written.bytes,
        sha256=written.sha256,
        samples=len(written.index),
        index=FileRef(path=idx.name, sha256=hashlib.sha256(index).hexdigest()),
    )


class _UnfitError(Exception):
    """Why a record is left out."""


class _Samples:
    """The samples of a task, made one by one; what was rejected on the way, and the runs of videos."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._numbers = {name: str(number).encode() for number, name in enumerate(task.classes)}
        self.rejects: list[Rejected] = []
        self.runs: list[Run] = []

    def write(self, file: TarFile) -> None:
        """Append every good one."""
        for number, record in self._task.items:
            size = record.size + sum(extra.entry.size for extra in record.extras)
            if size >= _LARGE:
                file.drain()
            try:
                _need_size(size)
                file.add(plan.key(number), self._members(record))
            except _UnfitError as reason:
                self.rejects.append(
                    Rejected(
                        path=printable(record.path),
                        reason=printable(str(reason)),
                        input=record.input if len(self._task.trees) > 1 else None,
                    )
                )
                continue
            self._count(record)
            if size >= _LARGE:
                file.drain()

    def _members(self, record: Record) -> dict[str, bytes]:
        """Extension -> content; _UnfitError says why the record cannot be a sample."""
        data = self._read(record, lambda tree: tree.read(record.entry))
        info = images.check(data, self._task.gate)
        if isinstance(info, images.Reject):
            raise _UnfitError(info.reason)
        members = {
            info.ext: data if info.data is None else info.data,
            "json": json.dumps(_about(record, info, len(self._task.trees))).encode(),
        }
        if record.label is not None and self._numbers:
            members["cls"] = self._numbers[record.label]
        for extra in record.extras:
            assert extra.ext not in members
            what = f"its {extra.ext} ({extra.entry.path}) "
            content = self._read(record, extra.content, what)
            members[extra.ext] = self._fitting(content, info, what) if extra.ext == MASK else content
        return members

    @staticmethod
    def _fitting(mask: bytes, info: images.ImageInfo, what: str) -> bytes:
        """The mask, turned and scaled as its image was, if that was encoded anew."""
        if info.data is None or info.width is None or info.height is None:
            return mask
        from hvc.data_prep.decoding import fit_mask

        fitted = fit_mask(mask, (info.width, info.height), info.turned)
        if isinstance(fitted, images.Reject):
            raise _UnfitError(f"{what}{fitted.reason}")
        return fitted

    def _read(self, record: Record, content: Callable[[Tree], bytes], what: str = "") -> bytes:
        tree = self._task.trees[record.input]
        try:
            data = content(tree)
        except OSError as error:
            if error.errno in NOT_THE_FILES_FAULT:
                raise HvcError(f"{tree.address}: cannot read {record.path}: {error.strerror}") from None
            raise _UnfitError(f"{what}cannot be read: {error.strerror or error}") from None
        except HvcError as error:
            if isinstance(error, StorageError) and not isinstance(error, MissingError):
                raise  # the store does not answer; its files may be as good as ever
            raise _UnfitError(f"{what}cannot be read: {error}") from None
        _need_size(len(data), what)
        return data

    def _count(self, record: Record) -> None:
        video = None if record.video is None else printable(record.video)
        run = Run(video, 0, 0 if video is None else record.input)  # two inputs may name videos alike
        if self.runs and self.runs[-1][::2] == run[::2]:
            run = self.runs.pop()
        self.runs.append(run._replace(samples=run.samples + 1))


def _need_size(size: int, what: str = "") -> None:
    if size > images.MAX_BYTES:
        raise _UnfitError(f"{what}has {size} bytes, more than {images.MAX_BYTES}")


def _about(record: Record, info: images.ImageInfo, inputs: int) -> dict[str, Any]:
    """The content of a sample's JSON member."""
    about = {
        "path": printable(record.path),
        "width": info.width,
        "height": info.height,
        "input": record.input if inputs > 1 else None,
        "video": None if record.video is None else printable(record.video),
        "frame": record.frame,
        "time": record.time,
        "orientation": info.orientation if info.orientation != 1 else None,
    }
    return {name: value for name, value in about.items() if value is not None}
