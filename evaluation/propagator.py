"""The state of label propagation through one video: remembered frames, references, known objects."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hvc.evaluation.context import context_counts
from hvc.evaluation.propagation import Frame, propagate_masks
from hvc.evaluation.protocol import LabelResize, Protocol


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
        self._recent: dict[int, Frame] = {}
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
        grid = features.permute(1, 2, 0).contiguous()
        masks = self._predict(grid)
        maps = given if soft is None else soft
        new = self._new_channels(maps)
        if maps is not None and new.any():
            chosen = maps * new.to(maps.device)[:, None, None]
            drawn = (
                _on_grid(chosen, grid, self._protocol.label_resize)
                if soft is None
                else _as_is(chosen, grid)
            )
            masks, channels = self._draw(masks, drawn, new.to(grid))
            self._references.append(_Reference(self._t, Frame(grid, masks), channels))
            self._known |= new
        self._remember(Frame(grid, masks))
        return masks

    def _predict(self, grid: Tensor) -> Tensor:
        """The sum over references, each restricted to its own channels."""
        masks = grid.new_zeros(*grid.shape[:2], len(self._known))
        for reference in self._references:
            masks += reference.channels * self._predict_from(reference, grid)
        return masks

    def _predict_from(self, reference: _Reference, grid: Tensor) -> Tensor:
        protocol = self._protocol
        counts = context_counts(reference.index, self._t, protocol.context)
        return propagate_masks(
            grid,
            reference.frame,
            [(self._recent[index], count) for index, count in counts.items()],
            radius=protocol.radius or max(grid.shape[:2]) * 2.0,
            top_k=protocol.top_k,
            temperature=protocol.temperature,
        )

    def _new_channels(self, maps: Tensor | None) -> Tensor:
        """bool [M]: ids that the given maps show for the first time."""
        late = self._protocol.late_objects == "never" and bool(self._references)
        if maps is None or late:
            return torch.zeros_like(self._known)
        return maps.flatten(1).any(1).cpu() & ~self._known

    def _draw(self, masks: Tensor, drawn: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Masks with the new ids drawn over them, and the channels that the frame answers for.

        As officially, an object that is lost on the feature grid of the very first frame is not
        answered for, while in later frames the full-size mask decides.
        """
        if self._t == 0:
            return drawn, (drawn.sum((0, 1)) > 0).to(drawn)
        cover = drawn.sum(-1, keepdim=True)
        return (1 - cover) * masks + cover * drawn, new

    def _remember(self, frame: Frame) -> None:
        self._recent[self._t] = frame
        self._recent.pop(self._t - self._protocol.context, None)
        self._t += 1


def _on_grid(masks: Tensor, grid: Tensor, how: LabelResize) -> Tensor:
    """bool [M, H, W] -> soft [h, w, M], bilinear without smoothing."""
    return _resized(masks.to(grid), (grid.shape[0], grid.shape[1]), how).permute(1, 2, 0).contiguous()


def _as_is(maps: Tensor, grid: Tensor) -> Tensor:
    """Soft [M, h, w] -> [h, w, M]; ValueError when the maps are not on the feature grid."""
    if maps.shape[1:] != grid.shape[:2]:
        raise ValueError(f"maps of {tuple(maps.shape[1:])} cells, but features of {tuple(grid.shape[:2])}")
    return maps.to(grid).permute(1, 2, 0).contiguous()


def upsample(masks: Tensor, size: tuple[int, int], how: LabelResize = "aligned") -> tuple[Tensor, Tensor]:
    """Soft masks [h, w, M] -> (channel with the largest value, that value), both [H, W] = size."""
    confidence, channel = _resized(masks.permute(2, 0, 1), size, how).max(0)
    return channel, confidence


def _resized(maps: Tensor, size: tuple[int, int], how: LabelResize) -> Tensor:
    """[M, H, W] -> [M, h, w]."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=how == "aligned")[0]
