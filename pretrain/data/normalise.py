"""Views as a network takes them: floats of zero mean and unit deviation, their colours changed."""

import torch
from torch import Tensor

from hvc.pretrain.data.colour import recolour
from hvc.pretrain.data.views import STATISTICS


class Normaliser:
    """Makes float [B, 3, S, S] of uint8 [B, S, S, 3] on a device, with statistics of `views.STATISTICS`."""

    def __init__(self, statistics: str, device: torch.device) -> None:
        mean, std = STATISTICS[statistics]
        self._device = device
        self._mean, self._std = (torch.tensor(values, device=device) for values in (mean, std))

    def __call__(self, pixels: Tensor, colours: Tensor | None = None) -> Tensor:
        """The views on the device, channels last in memory.

        Args:
            pixels: uint8 [B, S, S, 3], anywhere: these travel, a quarter of the bytes.
            colours: float32 [B, 5] on the host, see `colour.recolour`; None where none are changed.
        """
        if self._device.type != "cpu":
            return self._all(pixels.to(self._device, non_blocking=True), colours)
        # View by view: what one pass over a view has written is still in the cache for the next.
        made = torch.empty(pixels.shape, dtype=torch.float32)
        for number, view in enumerate(pixels):
            if colours is None:
                self._one(view, made[number])
            else:
                one = slice(number, number + 1)
                made[one] = self._all(pixels[one], colours[one]).permute(0, 2, 3, 1)
        return made.permute(0, 3, 1, 2)

    def _all(self, pixels: Tensor, colours: Tensor | None) -> Tensor:
        images = recolour(pixels.permute(0, 3, 1, 2).float().div_(255), colours)
        return images.sub(self._mean.view(3, 1, 1)).div_(self._std.view(3, 1, 1))

    def _one(self, view: Tensor, target: Tensor) -> None:
        # Whole rows at once: three values are too few for an inner loop.
        width = view.shape[1]
        rows = target.view(-1, 3 * width).copy_(view.reshape(-1, 3 * width)).div_(255)
        rows.sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
