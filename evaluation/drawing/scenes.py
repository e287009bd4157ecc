"""A sequence with its results, frame by frame, drawn at the size that a picture needs."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.evaluation.drawing.overlays import Pixels, Point, overlay, part_palette, skeleton
from hvc.evaluation.layouts.images import picture_size, read_scaled
from hvc.evaluation.layouts.joint_files import read_joint_positions, read_tracked
from hvc.evaluation.layouts.masks import read_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.layouts.vip import CLASSES

Size = tuple[int, int]
"""Width and height in pixels."""


class Scene:
    """One sequence: its frames, what was propagated, and the truth where there is any.

    Args:
        sequence: where the frames and the truth are.
        labels: the folder of results, `NAME/STEM.png` or, of joints, `NAME.json` in it.
    """

    def __init__(self, sequence: Sequence, labels: Path) -> None:
        self.name, self.results = sequence.name, sequence.results
        self.stems = [path.stem for path in sequence.frames]
        height, width = picture_size(sequence.frames[0])
        self.size: Size = width, height
        self._sequence, self._labels = sequence, labels / sequence.name
        self._colours = None if sequence.classes is None else part_palette()
        self._joints = self._true_joints = None
        if sequence.joints is not None:
            self._joints = _points(read_tracked(labels / f"{sequence.name}.json").joints)
            self._true_joints = _points(read_joint_positions(sequence.joints))

    def __len__(self) -> int:
        return len(self.stems)

    def scaled(self, width: int) -> Size:
        """A size of this width, never larger than the frames."""
        width = min(width, self.size[0])
        return width, max(1, round(self.size[1] * width / self.size[0]))

    def plain(self, index: int, size: Size) -> Pixels:
        """A frame without labels, uint8 RGB [H, W, 3]."""
        return read_scaled(self._sequence.frames[index], size)

    def propagated(self, index: int, size: Size) -> Image.Image:
        """A frame with the results over it."""
        if self._joints is not None:
            return self._with_joints(index, size, self._joints[index])
        return self._with_labels(index, size, self._labels / f"{self.stems[index]}.png")

    def truth(self, index: int, size: Size) -> Image.Image | None:
        """A frame with the truth over it; None where there is none."""
        if self._true_joints is not None:
            return self._with_joints(index, size, self._true_joints[index])
        path = self._sequence.annotations[index]
        return None if path is None else self._with_labels(index, size, path)

    def parts(self) -> list[int]:
        """Ids of the body parts that results or truth show in the first and the last frame."""
        if self._colours is None:
            return []
        ends = {self.results[0], self.results[-1]}
        files = [self._labels / f"{self.stems[index]}.png" for index in ends]
        files += [path for index in ends if (path := self._sequence.annotations[index]) is not None]
        found = {int(number) for path in files for number in np.unique(read_mask(path))}
        return sorted(number for number in found if 0 < number < len(CLASSES))

    def _with_labels(self, index: int, size: Size, path: Path) -> Image.Image:
        """Scaled first and drawn over afterwards, so that contours stay crisp at any size."""
        ids = Image.fromarray(self._sequence.read_mask(path)).resize(size, Image.Resampling.NEAREST)
        return overlay(self.plain(index, size), np.asarray(ids), colours=self._colours)

    def _with_joints(self, index: int, size: Size, joints: list[Point]) -> Image.Image:
        across, down = size[0] / self.size[0], size[1] / self.size[1]
        points = [None if point is None else (point[0] * across, point[1] * down) for point in joints]
        return skeleton(self.plain(index, size), points)


def _points(positions: NDArray[np.float64]) -> list[list[Point]]:
    """[frames, joints, 2], NaN for lost ones, as points."""
    return [
        [None if np.isnan(point).any() else (float(point[0]), float(point[1])) for point in frame]
        for frame in positions
    ]
