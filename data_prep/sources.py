"""From addresses to a catalog: what each input is, and what there is to shard in it."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.catalog import Catalog, Record
from hvc.data_prep.coco_layout import find_coco
from hvc.data_prep.folder_tree import FolderTree
from hvc.data_prep.layouts import CAPTION, MASK, WNID, Layout, Wanted, find_folder, find_imagenet, suffix
from hvc.data_prep.layouts import SUFFIXES as IMAGE_SUFFIXES
from hvc.data_prep.s3_tree import S3Tree
from hvc.data_prep.tar_folder import TarFolder
from hvc.data_prep.tar_tree import TarTree
from hvc.data_prep.tree import Entry, Tree
from hvc.data_prep.video_layouts import find_davis, find_frames, find_video, find_youtube_vos
from hvc.data_prep.video_tree import SUFFIXES as VIDEO_SUFFIXES
from hvc.data_prep.video_tree import FrameOptions, VideoTree
from hvc.data_prep.zip_tree import ZipTree

__all__ = ["SOURCES", "FrameOptions", "build_catalog", "open_tree"]

SOURCES: dict[str, Layout] = {
    "folder": Layout(find_folder, frozenset({"labels", "captions", "masks"})),
    "imagenet": Layout(find_imagenet, frozenset({"labels"})),
    "coco": Layout(find_coco, frozenset({"captions"})),
    "youtube-vos": Layout(find_youtube_vos, frozenset({"masks"})),
    "davis": Layout(find_davis, frozenset({"masks"})),
    "frames": Layout(find_frames),
    "video": Layout(find_video),
}
"""Name of a source -> how it lies on disk."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".gz")
_log = logging.getLogger(__name__)
_MEMBER = {"captions": CAPTION, "masks": MASK}


def open_tree(address: str) -> Tree:
    """A folder, `*.zip`, `*.tar` or video file, or the same but video at `s3://bucket/...`.

    UsageError for anything else, with the reason.
    """
    on_s3 = address.startswith("s3://")
    if "://" in address and not on_s3:
        raise UsageError(f"input {address}: only local paths and s3://bucket/prefix are read")
    path = Path(address)
    if not on_s3 and not path.exists():
        raise UsageError(f"input {address}: no such folder or file")
    if not on_s3 and path.is_dir():
        return FolderTree(address)
    return _open_file(address, on_s3)


def build_catalog(
    inputs: Sequence[tuple[str, str]],
    wanted: Wanted = frozenset(),
    frames: FrameOptions | None = None,
) -> Catalog:
    """List (source, address) after (source, address), with the extras that are wanted.

    `frames` says which frames to take of videos. UsageError for an address that is nothing, a source
    that does not exist, or an extra that no source here can have; HvcError for an input without images
    and for extras of which there is not a single one.
    """
    for source, _ in inputs:
        if source not in SOURCES:
            raise UsageError(f"no source {source!r}; there are {', '.join(SOURCES)}")
    _need_offered([source for source, _ in inputs], wanted)
    trees = [_tree_for(source, address, frames) for source, address in inputs]
    found = [
        (tree, _need_some(tree, _telling(tree, SOURCES[source], wanted)))
        for tree, (source, _) in zip(trees, inputs, strict=True)
    ]
    catalog = Catalog.build(found)
    _need_found(catalog, inputs, wanted)
    return catalog


def _open_file(address: str, on_s3: bool) -> Tree:
    name = address.lower()
    if name.endswith(".zip"):
        return ZipTree(address)
    if name.endswith(".tar"):
        return TarTree(address)
    if name.endswith(_COMPRESSED):
        raise UsageError(
            f"input {address}: a compressed tar cannot be read at any position; decompress it first "
            "(gunzip, unxz, unzstd) and give the .tar"
        )
    if name.endswith(tuple(VIDEO_SUFFIXES)):
        if on_s3:
            raise UsageError(f"input {address}: videos are read from local files; copy it first")
        return VideoTree(address)
    if on_s3:
        return S3Tree(address)
    raise UsageError(
        f"input {address}: not a folder, .zip, .tar or video file ({', '.join(sorted(VIDEO_SUFFIXES))})"
    )


def _tree_for(source: str, address: str, frames: FrameOptions | None) -> Tree:
    tree = open_tree(address)
    if source == "video":
        if not isinstance(tree, VideoTree | FolderTree):
            raise UsageError(
                f"input {address}: videos are read from local files; copy or unpack them first"
            )
        return VideoTree(address, frames)
    if isinstance(tree, VideoTree):
        raise UsageError(f"input {address} is a video: use the source `video`")
    if source == "imagenet" and isinstance(tree, FolderTree | S3Tree):
        return TarFolder(tree, WNID)
    return tree


class _CountedTree:
    """A tree that counts its files by ending while they are listed."""

    def __init__(self, tree: Tree) -> None:
        self._tree, self.address = tree, tree.address
        self.endings: Counter[str] = Counter()

    def entries(self) -> Iterator[Entry]:
        for entry in self._tree.entries():
            self.endings[suffix(entry.path)] += 1
            yield entry

    def read(self, entry: Entry) -> bytes:
        return self._tree.read(entry)


def _telling(tree: Tree, layout: Layout, wanted: Wanted) -> Iterator[Record]:
    """The records of a layout; what it left is told, by ending: nothing vanishes without a word."""
    if isinstance(tree, VideoTree):
        yield from layout.find(tree, wanted)
        return
    counted = _CountedTree(tree)
    taken: Counter[str] = Counter()
    for record in layout.find(counted, wanted):
        taken[suffix(record.path)] += 1
        taken.update(suffix(extra.entry.path) for extra in record.extras if extra.data is None)
        yield record
    left = counted.endings - taken
    if left:
        most = ", ".join(f"{n:,} {ending or 'without ending'}" for ending, n in left.most_common(8))
        _log.info("input %s: files that are no images of this layout: %s", tree.address, most)


def _need_some(tree: Tree, records: Iterator[Record]) -> Iterator[Record]:
    """The records; HvcError if there is none."""
    record = None
    for record in records:
        yield record
    if record is None:
        what = "videos" if isinstance(tree, VideoTree) else "images"
        endings = VIDEO_SUFFIXES if isinstance(tree, VideoTree) else IMAGE_SUFFIXES
        raise HvcError(
            f"no {what} below {tree.address}: looked for files ending in {', '.join(sorted(endings))}"
        )


def _need_offered(used: list[str], wanted: Wanted) -> None:
    for kind in sorted(wanted - frozenset().union(*(SOURCES[source].offers for source in used))):
        able = ", ".join(name for name, layout in SOURCES.items() if kind in layout.offers)
        raise UsageError(f"{', '.join(used)}: no {kind} to be had there; {kind} come with {able or 'none'}")


def _need_found(catalog: Catalog, inputs: Sequence[tuple[str, str]], wanted: Wanted) -> None:
    kinds = catalog.extra_kinds() | ({"labels"} if catalog.classes else set())
    for kind in sorted(wanted):
        if _MEMBER.get(kind, kind) not in kinds:
            where = ", ".join(address for _, address in inputs)
            raise HvcError(f"no {kind} found beside any image of {where}; leave them out, or see the docs")
