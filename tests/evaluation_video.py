"""A small video made on the spot: a textured square that moves over a textured ground."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hvc.evaluation.layouts.masks import write_mask

SIZE = (72, 96)


@dataclass(frozen=True)
class Video:
    """Frames [T, H, W, 3] and true labels [T, H, W]."""

    frames: np.ndarray
    labels: np.ndarray

    def write(self, folder: Path, masks: int | None = None, suffix: str = "jpg") -> Path:
        """frames/ and masks/ of a sequence folder; masks of the first so many frames."""
        (folder / "frames").mkdir(parents=True)
        for index, (frame, labels) in enumerate(zip(self.frames, self.labels, strict=True)):
            Image.fromarray(frame).save(folder / "frames" / f"{index:05d}.{suffix}", quality=95)
            if masks is None or index < masks:
                write_mask(folder / "masks" / f"{index:05d}.png", labels)
        return folder


def make_video(frames: int = 6, ids: tuple[int, ...] = (1,)) -> Video:
    """Objects of 28 x 28 pixels, one under the other, that move 3 pixels a frame to the right."""
    generator = np.random.default_rng(3)
    ground = generator.integers(0, 110, (*SIZE, 3), np.uint8)
    texture = generator.integers(130, 255, (28, 28, 3), np.uint8)
    images, labels = np.repeat(ground[None], frames, 0), np.zeros((frames, *SIZE), np.uint8)
    for t in range(frames):
        for place, number in enumerate(ids):
            block = t, slice(6 + 32 * place, 34 + 32 * place), slice(10 + 3 * t, 38 + 3 * t)
            images[block], labels[block] = np.roll(texture, place, axis=2), number
    return Video(images, labels)
