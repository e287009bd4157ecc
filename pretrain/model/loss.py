"""The hybrid loss: embeddings and pseudo-motion vectors agree where two views overlap."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hvc.base.errors import HvcError
from hvc.pretrain.model.pairs import Pairs

_CHUNK = 1 << 20
"""Numbers gathered from a map in one go, 4 MB in fp32: bounds memory however many pairs there are."""

EPS = 1e-12
"""Shorter vectors are not brought to unit length; as in `torch.nn.functional.normalize`."""


class PairTerms(NamedTuple):
    """Mean agreement over each sample's positive pairs, in [-1, 1]; 0 where a sample has none."""

    static: Tensor  # [B]
    dynamic: Tensor  # [B]


def pair_terms(query: Tensor, key: Tensor, pairs: Pairs, forward: Tensor, backward: Tensor) -> PairTerms:
    """Static and dynamic agreement of one direction (paper, hybrid loss), from its positive pairs alone.

    Exactly the terms and gradients that products of all positions under a mask would give; nothing of
    the size of a map is copied, in either memory format, and the device is never waited for. Half
    precision is computed in fp32. On a CPU the same inputs give the same bits.

    Args:
        query, key: [B, C, h, w] embeddings of unit length over C; `key` gets no gradient.
        pairs: the positive pairs (query position, key position), on the same device.
        forward, backward: [B, 2, h, w] vectors of the dynamic head for (query, key) and (key, query), of
            any length: they are brought to unit length here, at the pairs.
    """
    if pairs.size != tuple(query.shape[2:]):
        maps, sought = (" x ".join(map(str, size)) for size in (query.shape[2:], pairs.size))
        raise HvcError(
            f"the network's maps are {maps}, but pairs were sought in maps of {sought}; a trunk must have "
            "output stride 8"
        )
    inputs = (query, key, pairs.index, pairs.counts, forward, backward)
    return PairTerms(*_PairTerms.apply(*inputs))  # type: ignore[no-untyped-call]


class _PairTerms(torch.autograd.Function):
    """Keeps inputs only: what is gathered is cheaper to gather again than to hold."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        index: Tensor,
        counts: Tensor,
        forward: Tensor,
        backward: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(query, key, index, counts, forward, backward)
        # One sum may have a million terms, too many for fp32.
        static, dynamic = torch.zeros(2, len(counts), dtype=torch.float64, device=query.device)
        for sample, i, j in _chunks(index, query.shape[1]):
            products = (_take(query, sample, i) * _take(key, sample, j)).sum(1)
            static.index_add_(0, sample, products.double())
            ahead, back = _Unit(_take(forward, sample, i)), _Unit(_take(backward, sample, j))
            dynamic.index_add_(0, sample, (ahead.unit * back.unit).sum(1).double())
        divisor = _divisor(counts)
        return static.to(_precision(query)) / divisor, dynamic.to(_precision(forward)) / divisor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, static: Tensor, dynamic: Tensor) -> tuple[Tensor | None, ...]:
        query, key, index, counts, forward, backward = ctx.saved_tensors
        for_query, for_forward, for_backward = (_zeros(x) for x in (query, forward, backward))
        static, dynamic = static / _divisor(counts), dynamic / _divisor(counts)
        for sample, i, j in _chunks(index, query.shape[1]):
            weights = static.index_select(0, sample)[:, None]
            _add(for_query, sample, i, _take(key, sample, j) * weights)
            weights = dynamic.index_select(0, sample)[:, None]
            ahead, back = _Unit(_take(forward, sample, i)), _Unit(_take(backward, sample, j))
            _add(for_forward, sample, i, ahead.gradient(back.unit * weights))
            _add(for_backward, sample, j, back.gradient(ahead.unit * weights))
        return (
            for_query.to(query.dtype),
            None,
            None,
            None,
            for_forward.to(forward.dtype),
            for_backward.to(backward.dtype),
        )


def _divisor(counts: Tensor) -> Tensor:
    return counts + 1e-6  # in fp32 at every precision, as the official code does


def _precision(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _zeros(x: Tensor) -> Tensor:
    """Where gradients of a map add up, in the map's memory format: fp32 at least, or sums would stall."""
    in_lines = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if in_lines else torch.contiguous_format
    return torch.zeros_like(x, dtype=_precision(x), memory_format=layout)


class _Unit:
    """Vectors [P, n] brought to unit length, and what that does to gradients."""

    def __init__(self, vectors: Tensor) -> None:
        norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        self._long = norm >= EPS
        self._length = norm.clamp(min=EPS)
        self.unit = vectors / self._length

    def gradient(self, of_unit: Tensor) -> Tensor:
        """Gradient of the vectors from that of the unit vectors, [P, n]."""
        along = (of_unit * self.unit).sum(1, keepdim=True) * self._long
        return (of_unit - along * self.unit) / self._length


def _chunks(index: Tensor, channels: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Samples, query positions and key positions of some pairs at a time."""
    size = max(1, _CHUNK // channels)
    for start in range(0, index.shape[1], size):
        sample, i, j = index[:, start : start + size]
        yield sample, i, j


def _take(x: Tensor, sample: Tensor, position: Tensor) -> Tensor:
    """The vectors [P, C] at positions of a map [B, C, h, w], in fp32 at least."""
    lines, step = _lines(x)
    line = sample * step + position
    if lines.stride(1) == 1:
        taken = lines.index_select(0, line)
    else:  # a plane for each channel: one after the other, for the cache's sake
        taken = lines.T.gather(1, line.expand(lines.shape[1], -1)).T
    return taken.to(_precision(x))


def _add(x: Tensor, sample: Tensor, position: Tensor, vectors: Tensor) -> None:
    """Add vectors [P, C] at positions of a map [B, C, h, w]; positions may repeat."""
    lines, step = _lines(x)
    line, vectors = sample * step + position, vectors.to(x.dtype)
    if lines.stride(1) == 1:
        lines.index_add_(0, line, vectors)
    else:
        lines.T.scatter_add_(1, line.expand(lines.shape[1], -1), vectors.T)


def _lines(x: Tensor) -> tuple[Tensor, int]:
    """A map's memory as lines [L, C], one for each position, and the lines from sample to sample.

    The vector at a position of a sample is line `sample * step + position`; no other line is meant to be
    read or written (of planes, lines between samples mix their channels). Maps whose positions do not
    follow each other evenly in memory are copied; no network makes such.
    """
    samples, channels, height, width = x.shape
    between = x.stride(3) if width > 1 else x.stride(2) if height > 1 else 1
    even = height == 1 or width == 1 or x.stride(2) == width * between
    step, rest = divmod(x.stride(0), between) if between > 0 else (0, 1)
    if not even or (rest and samples > 1):
        return _lines(x.contiguous())
    count = (samples - 1) * step + height * width if x.numel() else 0
    return x.as_strided((count, channels), (between, x.stride(1) if channels > 1 else 1)), step


def hybrid_loss(terms: PairTerms, static_weight: float = 1.0, dynamic_weight: float = 1.0) -> Tensor:
    """One direction's loss: -2 times the weighted mean agreement over all samples, in [-4, 4].

    Samples without positives count as 0 in the mean, as in the official code.
    """
    return -2 * (static_weight * terms.static.mean() + dynamic_weight * terms.dynamic.mean())
