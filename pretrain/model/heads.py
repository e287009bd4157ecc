"""The heads that only training has: projector, predictor and the pseudo-dynamic head."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 256
"""Channels of the embedding and of every hidden layer in the heads."""


class _Block(nn.Module):
    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, WIDTH, 1)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.bn2 = nn.BatchNorm2d(WIDTH)
        self.conv3 = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: BatchNorm keeps what went into it, so nothing else needs what came out.
        a = F.leaky_relu(self.bn1(self.conv1(x)), inplace=True)
        b = F.leaky_relu(self.bn2(self.conv2(a) + a), inplace=True)
        return self.conv3(b)


class SpaceHead(nn.Module):
    """Projector or predictor: three 1x1 convolutions, the second one residual.

    Maps [B, width_in, h, w] to [B, 256, h, w]; no norm after the last convolution.
    """

    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.block = _Block(width_in)  # a level of its own: names follow the official state dict

    def forward(self, x: Tensor) -> Tensor:
        """Apply the head at every position."""
        return self.block(x)


class DynamicHead(nn.Module):
    """Pseudo-motion from a pair of embeddings, one 2-vector per position.

    Ends in a BatchNorm over the two channels, so a vector depends on the statistics of all positions
    of the batch; it is normalised to unit length by the caller.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, 2, 1)
        self.bn2 = nn.BatchNorm2d(2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two [B, 256, h, w] embeddings -> [B, 2, h, w]."""
        x = torch.cat([first, second], dim=1)
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
