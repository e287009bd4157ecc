"""The hybrid loss: embeddings and pseudo-motion vectors agree where two views overlap."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

Flow = Callable[[Tensor, Tensor], Tensor]
"""The dynamic head: two [B, C, h, w] embeddings -> [B, 2, h, w]."""


class PairTerms(NamedTuple):
    """Mean agreement over each sample's positive pairs, in [-1, 1]; 0 where a sample has none."""

    static: Tensor  # [B]
    dynamic: Tensor  # [B]


def pair_terms(query: Tensor, key: Tensor, positives: Tensor, flow: Flow) -> PairTerms:
    """Static and dynamic agreement of one direction.

    Args:
        query, key: [B, C, h, w] embeddings of unit length over C; `key` carries no gradient.
        positives: [B, hw, hw] bool, True for positive pairs (query position, key position).
        flow: the dynamic head; it sees every position because its BatchNorm needs them all.
    """
    forward = F.normalize(flow(query, key), dim=1)
    backward = F.normalize(flow(key, query), dim=1)
    return PairTerms(
        static=_mean_over_positives(query, key, positives),
        dynamic=_mean_over_positives(forward, backward, positives),
    )


def _mean_over_positives(a: Tensor, b: Tensor, positives: Tensor) -> Tensor:
    products = a.flatten(2).transpose(1, 2) @ b.flatten(2)  # [B, hw, hw]
    mask = positives.float()  # counted in fp32 at every precision, as the official code does
    return (products * mask).sum((1, 2)) / (mask.sum((1, 2)) + 1e-6)


def hybrid_loss(terms: PairTerms, static_weight: float = 1.0, dynamic_weight: float = 1.0) -> Tensor:
    """One direction's loss: -2 times the weighted mean agreement over all samples, in [-4, 4].

    Samples without positives count as 0 in the mean, as in the official code.
    """
    return -2 * (static_weight * terms.static.mean() + dynamic_weight * terms.dynamic.mean())
