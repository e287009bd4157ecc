"""A person's own videos: one sequence folder, or a folder of sequence folders."""

import os
from collections.abc import Sequence as Items
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import choose
from hvc.evaluation.layouts.sequences import Sequence, list_frames

_JPEG = (".jpg", ".jpeg")


def folder_names(folder: Path) -> list[str]:
    """The names of all sequences."""
    return [sequence.name for sequence in read_folder(folder)]


def read_folder_sequences(folder: Path, names: Items[str] | None = None) -> list[Sequence]:
    """Those of `read_folder`'s sequences that are named, in that order; by default all."""
    there = {sequence.name: sequence for sequence in read_folder(folder)}
    return [there[name] for name in choose(names, list(there), there, folder)]


def read_folder(folder: str | Path) -> list[Sequence]:
    """A person's own videos: one sequence folder, or a folder of sequence folders.

    A sequence folder holds `frames/` (jpg or png, in the order of their numbers) and `masks/` (png
    with the frame's stem). The first frame's mask is required and is all that the method sees;
    masks of all frames make the sequence one that can be scored. For a start, jpg frames and one
    png mask with the first frame's stem may also lie side by side in the sequence folder.

    Raises HvcError that names the folder or file and says what belongs there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise HvcError(f"no such folder: {root}")
    if _is_sequence(root):
        return [_folder_sequence(root)]
    inside = sorted(path for path in root.iterdir() if path.is_dir() and _is_sequence(path))
    if not inside:
        raise HvcError(
            f"{root} holds no sequence: expected frames/ (jpg or png) and masks/ (png with the first "
            "frame's stem), or jpg frames and one png mask side by side, here or one folder below"
        )
    return [_folder_sequence(path) for path in inside]


def _is_sequence(folder: Path) -> bool:
    return (folder / "frames").is_dir() or any(p.suffix.lower() in _JPEG for p in folder.iterdir())


def _folder_sequence(folder: Path) -> Sequence:
    flat = not (folder / "frames").is_dir()
    frames = list_frames(folder, _JPEG) if flat else list_frames(folder / "frames")
    masks = {path.stem: path for path in sorted((folder if flat else folder / "masks").glob("[!.]*.png"))}
    first = frames[0]
    if first.stem not in masks:
        wanted = (folder if flat else folder / "masks") / f"{first.stem}.png"
        raise HvcError(f"no mask {wanted} for the first frame {first.name}; draw one there")
    strangers = masks.keys() - {frame.stem for frame in frames}
    if strangers:
        raise HvcError(f"{masks[min(strangers)]}: there is no frame of that name; rename or remove it")
    annotations = [masks.get(frame.stem) for frame in frames]
    # `.` gets a name and links keep theirs: of two that lead to folders of one name both are read
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100
    return Sequence(name, frames, {0: masks[first.stem]}, annotations, single_object=False)
