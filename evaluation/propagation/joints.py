"""Poses: joints travel as heat maps, one channel each, and are read back where these are highest.

Heat maps and read-back are those of TimeCycle, UVC and CRW on JHMDB (videowalk, code/data/jhmdb.py and
process_pose in code/utils/test_utils.py). UVC also subtracts a map's minimum first; that is 0 wherever any
cell of the map got nothing.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.stage import Stop, never
from hvc.evaluation.layouts.decode import decode_frames
from hvc.evaluation.layouts.images import picture_size
from hvc.evaluation.layouts.joint_files import TrackedJoints, read_joint_positions, write_tracked
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.propagation.features import Extractor, scaled_size
from hvc.evaluation.propagation.propagator import Propagator
from hvc.evaluation.propagation.protocol import Protocol

SIGMA = 0.5
"""Width of a joint's Gaussian, in cells."""


@dataclass(frozen=True)
class FrameJoints:
    """The answer for one frame: x, y in pixels of the image from 0, float64 [J, 2]; NaN for lost joints."""

    index: int
    joints: NDArray[np.float64]


@torch.inference_mode()
def track_joints(
    sequence: Sequence, encoder: Extractor, protocol: Protocol, stop: Stop = never
) -> Iterator[FrameJoints]:
    """Track the joints of a clip's first frame through it; the first frame's come back off its heat maps.

    When `stop()` says so, the iteration ends early. Raises HvcError when a file is missing or damaged, or
    sizes differ.
    """
    if sequence.joints is None:
        raise HvcError(f"sequence {sequence.name} has no joints to track")
    first = read_joint_positions(sequence.joints)[0]
    propagator = Propagator(protocol, 1 + len(first))
    for frame in decode_frames(sequence):
        if stop():
            return
        features = encoder.features(frame.image, protocol.input_size, protocol.image_resize)
        grid = features.shape[1], features.shape[2]
        if frame.index == 0:
            maps = heat_maps(_to_cells(first, frame.size, protocol, grid), grid)
            soft = propagator.step(features, soft=torch.from_numpy(maps).to(features))
        else:
            soft = propagator.step(features)
        cells = read_back(soft.cpu(), protocol.joint_peaks)
        height, width = frame.size
        yield FrameJoints(frame.index, cells / (grid[1], grid[0]) * (width, height))


def _to_cells(
    points: NDArray[np.float64], size: tuple[int, int], protocol: Protocol, grid: tuple[int, int]
) -> NDArray[np.float64]:
    """Pixels of the image [J, 2] -> cells of the feature grid: scaled to the network's input, then by the
    whole number of its pixels that make a cell (8), as officially."""
    height, width = size
    used = size if protocol.input_size is None else scaled_size(height, width, protocol.input_size)
    stride = round(used[1] / grid[1]), round(used[0] / grid[0])
    return points * (float(used[1]), float(used[0])) / (float(width), float(height)) / stride


def heat_maps(points: NDArray[np.float64], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Draw joints [J, 2] (x, y in cells) as maps [1 + J, h, w]; the first is 1 where there is no joint.

    A joint is a patch of 4 x 4 cells, a Gaussian with 1 at its third row and column, which is cell
    int(x - 1.5) + 2: the nearest one, but one too far where x < 1.5, since int() truncates towards 0.
    Outside the grid patches are cut off.
    """
    maps = np.zeros((1 + len(points), *grid))
    for channel, (x, y) in zip(maps[1:], points, strict=True):
        _draw(channel, float(x), float(y))
    maps[0] = maps[1:].sum(0) == 0
    return maps.astype(np.float32)


def _draw(channel: NDArray[np.float64], x: float, y: float) -> None:
    height, width = channel.shape
    left, top = int(x - 3 * SIGMA), int(y - 3 * SIGMA)
    right, bottom = int(x + 3 * SIGMA + 1), int(y + 3 * SIGMA + 1)
    if left >= width or top >= height or right < 0 or bottom < 0:
        return
    offsets = np.arange(6 * SIGMA + 1) - (6 * SIGMA + 1) // 2
    patch = np.exp(-(offsets**2 + offsets[:, None] ** 2) / (2 * SIGMA**2))
    rows = slice(max(0, -top), min(bottom, height) - top)
    columns = slice(max(0, -left), min(right, width) - left)
    channel[max(0, top) : min(bottom, height), max(0, left) : min(right, width)] = patch[rows, columns]


def read_back(masks: Tensor, peaks: int) -> NDArray[np.float64]:
    """Soft masks [h, w, 1 + J] -> joints [J, 2] as x, y in cells; NaN where a map is empty.

    A joint is the mean of its map's `peaks` highest cells, weighted by their values.
    """
    flat = masks[..., 1:].flatten(0, 1).double()
    values, cells = torch.topk(flat, min(peaks, len(flat)), dim=0)
    weights = values / values.sum(0)
    width = masks.shape[1]
    points = torch.stack([(cells % width * weights).sum(0), (cells // width * weights).sum(0)], dim=1)
    points[flat.sum(0) == 0] = torch.nan
    return points.numpy()


def write_joints(path: Path, sequence: Sequence, joints: Items[FrameJoints]) -> None:
    """Write what tracking found in a clip, see `joint_files.read_tracked`."""
    height, width = picture_size(sequence.frames[0])
    stems = [sequence.frames[frame.index].stem for frame in joints]
    write_tracked(path, TrackedJoints(stems, width, height, np.stack([frame.joints for frame in joints])))
