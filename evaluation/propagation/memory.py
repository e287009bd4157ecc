"""What is remembered of frames: features and soft masks, one copy in memory taken once."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """What a frame is remembered by: features [h, w, C] and soft masks [h, w, M]."""

    features: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Memory:
    """Several frames: features [N, h, w, C], channels last and contiguous, and soft masks [N, h, w, M]."""

    features: Tensor
    masks: Tensor

    @classmethod
    def like(cls, frames: int, features: Tensor, channels: int, dtype: torch.dtype) -> "Memory":
        """Uninitialised memory for maps such as `features` [C, h, w], kept as `dtype`, and their masks."""
        size = features.shape[1:]
        return cls(
            features.new_empty(frames, *size, len(features), dtype=dtype),
            features.new_empty(frames, *size, channels),
        )

    def __getitem__(self, slot: int) -> Frame:
        """A frame's features and masks where they lie, not a copy."""
        return Frame(self.features[slot], self.masks[slot])
