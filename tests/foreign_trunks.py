"""Trunks that are not ours, good and bad; recipes and weights files name them by import path."""

import torch
from torch import Tensor, nn


class Patches(nn.Module):
    """One convolution of stride 8, and a layer to track with that is not the output."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(3, 12, 9, 8, padding=4)
        self.norm = nn.BatchNorm2d(12)
        self.top = nn.Conv2d(12, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.top(self.tracking_features(images))

    def tracking_features(self, images: Tensor) -> Tensor:
        return torch.relu(self.norm(self.stem(images)))


class Plain(nn.Module):
    """Tracks with its output."""

    width = 5

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 9, stride, padding=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def frozen_stem() -> nn.Module:
    """Its first layer is not trained."""
    module = Patches()
    module.stem.requires_grad_(False)
    return module


def weighed() -> nn.Module:
    """Made by looking at its numbers."""
    module = Plain()
    with torch.no_grad():
        module.conv.weight.div_(module.conv.weight.norm().item())
        module.conv.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    return module


class Looking(Plain):
    """Looks at its numbers whenever it runs."""

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) * float(self.conv.weight.detach().norm())


def stride_16() -> nn.Module:
    return Plain(16)


def floors() -> nn.Module:
    """Right for multiples of 8, wrong for all other sides."""
    module = Plain()
    module.conv.padding = (1, 1)
    return module


def no_width() -> nn.Module:
    return nn.Conv2d(3, 5, 9, 8, padding=4)


def wrong_width() -> nn.Module:
    module = Plain()
    module.width = 6
    return module


def coarse_tracking() -> nn.Module:
    module = Plain()
    module.tracking_features = lambda images: images[..., ::16, ::16]  # type: ignore[assignment]
    return module


def pair() -> nn.Module:
    module = Plain()
    module.forward = lambda images: (images, images)  # type: ignore[assignment,method-assign]
    return module


def no_module() -> dict[str, int]:
    return {}


def fails() -> nn.Module:
    raise RuntimeError("no weights here")


def only_large() -> nn.Module:
    module = Plain()
    module.conv.padding = (0, 0)
    module.conv.kernel_size = (9, 9)
    module.conv.dilation = (9, 9)
    return module
