"""What is in a dataset: counts from the manifest, and facts from samples spread evenly over it."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError
from hvc.base.storage import Store, open_store
from hvc.data_prep.groups import read_groups
from hvc.data_prep.images import EXTENSIONS, FORMATS
from hvc.data_prep.manifest import Manifest, read_manifest
from hvc.data_prep.peek import Peeked, peek
from hvc.data_prep.writer import Rejected

LOOKED_AT = 256
"""So many samples are read, unless all are wanted."""

_SHARDS = 24  # that many shards are looked into: each costs reading its index
_REJECTS, _REJECT_BYTES = 5, 1 << 16
_GREY_MODES = ("1", "L", "LA", "I;16")  # Pillow's names
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Spread:
    """How numbers are spread."""

    smallest: float
    p5: float
    median: float
    mean: float
    p95: float
    largest: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Of at least one number."""
        p5, median, p95 = np.percentile(numbers, [5, 50, 95]).tolist()
        return cls(float(min(numbers)), p5, median, float(np.mean(numbers)), p95, float(max(numbers)))


class Facts(NamedTuple):
    """What is counted of an image: sizes in bytes and pixels, and how it is stored."""

    bytes: int
    width: int
    height: int
    format: str
    grey: bool
    turned: bool
    """Whether its EXIF data asks for turning it."""


class Look(NamedTuple):
    """One image of the dataset."""

    number: int
    key: str
    path: str
    label: str | None
    facts: Facts
    data: bytes


@dataclass(frozen=True)
class Overview:
    """Everything that `hvc inspect` says. Sizes in bytes and pixels; counts of what was looked at."""

    dataset: str
    name: str
    digest: str
    source: str
    made: dict[str, Any]
    found: int
    samples: int
    rejected: int
    duplicates: int
    classes: int
    shards: int
    bytes: int
    samples_per_shard: Spread
    videos: int
    frames_per_video: Spread | None
    looked_at: int
    image_bytes: Spread
    width: Spread
    height: Spread
    formats: dict[str, int]
    shapes: dict[str, int]
    grey: int
    turned: int
    first_rejects: list[str]
    histogram: list[tuple[float, float, int]]
    """Image sizes: from, up to (bytes), how many."""

    def values(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def overview(address: str, every: bool = False) -> Overview:
    """Look at a dataset in a folder or at s3://; `every` sample of it, or some of a few shards.

    HvcError when there is no readable manifest, or what is looked at is damaged.
    """
    store = open_store(address)
    manifest = read_manifest(store)
    looks = [look.facts for look in look_at(store, manifest, _spread(manifest, every))]
    if not looks:
        raise HvcError(f"{store.address}: the dataset has no samples")
    frames = [count for video, count in read_groups(store, manifest) if video is not None]
    sizes = [look.bytes for look in looks]
    return Overview(
        dataset=store.address,
        name=manifest.name,
        digest=manifest.digest,
        source=manifest.source,
        made=manifest.made.model_dump(mode="json", exclude_defaults=True),
        found=manifest.found,
        samples=manifest.samples,
        rejected=manifest.rejected,
        duplicates=manifest.duplicates,
        classes=len(manifest.classes),
        shards=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        samples_per_shard=Spread.of([shard.samples for shard in manifest.shards]),
        videos=len(frames),
        frames_per_video=Spread.of(frames) if frames else None,
        looked_at=len(looks),
        image_bytes=Spread.of(sizes),
        width=Spread.of([look.width for look in looks]),
        height=Spread.of([look.height for look in looks]),
        formats=_counts(look.format for look in looks),
        shapes=_counts(_shape(look) for look in looks),
        grey=sum(look.grey for look in looks),
        turned=sum(look.turned for look in looks),
        first_rejects=_first_rejects(store, manifest),
        histogram=size_histogram(sizes),
    )


def open_image(data: bytes) -> Image.Image:
    """A member of a shard, not decoded yet; whatever Pillow raises for what is no image of our formats."""
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name != "MPO"])


def look_at(store: Store, manifest: Manifest, numbers: Sequence[int]) -> Iterator[Look]:
    """The images of samples (ascending numbers); HvcError names the one that is damaged."""
    for sample in peek(store, manifest, numbers):
        yield _look(sample, manifest, store.where(sample.shard))


def evenly(manifest: Manifest, count: int, shards: int = _SHARDS) -> list[int]:
    """At most `count` sample numbers, ascending, evenly from `shards` shards that are evenly spread."""
    sizes = np.array([shard.samples for shard in manifest.shards], np.int64)
    starts = np.cumsum(sizes) - sizes
    chosen = _even_places(len(sizes), min(shards, count))
    ends = np.cumsum(sizes[chosen])  # as if there were only these
    places = _even_places(int(ends[-1]), count)
    at = np.searchsorted(ends, places, "right")
    return (starts[chosen][at] + places - (ends - sizes[chosen])[at]).tolist()


def _even_places(of: int, count: int) -> NDArray[np.int64]:
    """At most `count` different numbers from 0 to `of` - 1, the first and the last among them."""
    steps = max(min(of, count) - 1, 1)
    return np.array([i * (of - 1) // steps for i in range(min(of, count))], np.int64)


def size_histogram(sizes: Sequence[int]) -> list[tuple[float, float, int]]:
    """(from, to, count) of bins that each are half as wide again as the one before."""
    first = np.floor(np.log(max(min(sizes), 1)) / np.log(1.5))
    last = np.floor(np.log(max(max(sizes), 1)) / np.log(1.5)) + 1
    edges = 1.5 ** np.arange(first, last + 1)
    counts, _ = np.histogram(np.clip(sizes, edges[0], edges[-1]), edges)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))


def _spread(manifest: Manifest, every: bool) -> Sequence[int]:
    if not manifest.shards:
        return []
    return range(manifest.samples) if every else evenly(manifest, LOOKED_AT)


def _look(sample: Peeked, manifest: Manifest, where: str) -> Look:
    ext = next((ext for ext in sample.members if ext in EXTENSIONS), None)
    if ext is None:
        raise HvcError(f"{where}: {sample.key} has no image; run `hvc verify`")
    try:
        with open_image(sample.members[ext]) as image:
            width, height = image.size
            grey = image.mode in _GREY_MODES
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
        about = json.loads(sample.members.get("json", b"{}"))
        path = str(about.get("path", ""))
        label = _label(sample, manifest)
    except Exception as error:  # noqa: BLE001 (on damaged data decoders raise nearly everything)
        raise HvcError(f"{where}: {sample.key} is damaged ({error}); run `hvc verify`") from None
    data = sample.members[ext]
    facts = Facts(len(data), width, height, ext, grey, turned)
    return Look(sample.number, sample.key, path, label, facts, data)


def _label(sample: Peeked, manifest: Manifest) -> str | None:
    if "cls" not in sample.members:
        return None
    number = int(sample.members["cls"])
    return manifest.classes[number] if 0 <= number < len(manifest.classes) else str(number)


def _shape(look: Facts) -> str:
    return "square" if look.width == look.height else "wide" if look.width > look.height else "tall"


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _first_rejects(store: Store, manifest: Manifest) -> list[str]:
    """The first few, without reading a list of millions."""
    if manifest.rejects is None:
        return []
    size = store.size(manifest.rejects.path)
    lines = store.read_range(manifest.rejects.path, 0, min(size, _REJECT_BYTES)).splitlines()
    try:
        return [str(Rejected.model_validate_json(line)) for line in lines[:_REJECTS]]
    except ValueError:
        raise HvcError(f"{store.where(manifest.rejects.path)} is damaged; run `hvc verify`") from None
