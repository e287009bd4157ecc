"""Videos to evaluate on: where their frames, given masks and annotations are."""

import re
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.masks import read_mask

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

    @property
    def annotated(self) -> bool:
        """Whether every frame has ground truth, so that the sequence can be scored."""
        return all(path is not None for path in self.annotations)


def read_annotations(sequence: Sequence) -> NDArray[np.uint8]:
    """All ground-truth masks, uint8 [T, H, W]; ids reduced to 0 and 1 when the sequence is single-object.

    Raises HvcError when a frame has none or the sizes differ.
    """
    masks: list[NDArray[np.uint8]] = []
    for frame, path in zip(sequence.frames, sequence.annotations, strict=True):
        if path is None:
            raise HvcError(f"sequence {sequence.name}: {frame.name} has no annotation, it cannot be scored")
        mask = read_mask(path)
        if masks and mask.shape != masks[0].shape:
            raise HvcError(f"{path}: {_size(mask)}, but {sequence.annotations[0]} is {_size(masks[0])}")
        masks.append(mask)
    stack = np.stack(masks)
    return to_single_object(stack) if sequence.single_object else stack


def to_single_object(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids -> 1 where there is anything but background (void included, as officially), else 0."""
    return (labels != 0).astype(np.uint8)


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


def _size(mask: NDArray[np.uint8]) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]} pixels"
