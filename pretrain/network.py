"""The two networks of HVC and one forward pass of training."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvc.pretrain.architecture import Architecture
from hvc.pretrain.heads import WIDTH, DynamicHead, SpaceHead
from hvc.pretrain.loss import PairTerms, hybrid_loss, pair_terms
from hvc.pretrain.pairs import Pairs
from hvc.pretrain.trunk import Trunk, initialise


class StepLoss(NamedTuple):
    """What one forward pass gives; scalars."""

    total: Tensor  # loss, in [-8, 8] for equal weights
    static: Tensor  # mean static agreement of both directions, in [-1, 1]
    dynamic: Tensor  # mean dynamic agreement of both directions, in [-1, 1]
    positives: Tensor  # mean number of positive pairs per sample and direction
    without_pairs: Tensor  # share of samples that have none, in [0, 1]
    spread: Tensor  # of the online embeddings, in [0, 1]; 0 where all are one: a collapse


class OnlineNetwork(nn.Module):
    """Everything that is trained: trunk, projector, predictor and dynamic head."""

    def __init__(
        self,
        architecture: Architecture = "resnet18",
        static_weight: float = 1.0,
        dynamic_weight: float = 1.0,
    ) -> None:
        super().__init__()
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

    def forward(self, views: list[Tensor], pairs: Pairs, keys: list[Tensor]) -> StepLoss:
        """The hybrid loss of both directions.

        Args:
            views: the two views, each [B, 3, H, W], normalised.
            pairs: positive pairs of positions in maps of h x w, from view 1 to view 2.
            keys: the target's embeddings of the same views, each [B, 256, h, w].
        """
        queries = [self.embed(view) for view in views]
        first = self._terms(queries[0], keys[1], pairs)
        second = self._terms(queries[1], keys[0], pairs.swapped())
        weights = (self.static_weight, self.dynamic_weight)
        return StepLoss(
            total=hybrid_loss(first, *weights) + hybrid_loss(second, *weights),
            static=(first.static.mean() + second.static.mean()).detach() / 2,
            dynamic=(first.dynamic.mean() + second.dynamic.mean()).detach() / 2,
            positives=pairs.counts.mean(),
            without_pairs=(pairs.counts == 0).float().mean(),
            spread=(spread(queries[0]) + spread(queries[1])) / 2,
        )

    def _terms(self, query: Tensor, key: Tensor, pairs: Pairs) -> PairTerms:
        # The dynamic head sees every position: its BatchNorm needs them all.
        return pair_terms(query, key, pairs, self.flow(query, key), self.flow(key, query))

    def ema_source(self) -> list[Tensor]:
        """The parameters the target follows, in the target's order."""
        return [*self.online_encoder.parameters(), *self.online_space_projector.parameters()]


@torch.no_grad()
def spread(embedding: Tensor) -> Tensor:
    """1 - |mean of all vectors|^2 of [B, C, h, w] vectors of unit length over C, a scalar in [0, 1].

    Their variance: 0 where all are equal, near 1 where they point everywhere.
    """
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    return (1 - embedding.mean((0, 2, 3), dtype=dtype).square().sum()).clamp(min=0)


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
