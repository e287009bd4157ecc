"""Where the frames of one video lie in a dataset."""

import difflib
import json
from dataclasses import dataclass

from hvc.base.errors import HvcError
from hvc.base.storage import Store, open_store
from hvc.data_prep.groups import read_groups
from hvc.data_prep.manifest import Manifest, read_manifest
from hvc.data_prep.peek import Peeked, peek


@dataclass(frozen=True)
class Frame:
    """A frame: its sample number in the dataset, its place in a shard, and what it is in its video."""

    sample: int
    shard: str
    position: int
    key: str
    path: str
    frame: int | None
    time: float | None
    """Seconds from the start of the video."""


def video_frames(address: str, name: str) -> list[Frame]:
    """All frames of the video, in order; HvcError when the dataset has no such video."""
    store = open_store(address)
    manifest = read_manifest(store)
    numbers = _numbers(store, manifest, name)
    return [_frame(sample, store.where(sample.shard)) for sample in peek(store, manifest, numbers, "json")]


def _numbers(store: Store, manifest: Manifest, name: str) -> list[int]:
    numbers: list[int] = []
    names, start = [], 0
    for video, count in read_groups(store, manifest):
        if video == name:  # two inputs may each have a video of this name
            numbers += range(start, start + count)
        elif video is not None:
            names.append(video)
        start += count
    if numbers:
        return numbers
    if not names:
        raise HvcError(f"{store.address}: the dataset has no videos")
    near = difflib.get_close_matches(name, names) or sorted(names)[:3]
    raise HvcError(f"{store.address} has no video {name!r} among {len(names)}; there is {', '.join(near)}")


def _frame(sample: Peeked, where: str) -> Frame:
    try:
        about = json.loads(sample.members["json"])
        path, frame, time = str(about["path"]), about.get("frame"), about.get("time")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HvcError(f"{where}: {sample.key}.json is damaged; run `hvc verify`") from None
    return Frame(sample.number, sample.shard, sample.position, sample.key, path, frame, time)
