"""Label maps to be scored: ground truth and what a method made of it, read so that they compare."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.masks import VOID, read_mask
from hvc.evaluation.layouts.sequences import Sequence

Labels = NDArray[np.uint8]


def result_file(results: Path, sequence: Sequence, index: int) -> Path:
    """Where a frame's result lies: `RESULTS/NAME/STEM.png`."""
    return results / sequence.name / f"{sequence.frames[index].stem}.png"


def annotation(sequence: Sequence, index: int) -> Path:
    """The ground truth of a frame; HvcError when it has none."""
    path = sequence.annotations[index]
    if path is None:
        frame = sequence.frames[index].name
        raise HvcError(
            f"sequence {sequence.name}: {frame} has no annotation; add it, or score others: --sequences"
        )
    return path


@dataclass(frozen=True)
class Objects:
    """Whom a sequence's masks show, by its first annotation."""

    ids: Labels
    """Ascending, uint8 [n]."""
    merged: bool
    """Everything that is not background is object 1, void (255) included."""
    black_and_white: bool
    """Annotations are grey masks of 0 and 255: 255 is the object, not void."""

    @classmethod
    def of(cls, sequence: Sequence, merged: bool) -> "Objects":
        """HvcError when the first annotation shows none."""
        annotated = [path for path in sequence.annotations if path is not None]
        if not annotated:
            raise HvcError(f"sequence {sequence.name} has no annotations, it cannot be scored")
        ids = read_mask(annotated[0])
        black_and_white = bool((ids != read_mask(annotated[0], black_and_white=False)).any())
        shown = np.unique(ids != 0 if merged else ids).astype(np.uint8)
        objects = shown[(shown != 0) & (shown != VOID)]
        if not len(objects):
            raise HvcError(f"{annotated[0]} shows no object; the first annotation says which there are")
        return cls(objects, merged, black_and_white)

    def truth(self, path: Path) -> Labels:
        """Ground truth as ids, uint8 [H, W]."""
        mask = read_mask(path, black_and_white=self.black_and_white)
        return (mask != 0).astype(np.uint8) if self.merged else mask

    def result(self, path: Path) -> Labels:
        """A method's mask as ids, uint8 [H, W]; of a single object 1 it may be 0 and 255."""
        mask = read_mask(path, black_and_white=self.ids.tolist() == [1])
        return (mask != 0).astype(np.uint8) if self.merged else mask

    def refuse_others(self, shown: Labels, path: Path) -> None:
        """HvcError when a result shows ids that are none of the objects'."""
        others = np.setdiff1d(shown, [0, *self.ids]).tolist()
        if not others:
            return
        known = ", ".join(map(str, self.ids))
        hint = "; a black-and-white mask shows 255: save the object's id instead" if VOID in others else ""
        raise HvcError(
            f"{path} shows id {', '.join(map(str, others))}, but the objects of this sequence by its first "
            f"annotation are {known}{hint or '; set other pixels to 0'}"
        )


def same_size(result: Labels, path: Path, truth: Labels, truth_path: Path) -> None:
    """HvcError when a result is not as large as its ground truth."""
    if result.shape != truth.shape:
        raise HvcError(
            f"{path} is {result.shape[1]} x {result.shape[0]} pixels, but {truth_path} is "
            f"{truth.shape[1]} x {truth.shape[0]}; save results in the annotations' size (resize ids by "
            "nearest neighbour)"
        )
