"""What travels from the loader processes to the training step."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvc.pretrain.device_views import cut_views
from hvc.pretrain.order import RankBatch
from hvc.pretrain.packed import Packed, merge

Views = tuple[Tensor, Tensor]
"""uint8 [B, size, size, 3] each."""


class BadSample(NamedTuple):
    """A corrupt sample that another one stands in for."""

    sample: int
    reason: str


class Part(NamedTuple):
    """What one loader process makes of a step: b samples, of all B of the rank; b may be 0."""

    pixels: Packed | Views
    """Cut later, on the device, or cut already."""
    boxes: Views
    """float32 [b, 4] each, crop boxes in [0, 1]."""
    colours: Views | None
    """float32 [b, 5] each, see `colour.recolour`; None where a recipe changes no colour."""
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
    def boxes(self) -> Views:
        """float32 [B, 4] of each view, crop boxes in [0, 1]."""
        return _joined([part.boxes for part in self.parts])

    @property
    def colours(self) -> Views | None:
        """float32 [B, 5] of each view, or None."""
        known = [part.colours for part in self.parts if part.colours is not None]
        return _joined(known) if known else None

    @property
    def views(self) -> Views:
        """uint8 [B, size, size, 3] of each view, on the host."""
        return self.views_on(torch.device("cpu"))

    def views_on(self, device: torch.device) -> Views:
        """uint8 [B, size, size, 3] of each view on a device, wherever they are cut."""
        packed, cut = [], []
        for part in self.parts:
            if not len(part.boxes[0]):
                continue
            if isinstance(part.pixels, Packed):
                packed.append(part.pixels.to(device))
            else:
                cut.append(part.pixels)
        if packed:
            return cut_views(merge(packed), self.size)
        moved = [tuple(view.to(device, non_blocking=True) for view in pair) for pair in cut]
        return _joined([(first, second) for first, second in moved])

    @property
    def bad(self) -> list[BadSample]:
        """The corrupt samples among this rank's."""
        return [bad for part in self.parts for bad in part.bad]

    @property
    def counts(self) -> NDArray[np.int64]:
        """What reading cost since the batch before, in the order of `reader.Counts.NAMES`."""
        total: NDArray[np.int64] = np.sum([part.counts for part in self.parts], axis=0)
        return total


def _joined(pairs: list[Views]) -> Views:
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([first for first, _ in pairs]), torch.cat([second for _, second in pairs])
