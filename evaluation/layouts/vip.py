"""VIP (Video Instance-level Parsing) as downloaded: VIP_Fine with Images, Annotations and lists."""

from collections.abc import Sequence as Items
from pathlib import Path

from hvc.evaluation.layouts.common import annotations_of, check_root, choose, folder_names, read_list, words
from hvc.evaluation.layouts.sequences import Sequence, list_frames

CLASSES = words(
    "background hat hair sun-glasses upper-clothes dress coat socks pants gloves scarf skirt torso-skin "
    "face right-arm left-arm right-leg left-leg right-shoe left-shoe"
)
"""Names of the ids 0 to 19."""


def vip_names(folder: Path) -> list[str]:
    """The videos of lists/val_videos.txt."""
    _check(folder)
    return read_list(folder / "lists" / "val_videos.txt")


def read_vip(folder: Path, names: Items[str] | None = None) -> list[Sequence]:
    """VIP val: Images/videosNN/*.jpg, every 25th frame of the video, each with a mask of classes.

    Masks of all frames are handed on; whether classes that the first one lacks are taken from later ones
    is the protocol's `late_objects`. Raises HvcError that says what was expected where.
    """
    _check(folder)
    listed = read_list(folder / "lists" / "val_videos.txt")
    images = folder / "Images"
    return [_sequence(folder, name) for name in choose(names, listed, folder_names(images), images)]


def _check(folder: Path) -> None:
    wrong = "masks of persons, not of classes; VIP_Fine has Annotations/Category_ids, too"
    check_root(
        folder,
        "VIP",
        ["Images", "Annotations/Category_ids", "lists/val_videos.txt"],
        {"Annotations/Human_ids": wrong} if not (folder / "Annotations" / "Category_ids").exists() else {},
    )


def _sequence(folder: Path, name: str) -> Sequence:
    frames = list_frames(folder / "Images" / name)
    annotations = annotations_of(frames, folder / "Annotations" / "Category_ids" / name)
    masks = dict(enumerate(annotations))
    return Sequence(name, frames, masks, list(annotations), single_object=False, classes=len(CLASSES))
