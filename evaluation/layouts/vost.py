"""VOST as downloaded: JPEGImages, JPEGImages_10fps, Annotations, ImageSets."""

from collections.abc import Sequence as Items
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import check_root, choose, folder_names, read_list, refuse_strangers
from hvc.evaluation.layouts.sequences import Sequence, list_frames

_TEN = "JPEGImages_10fps"


def vost_names(folder: Path) -> list[str]:
    """The sequences of ImageSets/val.txt."""
    _images(folder)
    return read_list(folder / "ImageSets" / "val.txt")


def read_vost(folder: Path, names: Items[str] | None = None) -> list[Sequence]:
    """VOST val: labels travel through the frames of JPEGImages_10fps, as in the official baseline.

    Annotated, at 5 frames a second, is every other one; only these are results, and frames after the last
    of them are left out. Without that folder they
    travel through JPEGImages, where every frame is annotated. Raises HvcError that says what was
    expected where.
    """
    images = _images(folder)
    listed = read_list(folder / "ImageSets" / "val.txt")
    return [_sequence(folder, images, name) for name in choose(names, listed, folder_names(images), images)]


def vost_coarse(folder: Path) -> str | None:
    """What to say when labels cannot travel through all 10 frames a second."""
    if (folder / _TEN).is_dir():
        return None
    return (
        f"{folder} has no {_TEN}: labels travel through every other frame only, the annotated ones, and "
        "scores are not comparable with others; it is part of the download"
    )


def _images(folder: Path) -> Path:
    check_root(
        folder,
        "VOST",
        ["JPEGImages", "Annotations", "ImageSets/val.txt"],
        {"JPEGImages/480p": "this is DAVIS (davis2016, davis2017)", "meta.json": "this is YouTube-VOS"},
    )
    ten = folder / _TEN
    return ten if ten.is_dir() else folder / "JPEGImages"


def _sequence(folder: Path, images: Path, name: str) -> Sequence:
    frames = list_frames(images / name)
    masks = folder / "Annotations" / name
    refuse_strangers(frames, masks)
    paths = [masks / f"{frame.stem}.png" for frame in frames]
    annotations = [path if path.is_file() else None for path in paths]
    annotated = {index: path for index, path in enumerate(annotations) if path is not None}
    if not annotated:
        raise HvcError(f"sequence {name}: expected its masks at {masks}/FRAME.png")
    first, last = min(annotated), max(annotated)
    written = None if len(annotated) == last + 1 else frozenset(annotated)
    kept = slice(last + 1)
    return Sequence(name, frames[kept], {first: annotated[first]}, annotations[kept], False, written)
