"""Label propagation through one video: files in, label maps out, frame by frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hvc.base.stage import Stop, never
from hvc.evaluation.layouts.decode import check_size, decode_frames
from hvc.evaluation.layouts.images import picture_size
from hvc.evaluation.layouts.joint_files import read_joint_positions
from hvc.evaluation.layouts.sequences import Sequence, object_ids
from hvc.evaluation.propagation.features import Extractor
from hvc.evaluation.propagation.joints import FrameJoints
from hvc.evaluation.propagation.propagator import Propagator, upsample
from hvc.evaluation.propagation.protocol import Protocol

_OFFICIAL = Protocol()


@dataclass(frozen=True)
class FrameLabels:
    """The answer for one frame."""

    index: int
    labels: NDArray[np.uint8] | None
    """Ids as in the given masks, [H, W] at the video's size; None where the frame is no result."""


@torch.inference_mode()
def propagate(
    sequence: Sequence, encoder: Extractor, protocol: Protocol, stop: Stop = never
) -> Iterator[FrameLabels]:
    """Label every frame of a video from its given masks, in order.

    A few frames are decoded ahead, and only `protocol.context` of them are remembered (as feature maps),
    besides the frames with given masks. When `stop()` says so, the iteration ends early.

    Raises HvcError when a file is missing or damaged, sizes differ, or no mask shows any object.
    """
    masks = given_masks(sequence, protocol)
    ids = object_ids(sequence, masks)
    propagator = Propagator(protocol, len(ids))
    results = set(sequence.results)
    for frame in decode_frames(sequence, masks):
        if stop():
            return
        features = encoder.features(frame.image, protocol.input_size, protocol.image_resize)
        soft = propagator.step(features, None if frame.mask is None else _one_hot(frame.mask, ids))
        if frame.index not in results:
            yield FrameLabels(frame.index, None)
        elif frame.index == 0 and frame.mask is not None and protocol.first_frame == "given":
            yield FrameLabels(0, _known(frame.mask, ids))
        else:
            channels = upsample(soft, frame.size, protocol.label_resize)[0]
            yield FrameLabels(frame.index, ids[channels.cpu().numpy()])


def copy_first(
    sequence: Sequence, protocol: Protocol = _OFFICIAL, stop: Stop = never
) -> Iterator[FrameLabels | FrameJoints]:
    """What is given, on every frame that follows: what a method must beat.

    A late object (see `protocol.late_objects`) is drawn over the rest and stays from its frame on. Of a
    pose sequence the first frame's joints stay.
    """
    if sequence.joints is not None:
        joints = read_joint_positions(sequence.joints)[0]
        for index in range(len(sequence.frames)):
            if stop():
                return
            yield FrameJoints(index, joints)
        return
    masks = given_masks(sequence, protocol)
    ids = object_ids(sequence, masks)
    size = picture_size(sequence.frames[0])
    labels, known = np.zeros(size, np.uint8), {0}
    results = set(sequence.results)
    for index in range(len(sequence.frames)):
        if stop():
            return
        if index in masks:
            given = _known(sequence.read_mask(masks[index]), ids)
            check_size((given.shape[0], given.shape[1]), size, masks[index], sequence.frames[0])
            new = set(np.unique(given).tolist()) - known
            labels = np.where(np.isin(given, list(new)), given, labels)
            known |= new
        yield FrameLabels(index, labels if index in results else None)


def given_masks(sequence: Sequence, protocol: Protocol) -> dict[int, Path]:
    """The masks that the method sees: only the earliest where the protocol takes no late objects."""
    if protocol.late_objects == "inject" or not sequence.masks:
        return sequence.masks
    first = min(sequence.masks)
    return {first: sequence.masks[first]}


def _known(mask: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask with what is no object's (void) as background."""
    return np.where(np.isin(mask, ids), mask, 0).astype(np.uint8)


def _one_hot(mask: NDArray[np.uint8], ids: NDArray[np.uint8]) -> torch.Tensor:
    """Bool [M, H, W]: channel m shows ids[m]; void pixels show in none."""
    return torch.from_numpy(mask)[None] == torch.from_numpy(ids)[:, None, None]
