"""Everything found in the inputs, in one fixed order, in columns: 14 million records fit in memory."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from operator import itemgetter, lt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.data_prep.columns import Names, OptionalColumn, Texts
from hvc.data_prep.tree import Entry, Place, Tree

_CHUNK = 1 << 14  # records that are turned into columns at once
_NONE = -(1 << 62)  # no frame number

_Key = tuple[str, int, str]  # what records of an input are sorted by: video, frame, path


class Extra(NamedTuple):
    """A file that travels with an image: the member's extension (`txt`, `mask.png`) and what to read.

    Where the listing already holds the content (a caption out of a large annotation file) it is in
    `data`, and `entry` only says where it comes from: use `content`.
    """

    ext: str
    entry: Entry
    data: bytes | None = None

    def content(self, tree: Tree) -> bytes:
        """The member's bytes, read from the image's tree where need be; errors as `Tree.read`."""
        return tree.read(self.entry) if self.data is None else self.data


class Record(NamedTuple):
    """One image as it was found."""

    path: str
    size: int = 0
    place: Place | None = None
    label: str | None = None
    """Class name; its number is its position among the sorted class names of all inputs."""
    video: str | None = None
    """Name of the video that this is a frame of, unique within the input."""
    frame: int | None = None
    """Number of the frame in its video, as its file name or the decoder says."""
    time: float | None = None
    """Seconds from the start of the video, where known."""
    extras: tuple[Extra, ...] = ()
    input: int = 0
    """Which input it comes from (filled in by the catalog)."""

    @property
    def entry(self) -> Entry:
        """What to read from the tree of its input."""
        return Entry(self.path, self.size, self.place)


class Catalog:
    """The records of all inputs; record `i` is the same on every machine for the same inputs."""

    def __init__(self) -> None:
        self.trees: tuple[Tree, ...] = ()
        """The trees that `Record.input` counts."""
        self.classes: tuple[str, ...] = ()
        """Sorted class names; a label's number is its position here."""
        self.sizes: NDArray[np.int64] = np.zeros(0, np.int64)
        """int64 [n]: bytes of each image (an estimate, for frames that are still to be decoded)."""
        self.group_ids: NDArray[np.int32] | None = None
        """int32 [n]: number of the video that a record is a frame of, -1 for single images; None
        where there are no videos. Frames of one video stand together, in time."""
        self._paths = Texts()
        self._labels: NDArray[np.int32] | None = None
        self._videos: tuple[str, ...] = ()
        self._frames: NDArray[np.int64] | None = None
        self._times: NDArray[np.float64] | None = None
        self._places: tuple[NDArray[Any], ...] | None = None
        self._extras: dict[int, tuple[Extra, ...]] = {}
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)

    @classmethod
    def build(cls, inputs: Sequence[tuple[Tree, Iterable[Record]]]) -> "Catalog":
        """Take records up in the order given, input after input.

        Records of an input come sorted by path, frames by (video, frame, path); HvcError if they don't,
        or if a path is there twice.
        """
        builder = _Builder()
        for tree, records in inputs:
            builder.add(tree, records)
        return builder.finished()

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def total_bytes(self) -> int:
        """Bytes of all images together."""
        return int(self.sizes.sum())

    def path(self, number: int) -> str:
        """Path of a record below its input."""
        return self._paths[number]

    def label_number(self, number: int) -> int | None:
        """Position of a record's class in `classes`, if it has one."""
        label = -1 if self._labels is None else int(self._labels[number])
        return None if label < 0 else label

    def input_of(self, number: int) -> int:
        """Which input a record comes from."""
        return int(np.searchsorted(self._starts, number, "right")) - 1

    def video_name(self, group: int) -> str | None:
        """Name of a video by its number in `group_ids` (None for -1)."""
        return None if group < 0 else self._videos[group]

    def extra_kinds(self) -> frozenset[str]:
        """Extensions of all extras that any record has."""
        return frozenset(extra.ext for extras in self._extras.values() for extra in extras)

    def record(self, number: int) -> Record:
        """The record as it was found."""
        label = self.label_number(number)
        group = -1 if self.group_ids is None else int(self.group_ids[number])
        frame = _NONE if self._frames is None else int(self._frames[number])
        time = None if self._times is None else float(self._times[number])
        return Record(
            self._paths[number],
            int(self.sizes[number]),
            self._place(number),
            None if label is None else self.classes[label],
            self.video_name(group),
            None if frame == _NONE else frame,
            None if time is None or time != time else time,
            self._extras.get(number, ()),
            self.input_of(number),
        )

    def digest(self) -> str:
        """sha256 (hex) over all that decides the samples; neither addresses nor places are in it."""
        hasher = hashlib.sha256(b"catalog 1\n")
        blob, ends = self._paths.parts()
        for texts in (self.classes, self._videos):
            _hash_texts(hasher, texts)
        columns: tuple[bytearray | NDArray[Any] | None, ...] = (
            *(blob, ends, self._starts, self.sizes),
            *(self._labels, self.group_ids, self._frames, self._times),
        )
        for column in columns:
            _hash_column(hasher, column)
        for number in sorted(self._extras):
            for ext, entry, data in self._extras[number]:
                line = f"{number}\0{ext}\0{entry.path}\0{entry.size}\0".encode("utf-8", "surrogateescape")
                hasher.update(line + hashlib.sha256(data or b"").digest())
        return hasher.hexdigest()

    def _place(self, number: int) -> Place | None:
        if self._places is None or self._places[3][number] < 0:
            return None
        return Place(*(int(column[number]) for column in self._places))


