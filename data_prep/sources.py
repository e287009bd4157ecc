"""What there is to shard: the images below a folder, in one fixed order, with their labels."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hvc.base.errors import HvcError, UsageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings, in any case, of the files that are taken for images."""

_WNID = re.compile(r"n\d{8}")


class Item(NamedTuple):
    """An image file: path relative to the input folder (with `/`), class number, size in bytes."""

    path: str
    label: int | None = None
    size: int = 0


@dataclass(frozen=True)
class Listing:
    """All images of a source, sorted by path, and the class names in label order (if it has any)."""

    items: tuple[Item, ...]
    classes: tuple[str, ...] = ()

    def digest(self) -> str:
        """sha256 over path, size and label of every item, and the classes (hex)."""
        hasher = hashlib.sha256("\0".join([*self.classes, "\n"]).encode())
        for item in self.items:
            line = f"{item.path}\0{item.size}\0{item.label}\n"
            hasher.update(line.encode("utf-8", "surrogateescape"))
        return hasher.hexdigest()


def list_folder(root: Path) -> Listing:
    """Every image below `root`, at any depth, without labels.

    Links are followed, but never into a folder that contains them. Raises UsageError when `root` is
    not a folder, HvcError when it holds no image or cannot be read.
    """
    _need_folder(root)
    items = sorted(Item(path, None, size) for path, size in _images(root))
    if not items:
        raise HvcError(f"no images below {root}: looked for files ending in {', '.join(sorted(SUFFIXES))}")
    return Listing(tuple(items))


def list_imagenet(root: Path) -> Listing:
    """ImageNet's training layout: one folder per class, named `n` and 8 digits.

    The label is the class folder's position in sorted order. Errors as `list_folder`.
    """
    _need_folder(root)
    classes = tuple(sorted(p.name for p in root.iterdir() if _WNID.fullmatch(p.name) and p.is_dir()))
    if not classes:
        raise HvcError(
            f"no ImageNet class folders in {root}: expected names like n01440764; point to the "
            "`train` folder itself, or use `hvc shard folder` for images without classes"
        )
    items = [
        Item(f"{wnid}/{path}", label, size)
        for label, wnid in enumerate(classes)
        for path, size in _images(root / wnid)
    ]
    if not items:
        raise HvcError(f"no images in the {len(classes)} class folders of {root}")
    return Listing(tuple(sorted(items)), classes)


LISTERS = {"folder": list_folder, "imagenet": list_imagenet}
"""Source name -> its listing function."""


def _need_folder(root: Path) -> None:
    if "://" in str(root):
        raise UsageError(f"input {root}: images are read from a folder; copy or mount them first")
    if not root.is_dir():
        raise UsageError(f"input {root}: {'not a folder' if root.exists() else 'no such folder'}")


def _images(root: Path) -> Iterator[tuple[str, int]]:
    """(relative path, bytes) of every image below a folder, in no particular order."""
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root),))]
    while pending:
        folder, ancestors = pending.pop()
        for entry in _scan(root / folder):
            path = folder + entry.name
            if entry.is_dir():
                identity = _identity(Path(entry.path))
                if identity not in ancestors:  # a link back up would never end
                    pending.append((path + "/", (*ancestors, identity)))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a hot loop)
                yield path, _size(entry)


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise HvcError(f"cannot read the folder {folder}: {error.strerror}") from None


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0  # a dangling link: reading it gives the reason for its rejection
