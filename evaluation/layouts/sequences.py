"""Videos to evaluate on: where their frames, given masks and annotations are."""

import re
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.masks import VOID, read_mask

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Sequence:
    """One video: files only, nothing decoded."""

    name: str
    frames: list[Path]
    masks: dict[int, Path]
    """Given to the method: frame index -> mask."""
    annotations: list[Path | None]
    """Ground truth per frame, where there is one."""
    single_object: bool
    """Scored as object against background, whatever the ids."""
    written: frozenset[int] | None = None
    """Frames whose labels are results (YouTube-VOS: every fifth); None: all."""
    joints: Path | None = None
    """`joint_positions.mat` of a pose sequence, which has no masks."""
    classes: int | None = None
    """Ids are classes 0 .. classes - 1, the same in every video, and larger ones are void (VIP: 20)."""

    @property
    def results(self) -> list[int]:
        """Indices of the frames whose labels are results, ascending."""
        return list(range(len(self.frames))) if self.written is None else sorted(self.written)

    @property
    def annotated(self) -> bool:
        """Whether every result has ground truth, so that the sequence can be scored."""
        return self.joints is not None or all(self.annotations[index] is not None for index in self.results)

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """One of its masks as ids, see `masks.read_mask`."""
        return read_mask(path, single_object=self.single_object)


def object_ids(sequence: Sequence, masks: dict[int, Path] | None = None) -> NDArray[np.uint8]:
    """All ids of a video's given masks, ascending, the background 0 first; classes only, where it has them.

    Raises HvcError when no mask shows anything but background.
    """
    paths = sequence.masks if masks is None else masks
    present = np.zeros(256, bool)
    for path in paths.values():
        present |= np.bincount(sequence.read_mask(path).ravel(), minlength=256) > 0
    present[0] = True
    present[VOID if sequence.classes is None else sequence.classes :] = False
    if present.sum() == 1 and sequence.classes is None:
        shown = ", ".join(str(path) for path in paths.values()) or "none given"
        raise HvcError(f"sequence {sequence.name}: its masks show no object ({shown})")
    return np.flatnonzero(present).astype(np.uint8)


def list_frames(folder: Path, suffixes: Items[str] = FRAME_SUFFIXES) -> list[Path]:
    """The pictures of a folder in the order of their numbers; HvcError when none, or two share a stem."""
    frames = sorted((path for path in _files(folder) if path.suffix.lower() in suffixes), key=_by_number)
    if not frames:
        raise HvcError(f"{folder} holds no frames ({', '.join(suffixes)})")
    for path, following in pairwise(frames):
        if path.stem == following.stem:
            raise HvcError(f"{path} and {following.name} are the same frame twice; remove one")
    return frames


def _files(folder: Path) -> list[Path]:
    inside = folder.iterdir() if folder.is_dir() else []
    return [path for path in inside if path.is_file() and not path.name.startswith(".")]


def _by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """frame2 before frame10, whether numbers are padded or not."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
