"""Joints of bodies in files: JHMDB's annotations, and what tracking made of them."""

import json
from collections.abc import Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic

JOINTS = 15
"""Joints of JHMDB: neck, belly, face, then shoulders, hips, elbows, knees, wrists, ankles."""
_KEY = "pos_img"


@dataclass(frozen=True)
class TrackedJoints:
    """The joints of a clip as tracking found them."""

    frames: list[str]
    """Stems of the frames' files."""
    width: int
    height: int
    joints: NDArray[np.float64]
    """[T, J, 2]: x, y in pixels of the image, the first pixel's centre being 0; NaN for lost joints."""


def read_joint_positions(path: Path) -> NDArray[np.float64]:
    """The annotated joints of a clip, [T, J, 2] in pixels from 0 (the file counts from 1).

    HvcError when the file is missing, damaged or holds no `pos_img` of 2 x 15 x T numbers.
    """
    _shape(path)
    with _naming(path):
        values = np.asarray(loadmat(path, variable_names=[_KEY])[_KEY], np.float64)
    return values.transpose(2, 1, 0) - 1


def count_joint_frames(path: Path) -> int:
    """Frames that have annotated joints, from the file's header; errors as `read_joint_positions`."""
    return _shape(path)[2]


def _shape(path: Path) -> tuple[int, ...]:
    if not path.is_file():
        raise HvcError(f"expected the joints of a clip at {path}; download joint_positions.zip")
    with _naming(path):
        shapes = {name: shape for name, shape, _ in whosmat(path)}
    shape: tuple[int, ...] = shapes.get(_KEY, ())
    if shape[:2] != (2, JOINTS) or len(shape) != 3:
        raise HvcError(f"{path}: expected {_KEY} of 2 x {JOINTS} x T numbers, there is {shapes}")
    return shape


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever SciPy says of a file that it cannot read, with the file's name."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - SciPy's reader raises what the damage happens to lead to
        raise HvcError(f"{path}: not a readable MATLAB file ({error}); copy it again") from None


def write_tracked(path: Path, tracked: TrackedJoints) -> None:
    """Write tracked joints as JSON, lost ones as null."""
    content = {
        "joints": [
            [None if np.isnan(point).any() else point.tolist() for point in points]
            for points in tracked.joints
        ],
        "frames": tracked.frames,
        "width": tracked.width,
        "height": tracked.height,
    }
    write_atomic(path, json.dumps(content))


def read_tracked(path: Path) -> TrackedJoints:
    """Read what `write_tracked` wrote; HvcError when it is missing or no such file."""
    content = read_json(path)
    if content is None:
        raise HvcError(f"expected tracked joints (JSON) at {path}")
    try:
        return _tracked(content)
    except (KeyError, TypeError, ValueError) as error:
        raise HvcError(
            f'{path}: expected {{"joints": for every frame [x, y] or null per joint, "frames": names, '
            f'"width": W, "height": H}} ({type(error).__name__}: {error})'
        ) from None


def _tracked(content: dict[str, Any]) -> TrackedJoints:
    lost = [np.nan, np.nan]
    rows: Items[Any] = [[lost if point is None else point for point in row] for row in content["joints"]]
    joints = np.array(rows, np.float64)
    frames = [str(frame) for frame in content["frames"]]
    if joints.shape != (len(frames), JOINTS, 2):
        raise ValueError(f"{joints.shape} numbers for {len(frames)} frames of {JOINTS} joints")
    return TrackedJoints(frames, int(content["width"]), int(content["height"]), joints)
