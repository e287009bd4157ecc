"""One label-propagation call: a frame's masks from the masks of frames before it.

Every position of the query frame is compared (dot product of features) with all positions of the
reference frame and with the positions of the context frames inside a disc. The top k of all these
together vote with their soft masks, weighted by a softmax of affinity / temperature.

The discs allow about 7 % of all pairs at 480p; no matrix over all pairs ever exists. On a CPU a compiled
kernel visits the discs, elsewhere tiles of queries are multiplied with the blocks that hold their discs.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvc.evaluation.propagation.context import half_widths
from hvc.evaluation.propagation.kernel import BLOCK, TILE, search, vote
from hvc.evaluation.propagation.memory import Frame, Memory
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.tiles import propagate_tiles

Counts = Mapping[int, int]
"""Slot of a remembered frame -> how often it counts, the newest frame first."""


def propagate_masks(
    query: Tensor, references: Sequence[Frame], memory: Memory, counts: Sequence[Counts], protocol: Protocol
) -> Tensor:
    """Predict the soft masks of a frame from each reference and its context.

    Args:
        query: features [h, w, C] of the frame to label, normalised to length 1 over C.
        references: frames with given masks; by default compared without restriction.
        memory: the frames that contexts are made of.
        counts: each reference's context.
        protocol: radius, top k, temperature.

    Returns:
        Masks [R, h, w, M] per reference; over M they sum to about 1 where those of the frames do.
    """
    if query.device.type == "cpu" and query.dtype != torch.float16 and query.shape[1] >= BLOCK:
        return _compiled(query, references, memory, counts, protocol)
    return propagate_tiles(query, references, memory, counts, protocol)


@dataclass(frozen=True)
class _Keys:
    """Frames that a query is compared with, as `kernel.search` takes them."""

    frames: NDArray[np.floating]  # [N, h, w, C]
    order: NDArray[np.int64]
    copies: NDArray[np.int64]  # [R, N]
    disc: NDArray[np.int64]
    first: int


def _compiled(
    query: Tensor, references: Sequence[Frame], memory: Memory, counts: Sequence[Counts], protocol: Protocol
) -> Tensor:
    height, width, _ = query.shape
    disc, whole = (np.array(half_widths(r, height, width), np.int64) for r in (protocol.radius, None))
    around = disc if protocol.reference_window else whole
    given = [_reference_keys(frame, memory, around) for frame in references]
    if not protocol.top_k_per_frame:
        keys = [_context_keys(memory, counts, disc)]
        keys += [
            replace(one, copies=np.eye(len(given), dtype=np.int64)[:, [r]]) for r, one in enumerate(given)
        ]
        return _votes(query, keys, references, memory, protocol)
    masks = torch.zeros_like(torch.stack([frame.masks for frame in references]))
    for r, (reference, slots) in enumerate(zip(references, counts, strict=True)):
        parts = [(given[r], 1)]
        parts += [(_context_keys(memory, [{slot: 1}], disc), times) for slot, times in slots.items()]
        for keys_of_one, times in parts:
            share = times / (1 + sum(slots.values()))
            masks[r] += share * _votes(query, [keys_of_one], [reference], memory, protocol)[0]
    return masks


def _context_keys(memory: Memory, counts: Sequence[Counts], disc: NDArray[np.int64]) -> _Keys:
    frames = memory.features.numpy()
    copies = np.zeros((len(counts), len(frames)), np.int64)
    for row, slots in zip(copies, counts, strict=True):
        row[list(slots)] = list(slots.values())
    order = list(dict.fromkeys(slot for slots in counts for slot in slots))
    return _Keys(frames, np.array(order, np.int64), copies, disc, 0)


def _reference_keys(frame: Frame, memory: Memory, disc: NDArray[np.int64]) -> _Keys:
    """The reference's positions are numbered after those of the memory."""
    one = np.ones((1, 1), np.int64)
    first = memory.masks[..., 0].numel()
    return _Keys(frame.features[None].contiguous().numpy(), np.zeros(1, np.int64), one, disc, first)


def _votes(
    query: Tensor, keys: Sequence[_Keys], references: Sequence[Frame], memory: Memory, protocol: Protocol
) -> Tensor:
    """The nearest of all keys, and their vote: [R, h, w, M]."""
    height, width, _ = query.shape
    vectors = query.contiguous().numpy()
    best = np.full((len(references), height * width, protocol.top_k), -np.inf, vectors.dtype)
    where = np.zeros(best.shape, np.int64)

    def tile(corner: tuple[int, int]) -> None:
        for part in keys:
            search(
                vectors,
                part.frames,
                part.order,
                part.copies,
                part.disc,
                part.first,
                *corner,
                best,
                where,
            )

    _share(tile, list(product(range(0, height, TILE), range(0, width, TILE))))
    masks = torch.stack([frame.masks for frame in references])
    for r, frame in enumerate(references):
        vote(
            best[r],
            where[r],
            memory.masks.flatten(0, 2).numpy(),
            frame.masks.contiguous().flatten(0, 1).numpy(),
            protocol.temperature,
            masks[r].flatten(0, 1).numpy(),
        )
    return masks


def _share(work: Callable[[tuple[int, int]], None], corners: Sequence[tuple[int, int]]) -> None:
    """Over as many threads as torch uses; kernels let go of the interpreter.

    Threads of our own: numba's die with a process that forks, and may not be used from two threads.
    """
    threads = min(torch.get_num_threads(), len(corners))
    if threads == 1:
        for corner in corners:
            work(corner)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, corners))
