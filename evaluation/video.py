"""Label propagation through one video: files in, label maps out, frame by frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.base.stage import Stop, never
from hvc.evaluation.features import Extractor
from hvc.evaluation.images import read_frame
from hvc.evaluation.masks import VOID, read_mask
from hvc.evaluation.propagator import Propagator, upsample
from hvc.evaluation.protocol import Protocol
from hvc.evaluation.sequences import Sequence


@dataclass(frozen=True)
class FrameLabels:
    """The answer for one frame: ids as in the given masks, uint8 [H, W] at the video's size."""

    index: int
    labels: NDArray[np.uint8]


@torch.inference_mode()
def propagate(
    sequence: Sequence, encoder: Extractor, protocol: Protocol, stop: Stop = never
) -> Iterator[FrameLabels]:
    """Label every frame of a video from its given masks, in order.

    Frames are decoded one at a time, and only `protocol.context` of them are remembered (as feature
    maps), besides the frames with given masks. When `stop()` says so, the iteration ends early.

    Raises HvcError when a file is missing or damaged, sizes differ, or no mask shows any object.
    """
    ids = object_ids(sequence)
    propagator = Propagator(protocol, len(ids))
    size: tuple[int, int] | None = None
    for index, path in enumerate(sequence.frames):
        if stop():
            return
        image = read_frame(path)
        size = size or (image.shape[0], image.shape[1])
        check_size((image.shape[0], image.shape[1]), size, path, sequence.frames[0])
        given = _given(sequence, index, size)
        features = encoder.features(image, protocol.input_size)
        soft = propagator.step(features, None if given is None else _one_hot(given, ids))
        if index == 0 and given is not None and protocol.first_frame == "given":
            labels = np.where(given == VOID, 0, given).astype(np.uint8)
        else:
            labels = ids[upsample(soft, size, protocol.label_resize)[0].cpu().numpy()]
        yield FrameLabels(index, labels)


def object_ids(sequence: Sequence) -> NDArray[np.uint8]:
    """All ids of a video's given masks, ascending, the background 0 first."""
    found = {0}
    for path in sequence.masks.values():
        found.update(np.unique(read_mask(path)).tolist())
    found.discard(VOID)
    if found == {0}:
        masks = ", ".join(str(path) for path in sequence.masks.values()) or "none given"
        raise HvcError(f"sequence {sequence.name}: its masks show no object ({masks})")
    return np.array(sorted(found), np.uint8)


def _given(sequence: Sequence, index: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    path = sequence.masks.get(index)
    if path is None:
        return None
    mask = read_mask(path)
    check_size((mask.shape[0], mask.shape[1]), size, path, sequence.frames[0])
    return mask


def _one_hot(mask: NDArray[np.uint8], ids: NDArray[np.uint8]) -> torch.Tensor:
    """Bool [M, H, W]: channel m shows ids[m]; void pixels show in none."""
    return torch.from_numpy(mask)[None] == torch.from_numpy(ids)[:, None, None]


def check_size(found: tuple[int, int], size: tuple[int, int], path: Path, first: Path) -> None:
    """HvcError when a picture's (height, width) is not that of the video, which its first frame sets."""
    if found != size:
        wanted = f"{size[1]} x {size[0]}"
        raise HvcError(f"{path} is {found[1]} x {found[0]} pixels, but the video is {wanted} ({first})")
