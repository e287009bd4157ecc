"""What travels from the loader processes to the training step."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvc.pretrain.data.device_views import cut_views
from hvc.pretrain.data.order import RankBatch
from hvc.pretrain.data.packed import Packed

Pair = tuple[Tensor, Tensor]
"""Something of view 1, and of view 2."""


class BadSample(NamedTuple):
    """A corrupt sample that another one stands in for."""

    sample: int
    reason: str


class Part(NamedTuple):
    """What one loader process makes of a step: b samples, of all B of the rank; b may be 0."""

    pixels: Packed | Tensor
    """Cut later, on the device; or views already, uint8 [2, b, size, size, 3]."""
    boxes: NDArray[np.float32]
    """[2, b, 4], crop boxes in [0, 1]."""
    colours: NDArray[np.float32] | None
    """[2, b, 5], see `colour.recolour`; None where a recipe changes no colour."""
    bad: list[BadSample]
    counts: NDArray[np.int64]
    """What reading cost, in the order of `reader.Counts.NAMES`."""
    note: str | None
    """What the user should hear of, once."""


class Batch(NamedTuple):
    """One rank's share of a step, on the host."""

    plan: RankBatch
    parts: tuple[Part, ...]
    """In the order of the samples, at least one."""
    size: int
    """Side of a view in pixels."""
    waited: float
    """Seconds that training stood still for it."""

    @property
    def boxes(self) -> Pair:
        """float32 [B, 4] of each view, crop boxes in [0, 1]."""
        first, second = torch.from_numpy(np.concatenate([part.boxes for part in self.parts], axis=1))
        return first, second

    @property
    def colours(self) -> Pair | None:
        """float32 [B, 5] of each view, or None."""
        known = [part.colours for part in self.parts if part.colours is not None]
        if not known:
            return None
        first, second = torch.from_numpy(np.concatenate(known, axis=1))
        return first, second

    @property
    def views(self) -> Pair:
        """uint8 [B, size, size, 3] of each view, on the host."""
        return self.views_on(torch.device("cpu"))

    def views_on(self, device: torch.device) -> Pair:
        """uint8 [B, size, size, 3] of each view on a device, wherever they are cut."""
        packed, cut = [], []
        for part in self.parts:
            if not part.boxes.size:
                continue
            if isinstance(part.pixels, Packed):
                packed.append(part.pixels.to(device))
            else:
                cut.append(part.pixels.to(device, non_blocking=True))
        if packed:
            return cut_views(_one(packed), self.size)
        first, second = cut[0] if len(cut) == 1 else torch.cat(cut, dim=1)
        return first, second

    @property
    def bad(self) -> list[BadSample]:
        """The corrupt samples among this rank's."""
        return [bad for part in self.parts for bad in part.bad]

    @property
    def counts(self) -> NDArray[np.int64]:
        """What reading cost since the batch before, in the order of `reader.Counts.NAMES`."""
        total: NDArray[np.int64] = np.sum([part.counts for part in self.parts], axis=0)
        return total


def _one(parts: list[Packed]) -> Packed:
    """Parts on one device as one."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.pixels) for part in parts)]).tolist()
    shift = torch.tensor([1, 0, 0, 0, 0])
    places = [part.places + start * shift for part, start in zip(parts, starts, strict=False)]
    return Packed(torch.cat([part.pixels for part in parts]), torch.cat(places, dim=1))
