"""Data sets as people have them on disk: which files are images, and what goes with them.

A layout is a function of a tree's entries; it neither knows nor asks whether they lie in a folder, in
a zip, in a tar or on S3. `video_layouts.py` has those whose images are frames.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hvc.base.errors import HvcError
from hvc.data_prep.catalog import Extra, Record
from hvc.data_prep.tree import Entry, Tree

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings, in any case, of the files that are taken for images."""

CAPTION, MASK = "txt", "mask.png"
"""Member extensions of the extras that are files."""

WNID = re.compile(r"n\d{8}", re.ASCII)
"""A class of ImageNet, by its WordNet number."""

_IN_CLASS = re.compile(rf"(?:(?P<top>.*?)/)?(?P<wnid>{WNID.pattern})/.*", re.DOTALL | re.ASCII)
_FLAT = re.compile(r"(?:.*/)?ILSVRC20\d\d_(?:val|test)_\d{8}\.[^/]*", re.DOTALL)

Wanted = frozenset[str]
"""Which extras are asked for: any of `labels`, `captions`, `masks`."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk."""

    find: Callable[[Tree, Wanted], Iterator[Record]]
    """Records in the catalog's order; HvcError when the tree is not laid out like this."""
    offers: Wanted = frozenset()
    """Extras that such data can have."""


def suffix(path: str) -> str:
    """A file name's ending, in lower case, with the point; empty if it has none."""
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def stem(path: str) -> str:
    """The whole path without the file name's ending."""
    ending = len(suffix(path))
    return path[:-ending] if ending else path


def real_files(tree: Tree) -> Iterator[Entry]:
    """A tree's files without what macOS leaves in folders and archives."""
    for entry in tree.entries():
        path = entry[0]
        if "._" in path or "__MACOSX" in path or path.endswith(".DS_Store"):
            parts = path.split("/")
            if "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store":
                continue
        yield entry


def archives_there(files: Iterable[Entry]) -> str:
    """What to add where nothing was found, if there are archives among the files; else empty."""
    found = [entry.path for entry in files if suffix(entry.path) in (".zip", ".tar")]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"; give the archives there as inputs themselves: {', '.join(found[:3])}{more}" if found else ""


def images(tree: Tree) -> Iterator[Entry]:
    """A tree's files that are called like images."""
    return (entry for entry in real_files(tree) if suffix(entry[0]) in SUFFIXES)


def find_folder(tree: Tree, wanted: Wanted) -> Iterator[Record]:
    """Every image at any depth.

    Label: name of the folder it lies in. Caption: `STEM.txt` or `STEM.caption` beside it. Mask:
    `STEM_mask.png`, `STEM.mask.png`, or `STEM.png` beside an image that is no PNG; where masks are
    asked for, these files are masks and no images.
    """
    with_labels = "labels" in wanted
    if wanted & {"captions", "masks"}:
        yield from _with_neighbours(tree, wanted)
        return
    for path, size, place in images(tree):
        yield Record(path, size, place, _parent(path) if with_labels else None)


def find_imagenet(tree: Tree, wanted: Wanted) -> Iterator[Record]:  # noqa: ARG001 (the layout is the label)
    """ImageNet-1k or -21k: class folders named `n` and 8 digits, as a folder, or as a tar of tars.

    Where there are class folders, only what lies in them counts, so that `ILSVRC/Data/CLS-LOC` may be
    given as well as its `train`. Where there are none, `ILSVRC2012_val_00000001.JPEG` and the like are
    taken, without labels.
    """
    flat: list[Record] = []
    tops: list[str] = []
    last, wnid = None, None
    for path, size, place in images(tree):
        folder = path.rpartition("/")[0]
        if folder != last:  # asked once per folder: there may be 14 million images
            last, wnid = folder, _class_of(tree, folder, tops)
        if wnid is not None:
            yield Record(path, size, place, wnid)
        elif _FLAT.fullmatch(path):
            flat.append(Record(path, size, place))
    classes = bool(tops)
    if not classes:
        yield from flat
    if not classes and not flat:
        raise HvcError(
            f"no ImageNet class folders with images in {tree.address}: expected names like "
            "n01440764/n01440764_10026.JPEG or ILSVRC2012_val_00000001.JPEG; use the source `folder` for "
            "other images"
        )


def _class_of(tree: Tree, folder: str, tops: list[str]) -> str | None:
    """The class that a folder lies in or is; what it lies in goes to `tops`, which may hold but one."""
    match = _IN_CLASS.match(folder + "/")
    if match is None:
        return None
    top = match["top"] or "the top folder"
    if tops and tops != [top]:
        raise HvcError(f"{tree.address}: class folders in {tops[0]} and in {top}; point to the one to use")
    tops[:] = [top]
    return match["wnid"]


def _parent(path: str) -> str | None:
    parts = path.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else None


def _with_neighbours(tree: Tree, wanted: Wanted) -> Iterator[Record]:
    files = {entry.path: entry for entry in real_files(tree)}
    found = {path: _neighbours(path, files, wanted) for path in files if suffix(path) in SUFFIXES}
    masks = {extra.entry.path for extras in found.values() for extra in extras if extra.ext == MASK}
    for path, extras in found.items():
        if path not in masks:
            entry = files[path]
            label = _parent(path) if "labels" in wanted else None
            yield Record(path, entry.size, entry.place, label, extras=extras)


def _neighbours(path: str, files: dict[str, Entry], wanted: Wanted) -> tuple[Extra, ...]:
    start = stem(path)
    extras = []
    if "masks" in wanted:
        names = [start + "_mask.png", start + ".mask.png"]
        names += [] if path.lower().endswith(".png") else [start + ".png"]
        extras += [Extra(MASK, files[name]) for name in names if name in files][:1]
    if "captions" in wanted:
        names = [start + ".txt", start + ".caption"]
        extras += [Extra(CAPTION, files[name]) for name in names if name in files][:1]
    return tuple(extras)
