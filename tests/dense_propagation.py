"""Label propagation as the official code writes it: every query against every key of every frame."""

from dataclasses import replace

import torch
from torch import Tensor

FORBIDDEN = -1e10
"""Added to affinities outside the disc, before the division by the temperature."""


def dense(query, reference, context, protocol, chunk=100) -> Tensor:
    """Soft masks [h, w, M] of one frame, in chunks of queries.

    Args:
        query: [h, w, C].
        reference: features [h, w, C] and masks [h, w, M].
        context: frames as `reference` and how often each counts; they are written out.
        protocol: radius, top k, temperature.
        chunk: queries at a time; of no effect on the values.
    """
    frames = [reference] + [frame for frame, copies in context for _ in range(copies)]
    masks = torch.stack([frame.masks for frame in frames]).flatten(1, 2)
    result = []
    for affinity in _affinities(query, frames, protocol, chunk):
        votes = [_vote(affinity[part], masks[part], protocol) for part in _parts(len(frames), protocol)]
        result.append(torch.stack(votes).mean(0))
    return torch.cat(result).view(*query.shape[:2], -1)


def tied(query, reference, context, protocol, within=1e-6, chunk=100) -> Tensor:
    """Bool [h, w]: which of several unlike positions come among the k best is a matter of rounding."""
    query, reference = query.double(), _doubled(reference)
    context = [(_doubled(frame), copies) for frame, copies in context]
    frames = [reference] + [frame for frame, copies in context for _ in range(copies)]
    result = []
    for affinity in _affinities(query, frames, protocol, chunk):
        flat = [affinity[part].flatten(0, 1) for part in _parts(len(frames), protocol)]
        result.append(torch.stack([_tied(part, protocol.top_k, within) for part in flat]).any(0))
    return torch.cat(result).view(query.shape[:2])


def _doubled(frame):
    return replace(frame, features=frame.features.double())


def _affinities(query, frames, protocol, chunk):
    """[N, hw, chunk] each, -1e10 and less outside the disc."""
    keys = torch.stack([frame.features for frame in frames]).flatten(1, 2)  # [N, hw, C]
    far = outside(*query.shape[:2], protocol.radius).to(query)
    for queries, mask in zip(query.flatten(0, 1).split(chunk), far.split(chunk), strict=True):
        affinity = torch.einsum("nkc,qc->nkq", keys, queries)
        affinity[0 if protocol.reference_window else 1 :] += mask.T
        yield affinity


def _parts(frames, protocol):
    return [slice(n, n + 1) for n in range(frames)] if protocol.top_k_per_frame else [slice(None)]


def _tied(flat, top_k, within):
    """[K, Q] -> [Q]."""
    best = flat.T.contiguous().topk(min(top_k + 64, len(flat))).values
    last = best[:, min(top_k, len(flat)) - 1, None]
    band = best.where((best - last).abs() < within, last)
    spread = band.amax(1) - band.amin(1)
    return ((best > last - within).sum(1) > top_k) & (spread > 1e-12) & (last[:, 0] > FORBIDDEN / 2)


def outside(height: int, width: int, radius: float | None) -> Tensor:
    """[hw, hw]: 0 where the distance of two positions is below the radius, else -1e10."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns], -1).flatten(0, 1).double()
    distance = (places[:, None] - places).square().sum(-1).sqrt()
    far = distance >= radius if radius is not None else torch.zeros_like(distance, dtype=torch.bool)
    return FORBIDDEN * far


def _vote(affinity, masks, protocol):
    """[N, K, Q] and [N, K, M] -> [Q, M]."""
    flat = affinity.flatten(0, 1) / protocol.temperature
    best, index = flat.topk(min(protocol.top_k, len(flat)), dim=0)
    return torch.einsum("kq,kqm->qm", best.softmax(0), masks.flatten(0, 1)[index])
