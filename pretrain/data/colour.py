"""Random colour of views, batched, on any device: the field's definitions, in a fixed order.

Brightness (multiply), contrast (blend with the mean of the grey image), saturation (blend with the
grey image), hue (turn it, keeping value and chroma of HSV), grey; clamped to [0, 1] after each of
the first three. The factors are drawn on the host with the crops (`views.draw_views`). What a
sample becomes does not depend on its batch: not even in the last bit.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from hvc.pretrain.data.views import ViewDraw

_GREY = (0.299, 0.587, 0.114)
_STEPS = 2**24
"""Grey values are summed as whole numbers of this unit: no order of summing changes the sum."""


def colour_tensor(draws: Iterable[ViewDraw]) -> Tensor | None:
    """float32 [B, 5] of one view's colours as `recolour` takes them; None where colour is off."""
    colours = [draw.colour for draw in draws if draw.colour is not None]
    return torch.tensor(colours, dtype=torch.float32) if colours else None


def recolour(images: Tensor, colours: Tensor | None) -> Tensor:
    """Apply brightness, contrast, saturation, hue and grey, in this order.

    Args:
        images: float [B, 3, H, W] in [0, 1], RGB; not changed.
        colours: float32 [B, 5] on the host (`views.Colour`), or None: the images themselves.

    Returns:
        float [B, 3, H, W] in [0, 1]; a sample with neutral factors is equal to the last bit.
    """
    if colours is None:
        return images
    # Read on the host, before the copy: looking at the device's would wait for it.
    brightened, contrasted, saturated, turned, greyed = (
        (colours != torch.tensor([1, 1, 1, 0, 0])).any(0).tolist()
    )
    if images.is_cuda:
        colours = colours.pin_memory()  # only from there a copy waits for nothing
    factors = colours.to(images.device, non_blocking=True).to(images.dtype)[:, :, None, None, None]
    brightness, contrast, saturation, hue, grey = factors.unbind(1)
    if brightened:
        images = (images * brightness).clamp(0, 1)
    if contrasted:
        images = _blend(images, _mean(_luma(images)), contrast)
    if saturated:
        images = _blend(images, _luma(images), saturation)
    if turned:
        images = torch.where(hue == 0, images, _turn(images, hue))
    if greyed:
        images = torch.where(grey > 0, _luma(images), images)
    return images


def _luma(images: Tensor) -> Tensor:
    """Grey values [B, 1, H, W]."""
    red, green, blue = images.chunk(3, dim=1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _mean(grey: Tensor) -> Tensor:
    """Mean [B, 1, 1, 1] of grey values in [0, 1]."""
    whole = (grey * _STEPS).round().long().sum(dim=(1, 2, 3), keepdim=True)
    return (whole.double() / (_STEPS * grey[0].numel())).to(grey.dtype)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp(0, 1)


def _turn(images: Tensor, turns: Tensor) -> Tensor:
    """The images with their hue turned."""
    red, green, blue = images.chunk(3, dim=1)
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - least
    over = chroma.clamp(min=torch.finfo(images.dtype).tiny)  # grey pixels: 0 / tiny = 0
    sextant = torch.where(
        value == red,
        (green - blue) / over,
        torch.where(value == green, (blue - red) / over + 2, (red - green) / over + 4),
    )
    # Each channel is the value less the chroma's share that its distance from the hue takes away.
    # Counted out on the device: numbers from the host would be waited for.
    phase = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    k = (phase + sextant + 6 * turns).remainder(6)
    return (value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)
