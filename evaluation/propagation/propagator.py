"""The state of label propagation through one video: remembered frames, references, known objects."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hvc.evaluation.propagation.context import context_counts
from hvc.evaluation.propagation.memory import Frame, Memory
from hvc.evaluation.propagation.propagate import propagate_masks
from hvc.evaluation.propagation.protocol import Protocol, Resize


@dataclass(frozen=True)
class _Reference:
    """A frame with given masks; `channels` are the ids that it answers for (1, the others 0; [M])."""

    index: int
    frame: Frame
    channels: Tensor


class Propagator:
    """Takes a video frame by frame and returns soft masks; memory is bounded by the context.

    Masks have one channel per id, channel 0 being the background. Each frame may bring masks of ids
    that are not known yet: it becomes a further reference frame, which answers for these ids only
    (unless the protocol leaves late objects out).
    """

    def __init__(self, protocol: Protocol, channels: int) -> None:
        self._protocol = protocol
        self._known = torch.zeros(channels, dtype=torch.bool)
        self._references: list[_Reference] = []
        self._memory: Memory | None = None
        self._t = 0

    def step(self, features: Tensor, given: Tensor | None = None, *, soft: Tensor | None = None) -> Tensor:
        """Process the next frame.

        Args:
            features: [C, h, w], of length 1 over C.
            given: bool [M, H, W], the frame's given masks at any size; ids known already are ignored.
            soft: [M, h, w] on the feature grid, taken as they are in place of `given` (heat maps of
                joints); channels that are zero everywhere are not given.

        Returns:
            Soft masks [h, w, M]; over M they sum to about 1 (to 0 before anything is annotated).
        """
        if self._protocol.precision == "float16":
            features = features.half().to(features.dtype)
        memory = self._memory = self._memory or self._allocate(features)
        now = memory[self._t % len(memory.features)]
        now.features.copy_(features.permute(1, 2, 0))
        now.masks.copy_(self._predict(now.features, memory))
        maps = given if soft is None else soft
        new = self._new_channels(maps)
        if maps is not None and new.any():
            chosen = maps * new.to(maps.device)[:, None, None]
            resize = self._protocol.label_resize
            drawn = _on_grid(chosen, now.masks, resize) if soft is None else _as_is(chosen, now.masks)
            channels = self._draw(now.masks, drawn, new.to(now.masks))
            kept = Frame(now.features.clone(), now.masks.clone())
            self._references.append(_Reference(self._t, kept, channels))
            self._known |= new
        self._t += 1
        return now.masks.clone()

    def _allocate(self, features: Tensor) -> Memory:
        """Room for the context and the frame itself, used in turn."""
        half = self._protocol.precision == "float16" and features.device.type != "cpu"
        dtype = torch.float16 if half else features.dtype
        return Memory.like(self._protocol.context + 1, features, len(self._known), dtype)

    def _predict(self, query: Tensor, memory: Memory) -> Tensor:
        """The sum over references, each restricted to its own channels."""
        if not self._references:
            return query.new_zeros(*query.shape[:2], len(self._known))
        counts = [self._slots(reference.index, len(memory.features)) for reference in self._references]
        frames = [reference.frame for reference in self._references]
        masks = propagate_masks(query, frames, memory, counts, self._protocol)
        channels = torch.stack([reference.channels for reference in self._references])
        return (masks * channels[:, None, None]).sum(0)

    def _slots(self, reference: int, size: int) -> dict[int, int]:
        """A reference's context as slots of the memory, the newest frame first: it is most alike."""
        counts = context_counts(reference, self._t, self._protocol.context)
        return {frame % size: counts[frame] for frame in sorted(counts, reverse=True)}

    def _new_channels(self, maps: Tensor | None) -> Tensor:
        """bool [M]: ids that the given maps show for the first time."""
        late = self._protocol.late_objects == "never" and bool(self._references)
        if maps is None or late:
            return torch.zeros_like(self._known)
        return maps.flatten(1).any(1).cpu() & ~self._known

    def _draw(self, masks: Tensor, drawn: Tensor, new: Tensor) -> Tensor:
        """Draw the new ids over the masks, in place; the channels that the frame answers for.

        As officially, an object that is lost on the feature grid of the very first frame is not
        answered for, while in later frames the full-size mask decides.
        """
        if self._t == 0:
            masks.copy_(drawn)
            return (drawn.sum((0, 1)) > 0).to(drawn)
        cover = drawn.sum(-1, keepdim=True)
        masks.copy_((1 - cover) * masks + cover * drawn)
        return new


def _on_grid(masks: Tensor, grid: Tensor, how: Resize) -> Tensor:
    """bool [M, H, W] -> soft [h, w, M], bilinear without smoothing."""
    return _resized(masks.to(grid), (grid.shape[0], grid.shape[1]), how).permute(1, 2, 0).contiguous()


def _as_is(maps: Tensor, grid: Tensor) -> Tensor:
    """Soft [M, h, w] -> [h, w, M]; ValueError when the maps are not on the feature grid."""
    if maps.shape[1:] != grid.shape[:2]:
        raise ValueError(f"maps of {tuple(maps.shape[1:])} cells, but features of {tuple(grid.shape[:2])}")
    return maps.to(grid).permute(1, 2, 0).contiguous()


def upsample(masks: Tensor, size: tuple[int, int], how: Resize = "aligned") -> tuple[Tensor, Tensor]:
    """Soft masks [h, w, M] -> (channel with the largest value, that value), both [H, W] = size."""
    confidence, channel = _resized(masks.permute(2, 0, 1), size, how).max(0)
    return channel, confidence


def _resized(maps: Tensor, size: tuple[int, int], how: Resize) -> Tensor:
    """[M, H, W] -> [M, h, w]."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=how == "aligned")[0]
