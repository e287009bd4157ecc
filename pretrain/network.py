"""The two networks of HVC and one forward pass of training."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvc.pretrain.architecture import Architecture
from hvc.pretrain.heads import WIDTH, DynamicHead, SpaceHead
from hvc.pretrain.loss import PairTerms, hybrid_loss, pair_terms
from hvc.pretrain.positives import RADIUS, positive_mask
from hvc.pretrain.trunk import Trunk, initialise


class StepLoss(NamedTuple):
    """What one forward pass gives; scalars."""

    total: Tensor  # loss, in [-8, 8] for equal weights
    static: Tensor  # mean static agreement of both directions, in [-1, 1]
    dynamic: Tensor  # mean dynamic agreement of both directions, in [-1, 1]
    positives: Tensor  # mean number of positive pairs per sample and direction


class OnlineNetwork(nn.Module):
    """Everything that is trained: trunk, projector, predictor and dynamic head."""

    def __init__(
        self,
        architecture: Architecture = "resnet18",
        radius: float = RADIUS,
        static_weight: float = 1.0,
        dynamic_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.static_weight, self.dynamic_weight = static_weight, dynamic_weight
        self.online_encoder = Trunk(architecture)
        initialise(self.online_encoder)
        self.online_space_projector = SpaceHead(self.online_encoder.width)
        self.space_predictor = SpaceHead(WIDTH)
        self.flow = DynamicHead()

    def embed(self, view: Tensor) -> Tensor:
        """[B, 3, H, W] -> predicted embedding [B, 256, h, w] of unit length over channels."""
        features = self.online_encoder(view)
        return F.normalize(self.space_predictor(self.online_space_projector(features)), dim=1)

    def forward(self, views: list[Tensor], boxes: list[Tensor], keys: list[Tensor]) -> StepLoss:
        """The hybrid loss of both directions.

        Args:
            views: the two views, each [B, 3, H, W], normalised.
            boxes: their crop boxes, each [B, 4] in [0, 1].
            keys: the target's embeddings of the same views, each [B, 256, h, w].
        """
        queries = [self.embed(view) for view in views]
        with torch.no_grad():
            height, width = keys[0].shape[-2:]
            positives = positive_mask(boxes[0], boxes[1], height, width, self.radius)
        first = pair_terms(queries[0], keys[1], positives, self.flow)
        second = pair_terms(queries[1], keys[0], positives.transpose(1, 2), self.flow)
        return self._summary(first, second, positives)

    def _summary(self, first: PairTerms, second: PairTerms, positives: Tensor) -> StepLoss:
        weights = (self.static_weight, self.dynamic_weight)
        return StepLoss(
            total=hybrid_loss(first, *weights) + hybrid_loss(second, *weights),
            static=(first.static.mean() + second.static.mean()).detach() / 2,
            dynamic=(first.dynamic.mean() + second.dynamic.mean()).detach() / 2,
            positives=positives.sum((1, 2)).float().mean(),
        )

    def ema_source(self) -> list[Tensor]:
        """The parameters the target follows, in the target's order."""
        return [*self.online_encoder.parameters(), *self.online_space_projector.parameters()]


class TargetNetwork(nn.Module):
    """The EMA side: trunk and projector, starting as a copy of the online ones."""

    def __init__(self, online: OnlineNetwork) -> None:
        super().__init__()
        self.target_encoder = Trunk(online.online_encoder.architecture)
        self.target_space_projector = SpaceHead(online.online_encoder.width)
        for own, source in zip(self.parameters(), online.ema_source(), strict=True):
            own.data.copy_(source.data)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """[B, 3, H, W] -> embedding [B, 256, h, w] of unit length over channels, no gradient."""
        return F.normalize(self.target_space_projector(self.target_encoder(view)), dim=1)
