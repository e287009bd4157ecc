"""One shard: image files in, a plain WebDataset tar and its index file out, the same bytes every time.

Members of a sample, in name order: `KEY.cls` (class number, where there are classes), `KEY.EXT` (the
image file as it was found) and `KEY.json` (`path` below the input folder, `width`, `height`).
"""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hvc.base.errors import HvcError
from hvc.base.storage import sha256_file
from hvc.data_prep import images, plan
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import FileRef, Shard
from hvc.data_prep.sources import Item

_OWNER = "hvc"  # user and group of every member: who made a shard must not show in its hash


@dataclass(frozen=True)
class Task:
    """A shard to write: its name without ending, the input folder, and (number, item) in tar order."""

    name: str
    root: Path
    items: tuple[tuple[int, Item], ...]
    max_pixels: int = images.MAX_PIXELS


class Rejected(BaseModel):
    """A file that was left out, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    reason: str


class ShardRecord(BaseModel):
    """What became of a task; `shard` is None when every one of its images was rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shard: Shard | None
    rejects: tuple[Rejected, ...]


def write_shard(task: Task, folder: Path) -> ShardRecord:
    """Write `NAME.tar` and `NAME.idx` into a local folder (neither, if no image is good)."""
    tar, idx = folder / f"{task.name}.tar", folder / f"{task.name}.idx"
    try:
        rejects = _write_tar(task, tar)
        samples = len(task.items) - len(rejects)
        if not samples:
            tar.unlink()
            return ShardRecord(name=task.name, shard=None, rejects=tuple(rejects))
        idx.write_bytes(index_of(tar).to_bytes())
        shard = Shard(
            path=tar.name,
            bytes=tar.stat().st_size,
            sha256=sha256_file(tar),
            samples=samples,
            index=FileRef(path=idx.name, sha256=sha256_file(idx)),
        )
    except OSError as error:
        raise HvcError(
            f"cannot write {tar}: {error.strerror}; make room or choose another output, "
            "then run the same command again"
        ) from None
    return ShardRecord(name=task.name, shard=shard, rejects=tuple(rejects))


def index_of(tar: Path) -> ShardIndex:
    """The index of a finished tar, from the headers that are really in it."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            key, _, ext = member.name.partition(".")
            samples.setdefault(key, {})[ext] = (member.offset_data, member.size)
    return ShardIndex.build(list(samples.items()))


def _write_tar(task: Task, tar: Path) -> list[Rejected]:
    from webdataset import TarWriter  # here, because it imports torch

    rejects = []
    with (
        tar.open("wb") as file,
        TarWriter(file, user=_OWNER, group=_OWNER, encoder=False, mtime=0) as writer,
    ):
        for number, item in task.items:
            sample = _sample(task, number, item)
            if isinstance(sample, Rejected):
                rejects.append(sample)
            else:
                writer.write(sample)
    return rejects


def _sample(task: Task, number: int, item: Item) -> dict[str, str | bytes] | Rejected:
    try:
        data = (task.root / item.path).read_bytes()
    except OSError as error:
        return Rejected(path=item.path, reason=f"cannot be read: {error.strerror}")
    info = images.check(data, task.max_pixels)
    if isinstance(info, images.Reject):
        return Rejected(path=item.path, reason=info.reason)
    about = {"path": item.path, "width": info.width, "height": info.height}
    sample: dict[str, str | bytes] = {
        "__key__": plan.key(number),
        info.ext: data,
        "json": json.dumps(about).encode(),
    }
    if item.label is not None:
        sample["cls"] = str(item.label).encode()
    return sample
