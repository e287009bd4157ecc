"""Frames of a video, decoded while the one before is still worked on."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.images import read_frame
from hvc.evaluation.layouts.sequences import Sequence

AHEAD = 3
"""Frames that wait decoded at most; memory stays bounded however long the video is."""


@dataclass(frozen=True)
class DecodedFrame:
    """What a file or two held: pixels, uint8 RGB [H, W, 3], and the given mask, uint8 [H, W]."""

    index: int
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


def decode_frames(sequence: Sequence, masks: dict[int, Path] | None = None) -> Iterator[DecodedFrame]:
    """Every frame in order, with its mask among `masks` (by default the given ones), decoded ahead.

    Raises HvcError, when the frame in question is reached, where a file is missing or damaged or its
    size is not that of the first frame.
    """
    given = sequence.masks if masks is None else masks
    size: tuple[int, int] | None = None
    waiting: deque[Future[DecodedFrame]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
    try:
        for index in range(len(sequence.frames)):
            for following in range(index + len(waiting), min(index + AHEAD, len(sequence.frames))):
                waiting.append(pool.submit(_decode, sequence, following, given.get(following)))
            frame = waiting.popleft().result()
            size = size or frame.size
            check_size(frame.size, size, sequence.frames[index], sequence.frames[0])
            if frame.mask is not None:
                height, width = frame.mask.shape
                check_size((height, width), size, given[index], sequence.frames[0])
            yield frame
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(sequence: Sequence, index: int, mask: Path | None) -> DecodedFrame:
    image = read_frame(sequence.frames[index])
    return DecodedFrame(index, image, None if mask is None else sequence.read_mask(mask))


def check_size(found: tuple[int, int], size: tuple[int, int], path: Path, first: Path) -> None:
    """HvcError when a picture's (height, width) is not that of the video, which its first frame sets."""
    if found != size:
        wanted = f"{size[1]} x {size[0]}"
        raise HvcError(f"{path} is {found[1]} x {found[0]} pixels, but the video is {wanted} ({first})")