class _Builder:
    def __init__(self) -> None:
        self._trees: list[Tree] = []
        self._starts: list[int] = []
        self._paths = Texts()
        self._sizes = OptionalColumn("q", 0)
        self._labels, self._classes = OptionalColumn("i", -1), Names()
        self._videos, self._video_names = OptionalColumn("i", -1), Names()
        self._all_videos: list[str] = []
        self._frames = OptionalColumn("q", _NONE)
        self._times = OptionalColumn("d", float("nan"))
        self._places = [OptionalColumn(code, -1) for code in "qqhq"]
        self._extras: dict[int, tuple[Extra, ...]] = {}

    def add(self, tree: Tree, records: Iterable[Record]) -> None:
        """Take up one input."""
        self._trees.append(tree)
        self._starts.append(len(self._paths))
        self._video_names = Names()
        last: _Key | None = None
        stream = iter(records)
        while chunk := list(islice(stream, _CHUNK)):
            last = self._take(tree, last, chunk)
        self._all_videos += [name for name in self._video_names.known if name is not None]

    def _take(self, tree: Tree, last: _Key | None, chunk: list[Record]) -> _Key:
        first = len(self._paths)
        paths, sizes, places, labels, videos, frames, times, extras = (
            list(map(itemgetter(field), chunk)) for field in range(8)
        )
        last = _need_order(tree, last, paths, videos, frames)
        self._paths.extend(paths)
        self._sizes.extend(sizes)
        self._frames.extend(frames)
        self._times.extend(times)
        self._labels.extend(self._classes.numbers(labels))
        offset = len(self._all_videos)
        numbers = self._video_names.numbers(videos)
        self._videos.extend([None if number is None else offset + number for number in numbers])
        self._take_places(places)
        if any(extras):
            self._extras.update((first + i, extra) for i, extra in enumerate(extras) if extra)
        return last

    def _take_places(self, places: Sequence[Place | None]) -> None:
        if places.count(None) == len(places):
            for column in self._places:
                column.skip(len(places))
            return
        for i, column in enumerate(self._places):
            column.extend([None if place is None else place[i] for place in places])

    def finished(self) -> Catalog:
        catalog = Catalog()
        catalog.trees = tuple(self._trees)
        catalog._paths = self._paths
        catalog._starts = np.array(self._starts or [0], np.int64)
        sizes = self._sizes.finished()
        catalog.sizes = np.zeros(0, np.int64) if sizes is None else sizes
        catalog.classes, catalog._labels = _sorted_classes(self._classes, self._labels.finished())
        catalog.group_ids, catalog._videos = self._videos.finished(), tuple(self._all_videos)
        catalog._frames, catalog._times = self._frames.finished(), self._times.finished()
        places = tuple(column.finished() for column in self._places)
        catalog._places = None if places[0] is None else places  # type: ignore[assignment]
        catalog._extras = self._extras
        return catalog


def _need_order(
    tree: Tree,
    last: _Key | None,
    paths: Sequence[str],
    videos: Sequence[str | None],
    frames: Sequence[int | None],
) -> _Key:
    """The last record's key; HvcError unless every record comes after the one before it."""
    keys = [] if last is None else [last]
    if videos.count(None) == len(videos) and (last is None or not last[0]):
        plain = [*(key[2] for key in keys), *paths]
        if all(map(lt, plain, islice(plain, 1, None))):  # the fast way, for millions of single images
            return "", -1, paths[-1]
    keys += [
        (video or "", -1 if frame is None else frame, path)
        for video, frame, path in zip(videos, frames, paths, strict=True)
    ]
    if all(map(lt, keys, islice(keys, 1, None))):
        return keys[-1]
    raise HvcError(f"{tree.address}: {_disorder(keys)}")


def _disorder(keys: list[_Key]) -> str:
    one, two = next((a[2], b[2]) for a, b in pairwise(keys) if not a < b)
    if one == two:
        return f"{one} is there twice; remove one of the two"
    return f"{two} is listed after {one}, which is not their order; is the input being changed just now?"


def _sorted_classes(
    names: Names, labels: NDArray[np.int32] | None
) -> tuple[tuple[str, ...], NDArray[np.int32] | None]:
    if labels is None:
        return (), None
    found = [name for name in names.known if name is not None]
    rank = np.empty(len(found) + 1, np.int32)
    rank[np.array(sorted(range(len(found)), key=found.__getitem__))] = np.arange(len(found), dtype=np.int32)
    rank[-1] = -1  # what number -1, no label, stays
    return tuple(sorted(found)), rank[labels]


def _hash_texts(hasher: "hashlib._Hash", texts: Iterable[str]) -> None:
    joined = "\0".join(texts).encode("utf-8", "surrogateescape")
    hasher.update(len(joined).to_bytes(8, "little") + joined)


def _hash_column(hasher: "hashlib._Hash", column: bytearray | NDArray[Any] | None) -> None:
    if column is None:
        hasher.update(b"none")
    elif isinstance(column, bytearray):
        hasher.update(column)
    else:
        little = column.astype(column.dtype.newbyteorder("<"), copy=False)
        hasher.update(len(column).to_bytes(8, "little"))
        hasher.update(np.ascontiguousarray(little).view(np.uint8).data)
