"""Readers of data sets: folders in, sequences out."""

from collections.abc import Sequence as Items
from pathlib import Path, PurePosixPath

from hvc.base.errors import HvcError
from hvc.evaluation.sequences import Sequence, list_frames

_JPEG = (".jpg", ".jpeg")


def read_davis2016(folder: str | Path, names: Items[str] | None = None) -> list[Sequence]:
    """The sequences of a DAVIS-2016 folder: JPEGImages/480p/NAME/*.jpg, Annotations/480p/NAME/*.png.

    Args:
        folder: the dataset's root.
        names: the sequences wanted, in this order. By default those of the validation list
            (ImageSets/480p/val.txt or ImageSets/2016/val.txt) that are there; without a list, all.

    Raises HvcError that names the folder or file which is missing.
    """
    root = Path(folder)
    present = _davis_present(root)
    if names is None:
        names = davis2016_names(root)
        if not names:
            listed = " of the validation list" if present else ""
            raise HvcError(f"{_davis_images(root)} holds no sequence{listed}")
    absent = [name for name in names if name not in present]
    if absent:
        where, has = _davis_images(root), ", ".join(present)
        raise HvcError(f"{where} has no sequence {', '.join(absent)}; it has: {has}")
    return [_davis_sequence(root, name) for name in dict.fromkeys(names)]


def davis2016_names(folder: str | Path) -> list[str]:
    """What `read_davis2016` reads by default: the names on the validation list, or all, that are there."""
    root = Path(folder)
    present, listed = _davis_present(root), _validation_names(root)
    return present if listed is None else [name for name in listed if name in present]


def _davis_images(root: Path) -> Path:
    return root / "JPEGImages" / "480p"


def _davis_present(root: Path) -> list[str]:
    images = _davis_images(root)
    if not images.is_dir():
        raise HvcError(f"{root} is not a DAVIS folder: there is no {images}")
    return sorted(path.name for path in images.iterdir() if path.is_dir())


def _validation_names(root: Path) -> list[str] | None:
    for path in (root / "ImageSets" / "480p" / "val.txt", root / "ImageSets" / "2016" / "val.txt"):
        if path.is_file():
            lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
            return list(dict.fromkeys(_sequence_name(words[0]) for words in lines if words))
    return None


def _sequence_name(entry: str) -> str:
    """`blackswan`, or a line per frame: `/JPEGImages/480p/blackswan/00000.jpg ...`."""
    return PurePosixPath(entry).parent.name if "/" in entry else entry


def _davis_sequence(root: Path, name: str) -> Sequence:
    frames = list_frames(root / "JPEGImages" / "480p" / name)
    annotations = [root / "Annotations" / "480p" / name / f"{frame.stem}.png" for frame in frames]
    for path in annotations:
        if not path.is_file():
            raise HvcError(f"no annotation {path} for its frame; complete the dataset")
    extra = {path.stem for path in annotations[0].parent.glob("*.png")} - {path.stem for path in frames}
    if extra:
        raise HvcError(f"{annotations[0].parent / min(extra)}.png has no frame; complete the dataset")
    return Sequence(name, frames, {0: annotations[0]}, list(annotations), single_object=True)


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
    masks = {path.stem: path for path in sorted((folder if flat else folder / "masks").glob("*.png"))}
    first = frames[0]
    if first.stem not in masks:
        wanted = (folder if flat else folder / "masks") / f"{first.stem}.png"
        raise HvcError(f"no mask {wanted} for the first frame {first.name}; draw one there")
    strangers = masks.keys() - {frame.stem for frame in frames}
    if strangers:
        raise HvcError(f"{masks[min(strangers)]}: there is no frame of that name; rename or remove it")
    annotations = [masks.get(frame.stem) for frame in frames]
    return Sequence(folder.resolve().name, frames, {0: masks[first.stem]}, annotations, single_object=False)
