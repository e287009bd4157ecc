"""The hybrid loss: embeddings and pseudo-motion vectors agree where two views overlap."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from hvc.pretrain.pairs import Pairs


class PairTerms(NamedTuple):
    """Mean agreement over each sample's positive pairs, in [-1, 1]; 0 where a sample has none."""

    static: Tensor  # [B]
    dynamic: Tensor  # [B]


def pair_terms(query: Tensor, key: Tensor, pairs: Pairs, forward: Tensor, backward: Tensor) -> PairTerms:
    """Static and dynamic agreement of one direction, from its positive pairs alone.

    Args:
        query, key: [B, C, h, w] embeddings of unit length over C; `key` carries no gradient.
        pairs: the positive pairs (query position, key position), on the same device.
        forward, backward: [B, 2, h, w] vectors of the dynamic head for (query, key) and (key, query), of
            any length: they are brought to unit length here.
    """
    sample, i, j = pairs.index
    q, k = (x.flatten(2)[sample, :, at] for x, at in ((query, i), (key, j)))
    f, b = (F.normalize(x.flatten(2)[sample, :, at], dim=1) for x, at in ((forward, i), (backward, j)))

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(len(pairs.counts)).index_add(0, sample, values) / (pairs.counts + 1e-6)

    return PairTerms(static=mean((q * k).sum(1)), dynamic=mean((f * b).sum(1)))


def hybrid_loss(terms: PairTerms, static_weight: float = 1.0, dynamic_weight: float = 1.0) -> Tensor:
    """One direction's loss: -2 times the weighted mean agreement over all samples, in [-4, 4].

    Samples without positives count as 0 in the mean, as in the official code.
    """
    return -2 * (static_weight * terms.static.mean() + dynamic_weight * terms.dynamic.mean())
