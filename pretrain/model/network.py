"""The two networks of HVC and one forward pass of training."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hvc.pretrain.model.architecture import Architecture
from hvc.pretrain.model.heads import WIDTH, DynamicHead, SpaceHead
from hvc.pretrain.model.loss import EPS, PairTerms, hybrid_loss, pair_terms
from hvc.pretrain.model.pairs import Pairs
from hvc.pretrain.model.trunk_factory import build_trunk

Precision = Callable[[], AbstractContextManager[Any]]
"""Makes the context that a network computes in: none, or autocast."""


class StepLoss(NamedTuple):
    """What one forward pass gives; scalars."""

    total: Tensor  # loss, in [-8, 8] for equal weights
    static: Tensor  # mean static agreement of both directions, in [-1, 1]
    dynamic: Tensor  # mean dynamic agreement of both directions, in [-1, 1]
    positives: Tensor  # mean number of positive pairs per sample and direction
    without_pairs: Tensor  # share of samples that have none, in [0, 1]
    spread: Tensor  # of the online embeddings, in [0, 1]; 0 where all are one: a collapse


class OnlineNetwork(nn.Module):
    """Everything that is trained: trunk, projector, predictor and dynamic head.

    Args:
        architecture: of the trunk.
        static_weight, dynamic_weight: of the two terms.
        precision: of all convolutions; lengths, products and sums are fp32 at least.
    """

    def __init__(
        self,
        architecture: Architecture = "resnet18",
        static_weight: float = 1.0,
        dynamic_weight: float = 1.0,
        precision: Precision = nullcontext,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.static_weight, self.dynamic_weight = static_weight, dynamic_weight
        self.online_encoder = build_trunk(architecture)
        self.online_space_projector = SpaceHead(self.online_encoder.width)
        self.space_predictor = SpaceHead(WIDTH)
        self.flow = DynamicHead()

    def embed(self, view: Tensor) -> Tensor:
        """[B, 3, H, W] -> predicted embedding [B, 256, h, w] of unit length over channels."""
        with self.precision():
            predicted = self.space_predictor(self.online_space_projector(self.online_encoder(view)))
        return unit_length(predicted)

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
        with self.precision():
            forward, backward = self.flow(query, key), self.flow(key, query)
        return pair_terms(query, key, pairs, forward, backward)

    @torch.no_grad()
    def dummy_forward(self, size: int) -> None:
        """One black image of `size` pixels through the trunk in training mode (see the recipe's switch)."""
        like = next(self.parameters())
        self.online_encoder(torch.zeros(1, 3, size, size, dtype=like.dtype, device=like.device))

    def ema_source(self) -> list[Tensor]:
        """The parameters the target follows, in the target's order."""
        return [*self.online_encoder.parameters(), *self.online_space_projector.parameters()]


def unit_length(embedding: Tensor) -> Tensor:
    """[B, C, h, w] brought to length 1 over C, in fp32 at least: half precision would lose angles."""
    unit: Tensor = _UnitLength.apply(embedding)  # type: ignore[no-untyped-call]
    return unit


class _UnitLength(torch.autograd.Function):
    """As `torch.nn.functional.normalize`, but keeps the result, as the loss does, and lengths alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype)
        unit = x / length.clamp(min=EPS)
        ctx.save_for_backward(unit, length)
        ctx.dtype = x.dtype
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True) * (length >= EPS)
        found: Tensor = torch.addcmul(gradient, along, unit, value=-1).div_(length.clamp(min=EPS))
        return found.to(ctx.dtype)


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
        self.precision = online.precision
        self.target_encoder = deepcopy(online.online_encoder)
        self.target_space_projector = deepcopy(online.online_space_projector)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """[B, 3, H, W] -> embedding [B, 256, h, w] of unit length over channels, no gradient."""
        with self.precision():
            projected = self.target_space_projector(self.target_encoder(view))
        return unit_length(projected)
