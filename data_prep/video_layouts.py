"""Data sets of videos that lie there as folders of frames: YouTube-VOS, DAVIS, and any other."""

import re
from collections.abc import Iterator

from hvc.base.errors import HvcError
from hvc.data_prep.catalog import Extra, Record
from hvc.data_prep.layouts import MASK, SUFFIXES, Wanted, archives_there, images, real_files, stem, suffix
from hvc.data_prep.tree import Entry, Tree
from hvc.data_prep.video_tree import VideoTree

_YOUTUBE = re.compile(r"(?P<top>(?:.*/)?JPEGImages/)?(?P<video>[^/]+)/(?P<frame>[^/]+)", re.DOTALL)
_DAVIS = re.compile(
    r"(?P<top>(?:.*/)?JPEGImages/(?:480p|Full-Resolution)/)(?P<video>[^/]+)/(?P<frame>[^/]+)",
    re.DOTALL,
)
_DIGITS = re.compile(r"\d+", re.ASCII)
_MAX_DIGITS = 18  # what fits 64 bits; longer numbers are dates or hashes, not counts

Frame = tuple[str, int, Entry]


def find_youtube_vos(tree: Tree, wanted: Wanted) -> Iterator[Record]:
    """One split of YouTube-VOS: `JPEGImages/VIDEO/FRAME.jpg`, or the inside of `JPEGImages`.

    Masks: `Annotations/VIDEO/FRAME.png`, where there is one (the set annotates every fifth frame).
    """
    files = list(real_files(tree))
    found = _by_top(files, _YOUTUBE)
    tops = sorted(top for top in found if top) or sorted(found)
    top = _only(tree, files, tops, "splits", "JPEGImages/0a2f2bd294/00005.jpg")
    return _numbered(tree, files, top, found[top], wanted)


def find_davis(tree: Tree, wanted: Wanted) -> Iterator[Record]:
    """DAVIS: `JPEGImages/480p/SEQUENCE/FRAME.jpg` (or `Full-Resolution`, where there is no 480p).

    All sequences on disk are taken, whatever `ImageSets` says. Masks: `Annotations` of the same size.
    """
    files = list(real_files(tree))
    found = _by_top(files, _DAVIS)
    tops = sorted(top for top in found if top.endswith("/480p/")) or sorted(found)
    top = _only(tree, files, tops, "sets", "JPEGImages/480p/bear/00000.jpg")
    return _numbered(tree, files, top, found[top], wanted)


def find_frames(tree: Tree, wanted: Wanted) -> Iterator[Record]:  # noqa: ARG001 (it has no extras)
    """Any folders of frames: every folder that holds images is a video.

    A frame's number is the last number in its file name; where these are missing or equal, its
    position among the sorted names.
    """
    folders: dict[str, list[Entry]] = {}
    for entry in images(tree):
        folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    if "" in folders:
        raise HvcError(
            f"{tree.address} holds images beside its folders, such as {folders[''][0].path}: the source "
            "`frames` takes one folder per video; use `folder` for single images"
        )
    if not folders:
        raise HvcError(f"no folders of frames below {tree.address}")
    frames = [
        (video, number, entry)
        for video, entries in folders.items()
        for number, entry in zip(_numbers(entries), entries, strict=True)
    ]
    yield from _records(frames)


def find_video(tree: Tree, wanted: Wanted) -> Iterator[Record]:  # noqa: ARG001 (a video has no extras)
    """Frames of video files, chosen by the tree's options."""
    if not isinstance(tree, VideoTree):
        raise HvcError(f"{tree.address}: videos are read from local files; copy or mount them first")
    return tree.records()


def _by_top(files: list[Entry], pattern: re.Pattern[str]) -> dict[str, list[tuple[str, Entry]]]:
    """Frames with the names of their videos, under the folder that all videos of a set lie in."""
    found: dict[str, list[tuple[str, Entry]]] = {}
    for entry in files:
        match = pattern.fullmatch(entry.path) if suffix(entry.path) in SUFFIXES else None
        if match:
            found.setdefault(match["top"] or "", []).append((match["video"], entry))
    return found


def _only(tree: Tree, files: list[Entry], tops: list[str], what: str, example: str) -> str:
    """The one folder that all videos lie in; HvcError if there is none, or there are several."""
    if len(tops) > 1:
        raise HvcError(f"{tree.address} holds several {what}: {_listed(tops)}; point to one of them")
    if not tops:
        raise HvcError(
            f"no frames in {tree.address}: expected names like {example}; "
            f"use the source `frames` for other folders of frames{archives_there(files)}"
        )
    return tops[0]


def _numbered(
    tree: Tree, files: list[Entry], top: str, found: list[tuple[str, Entry]], wanted: Wanted
) -> Iterator[Record]:
    """Records of frames that are named by their numbers, with their masks if these are wanted."""
    frames = [(video, _number(tree, entry), entry) for video, entry in found]
    return _records(frames, _masks(tree, files, top) if "masks" in wanted else {})


def _records(frames: list[Frame], masks: dict[str, Extra] | None = None) -> Iterator[Record]:
    """Frames by video and number, each with its mask (`masks`: frame's path without ending -> mask)."""
    frames.sort(key=lambda frame: (frame[0], frame[1], frame[2].path))
    for video, number, (path, size, place) in frames:
        mask = masks.get(stem(path)) if masks else None
        yield Record(path, size, place, None, video, number, None, (mask,) if mask else ())


def _masks(tree: Tree, files: list[Entry], top: str) -> dict[str, Extra]:
    """Path of a frame without its ending -> its mask, from `Annotations` beside `JPEGImages`."""
    if not top:
        raise HvcError(
            f"no masks to be found from {tree.address}: point to the folder that holds JPEGImages and "
            "Annotations"
        )
    above, _, below = top.rpartition("JPEGImages/")
    start = f"{above}Annotations/{below}"
    return {
        top + stem(entry.path)[len(start) :]: Extra(MASK, entry)
        for entry in files
        if entry.path.startswith(start) and suffix(entry.path) == ".png"
    }


def _number(tree: Tree, entry: Entry) -> int:
    name = stem(entry.path).rpartition("/")[2]
    if not (_DIGITS.fullmatch(name) and len(name) <= _MAX_DIGITS):
        raise HvcError(
            f"{tree.address}: the frame {entry.path} is not named by its number; use the source `frames` "
            "for other folders of frames"
        )
    return int(name)


def _numbers(entries: list[Entry]) -> list[int]:
    """Numbers of one folder's frames, all different."""
    written = [_DIGITS.findall(stem(entry.path).rpartition("/")[2]) for entry in entries]
    if all(digits and len(digits[-1]) <= _MAX_DIGITS for digits in written):
        numbers = [int(digits[-1]) for digits in written]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(entries)))


def _listed(tops: list[str]) -> str:
    return ", ".join(top.rstrip("/") for top in tops)
