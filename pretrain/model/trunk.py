"""The trunk: ResNet-18/34/50 in plain torch, key names as torchvision's, strides removable.

HVC trains and tests on feature maps of stride 8: every convolution inside the named layers gets
stride 1 after construction, weights and padding unchanged. `TrunkModule` is what any other trunk owes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvc.pretrain.model.architecture import LAYERS, STRIDE_1_LAYERS, Architecture, Layer, Padding

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Residual blocks per layer."""


class TrunkModule(nn.Module):
    """What a trunk is: maps [B, 3, H, W] normalised images to [B, width, ceil(H/8), ceil(W/8)].

    Any module with a `width` that does so is one, inherited from here or not. It may also have
    `tracking_features(images)`, same strides and any number of channels: what evaluation compares
    where that is not the output.
    """

    width: int
    """Channels of the output."""


def tracking_features(trunk: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, C, ceil(H/8), ceil(W/8)]: the features that label propagation compares."""
    own = getattr(trunk, "tracking_features", None)
    features: Tensor = trunk(images) if own is None else own(images)
    return features


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(width_in, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that closes the residual branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50); the 3x3 carries the stride."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(width_in, 4 * width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that closes the residual branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


def _shortcut(width_in: int, width_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and width_in == width_out:
        return None
    conv = nn.Conv2d(width_in, width_out, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out))


class Trunk(TrunkModule):
    """ResNet without pooling and classifier.

    Args:
        architecture: resnet18, resnet34 or resnet50.
        stride_1_layers: layers whose convolutions all get stride 1.
        last: the last layer that is built and computed; later layers have no weights at all.
        padding: how convolutions fill the border; `reflect` in trunks trained by CRW.
    """

    def __init__(
        self,
        architecture: Architecture = "resnet18",
        stride_1_layers: Sequence[Layer] = STRIDE_1_LAYERS,
        last: Layer = "layer4",
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        self.architecture, self.last = architecture, last
        self.stride_1_layers = tuple(stride_1_layers)
        block: type[BasicBlock] | type[Bottleneck]
        block = Bottleneck if architecture == "resnet50" else BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        width_in = 64
        for number, name in enumerate(LAYERS[: LAYERS.index(last) + 1]):
            width, stride = 64 << number, 1 if number == 0 else 2
            blocks = [block(width_in, width, stride)]
            width_in = width * block.expansion
            blocks += [block(width_in, width, 1) for _ in range(BLOCKS[architecture][number] - 1)]
            self.add_module(name, nn.Sequential(*blocks))
        self.width = width_in
        for name in self.stride_1_layers:
            if name in self._modules:
                _remove_strides(self.get_submodule(name))
        if padding != "zeros":
            _set_padding(self, padding)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised images -> [B, width, ceil(H/8), ceil(W/8)] (with HVC's strides)."""
        return self._up_to(self.last, images)

    def tracking_features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> layer3, as official: layer4 belongs to training only."""
        return self._up_to(min(self.last, "layer3"), images)

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 64, ceil(H/4), ceil(W/4)]: what comes before the residual blocks."""
        return self.after_conv1(self.conv1(images))

    def after_conv1(self, x: Tensor) -> Tensor:
        """The rest of the stem, which has the largest maps and little to compute."""
        pooled: Tensor = self.maxpool(self.relu(self.bn1(x)))
        return pooled

    def _up_to(self, last: Layer, images: Tensor) -> Tensor:
        x = self.stem(images)
        for name in LAYERS[: LAYERS.index(last) + 1]:
            x = self.get_submodule(name)(x)
        return x


def _remove_strides(layer: nn.Module) -> None:
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _set_padding(trunk: nn.Module, padding: Padding) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = padding


@torch.no_grad()
def initialise(trunk: nn.Module) -> None:
    """The official initialisation of a ResNet trunk, whatever it held before.

    Convolutions: normal, mean 0, variance 2 / (kernel area x output channels) (He, by fan-out). Norms:
    weight 1, bias 0; but the norm that closes each residual branch starts at weight 0, so that every
    block begins as its shortcut.
    """
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            module.weight.normal_(0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for module in trunk.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            module.last_norm.weight.zero_()
