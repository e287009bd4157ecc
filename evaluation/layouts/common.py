"""What all readers of data sets share: what was expected where, and what to do when it is elsewhere."""

import logging
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from pathlib import Path

from hvc.base.errors import HvcError

_log = logging.getLogger(__name__)

_NAMES_SHOWN = 8
_PROBLEMS_SHOWN = 10
_FOLDERS_LOOKED_AT = 50
_OWN = "a person's own videos (folder)"
_SIGNS = {
    "DAVIS (davis2016, davis2016-merged, davis2017, davis2017-test-dev)": ["JPEGImages/480p"],
    "VOST (vost)": ["ImageSets", "JPEGImages_10fps"],
    "VIP (vip)": ["Annotations/Category_ids"],
    "JHMDB (jhmdb)": ["joint_positions"],
    "YouTube-VOS (youtube-vos-2018, youtube-vos-2019)": ["valid/Annotations"],
    _OWN: ["frames", "masks"],
}
"""Folders that tell a data set's layout from the others'."""


def check_root(root: Path, title: str, needed: Items[str], hints: Mapping[str, str] | None = None) -> None:
    """HvcError unless everything `needed` (relative paths) is below a data set's root.

    Args:
        root: what the user named.
        title: of the data set, as in "is not a TITLE folder".
        needed: files and folders.
        hints: relative path -> what it means that this is there while something needed is not.

    The message says what was expected where, and the mend: another folder where the data set lies a
    little higher or lower, another benchmark where this is another data set.
    """
    if not root.is_dir():
        raise HvcError(f"no such folder: {root}")
    missing = [part for part in needed if not (root / part).exists()]
    if missing:
        mend = _mend(root, needed, hints or {})
        raise HvcError(f"{root} is not a {title} folder: expected {root / missing[0]}{mend}")


def _mend(root: Path, needed: Items[str], hints: Mapping[str, str]) -> str:
    for part, meaning in hints.items():
        if (root / part).exists():
            return f"; there is {root / part}: {meaning}"
    for below in [*_folders(root), *(deeper for folder in _folders(root) for deeper in _folders(folder))]:
        if _complete(below, needed):
            return f"; one folder too high, take {below}"
    for above in list(root.absolute().parents)[:3]:
        if _complete(above, needed):
            return f"; one folder too low, take {above}"
    other = recognise(root)
    return f"; this is laid out like {other}" if other else ""


def recognise(root: Path) -> str | None:
    """The data set, with its benchmarks in brackets, whose layout this folder has; None if unknown."""
    if any(_complete(folder, _SIGNS[_OWN]) for folder in _folders(root)):
        return _OWN
    return next((name for name, signs in _SIGNS.items() if _complete(root, signs)), None)


def _complete(root: Path, parts: Iterable[str]) -> bool:
    return all((root / part).exists() for part in parts)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())[:_FOLDERS_LOOKED_AT]
    except PermissionError:  # lost+found and its like are no data set
        return []


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones are none of the data set."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def choose(names: Items[str] | None, listed: Items[str], there: Iterable[str], where: Path) -> list[str]:
    """The sequences to read, in order and without repeats.

    Args:
        names: those wanted; by default those `listed` that are there (what is not is logged).
        listed: those of the benchmark.
        there: those on disk.
        where: the folder they are in, for messages.

    Raises HvcError when a wanted one is not there, or nothing is.
    """
    present = set(there)
    if names is None:
        found = [name for name in listed if name in present]
        if not found:
            of_list = f" of the benchmark's list ({some(listed)})" if present else ""
            raise HvcError(f"{where} holds no sequence{of_list}; it has: {some(sorted(present))}")
        absent = [name for name in listed if name not in present]
        if absent:
            _log.warning("%s lacks %d of %d sequences: %s", where, len(absent), len(listed), some(absent))
        return found
    absent = [name for name in names if name not in present]
    if absent:
        raise HvcError(f"{where} has no sequence {some(absent)}; it has: {some(sorted(present))}")
    return list(dict.fromkeys(names))


def some(names: Items[str], shown: int = _NAMES_SHOWN) -> str:
    """Names for a message: all when few, else the first ones and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more


def raise_all(problems: Items[str], shown: int = _PROBLEMS_SHOWN) -> None:
    """HvcError with a line for each of the first `shown` problems, and how many more; nothing if none."""
    if problems:
        more = [f"... and {len(problems) - shown} more"] if len(problems) > shown else []
        raise HvcError("\n".join([*problems[:shown], *more]))


def words(text: str) -> list[str]:
    """Names as they stand in a list."""
    return text.split()


def read_list(path: Path) -> list[str]:
    """The first word of every line that has one, without repeats."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


def annotations_of(frames: Items[Path], folder: Path) -> list[Path]:
    """One mask `STEM.png` per frame; HvcError when one is missing, or has no frame."""
    paths = [folder / f"{frame.stem}.png" for frame in frames]
    for frame, path in zip(frames, paths, strict=True):
        if not path.is_file():
            raise HvcError(f"no annotation {path} for its frame {frame}; complete the dataset")
    refuse_strangers(frames, folder)
    return paths


def refuse_strangers(frames: Items[Path], folder: Path) -> None:
    """HvcError when a mask in the folder has no frame."""
    extra = {path.stem for path in folder.glob("[!.]*.png")} - {path.stem for path in frames}
    if extra:
        missing = frames[0].with_name(min(extra) + frames[0].suffix)
        raise HvcError(f"{folder / min(extra)}.png has no frame: expected {missing}; complete the dataset")
