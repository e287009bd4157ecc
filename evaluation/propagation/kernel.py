"""The search for nearest neighbours on a CPU: compiled, over the positions inside the discs alone.

Products are taken of 4 queries along a row with 4 keys along a row, so that each number that is loaded
serves four times; all 16 sums run over the channels in vector registers. A key row inside the disc is a
span, so nothing is computed outside but what fills the last block. Queries are taken in tiles of
16 x 16: the keys of a tile's discs in one frame fit a core's cache, and each tile goes through the frames
on its own. No matrix of affinities exists; each query keeps its k best so far.
"""

import numpy as np
from numpy.typing import NDArray

from hvc.evaluation.propagation.compiled import compiled

BLOCK = 4
"""Queries and keys that are multiplied at a time; a feature map must be at least so wide."""
TILE = 16

Reals = NDArray[np.floating]
Integers = NDArray[np.int64]


@compiled(relaxed=True)
def _products(queries: Reals, keys: Reals, out: Reals) -> None:
    """out[i, j] = queries[i] . keys[j] for 4 queries [4, C] and at least 4 keys [K, C]."""
    count, channels = keys.shape
    for block in range(0, count, BLOCK):
        j = min(block, count - BLOCK)  # the last block may overlap the one before
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = queries.dtype.type(0)
        s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = queries.dtype.type(0)
        for c in range(channels):
            q0, q1, q2, q3 = queries[0, c], queries[1, c], queries[2, c], queries[3, c]
            k0, k1, k2, k3 = keys[j, c], keys[j + 1, c], keys[j + 2, c], keys[j + 3, c]
            s00 += q0 * k0
            s01 += q0 * k1
            s02 += q0 * k2
            s03 += q0 * k3
            s10 += q1 * k0
            s11 += q1 * k1
            s12 += q1 * k2
            s13 += q1 * k3
            s20 += q2 * k0
            s21 += q2 * k1
            s22 += q2 * k2
            s23 += q2 * k3
            s30 += q3 * k0
            s31 += q3 * k1
            s32 += q3 * k2
            s33 += q3 * k3
        out[0, j], out[0, j + 1], out[0, j + 2], out[0, j + 3] = s00, s01, s02, s03
        out[1, j], out[1, j + 1], out[1, j + 2], out[1, j + 3] = s10, s11, s12, s13
        out[2, j], out[2, j + 1], out[2, j + 2], out[2, j + 3] = s20, s21, s22, s23
        out[3, j], out[3, j + 1], out[3, j + 2], out[3, j + 3] = s30, s31, s32, s33


@compiled()
def _keep(best: Reals, where: Integers, affinity: float, position: int, times: int) -> None:
    """Insert a position into one query's list [k], best first, up to so many times while it is better."""
    last = len(best) - 1
    for _ in range(times):
        if not affinity > best[last]:
            return
        place = last
        while place > 0 and best[place - 1] < affinity:
            best[place], where[place] = best[place - 1], where[place - 1]
            place -= 1
        best[place], where[place] = affinity, position


@compiled(relaxed=True)
def search(
    query: Reals,
    frames: Reals,
    order: Integers,
    copies: Integers,
    half: Integers,
    first: int,
    top: int,
    left: int,
    best: Reals,
    where: Integers,
) -> None:
    """Update the lists of one tile's queries with the positions of some frames.

    Args:
        query: features [h, w, C] of the frame to label, w >= 4.
        frames: features [N, h, w, C].
        order: frames to look at, in this order; the most similar ones first save most insertions.
        copies: [R, N] how often each frame counts for each of R references; 0: not at all.
        half: for each row distance (0, 1, ...) the largest column distance that is compared.
        first: number of position (0, 0) of frame 0; positions are numbered row by row, frame by frame.
        top, left: the tile's first row and column.
        best: [R, h * w, k] affinities, best first; -inf where nothing is known yet.
        where: [R, h * w, k] the positions' numbers.
    """
    height, width, _ = query.shape
    references, _, k = best.shape
    below, right = min(top + TILE, height), min(left + TILE, width)
    out = np.empty((BLOCK, width), query.dtype)
    for frame in order:
        for row in range(top, below):
            for key_row in range(max(row - len(half) + 1, 0), min(row + len(half), height)):
                reach = half[abs(key_row - row)]
                number = first + (frame * height + key_row) * width
                for block in range(left, right, BLOCK):
                    end = min(block + BLOCK, right)
                    queries = min(block, width - BLOCK)
                    stop = min(end + reach, width)
                    start = max(min(block - reach, stop - BLOCK), 0)
                    stop = max(stop, start + BLOCK)
                    _products(
                        query[row, queries : queries + BLOCK], frames[frame, key_row, start:stop], out
                    )
                    for column in range(block, end):
                        affinities = out[column - queries]
                        low = max(column - reach, 0) - start
                        high = min(column + reach + 1, width) - start
                        most = affinities[low]
                        for j in range(low + 1, high):
                            most = max(most, affinities[j])
                        place = row * width + column
                        for r in range(references):
                            times = copies[r, frame]
                            if times == 0 or not most > best[r, place, k - 1]:
                                continue
                            for j in range(low, high):
                                if affinities[j] > best[r, place, k - 1]:
                                    _keep(
                                        best[r, place],
                                        where[r, place],
                                        affinities[j],
                                        number + start + j,
                                        times,
                                    )


@compiled()
def vote(
    best: Reals, where: Integers, masks: Reals, reference: Reals, temperature: float, out: Reals
) -> None:
    """Weighted means of the masks at the positions found: softmax of affinity / temperature.

    Args:
        best: [Q, k] affinities, best first; -inf does not vote.
        where: [Q, k] numbers of positions: those of `masks`, then those of `reference`.
        masks: [P, M] masks of remembered frames.
        reference: [Q, M] masks of the reference frame.
        temperature: divides affinities.
        out: [Q, M], overwritten.
    """
    for q in range(len(best)):
        out[q] = 0
        total = 0.0
        for i in range(best.shape[1]):
            if best[q, i] == -np.inf:
                break
            weight = np.exp((best[q, i] - best[q, 0]) / temperature)
            total += weight
            position = where[q, i]
            row = masks[position] if position < len(masks) else reference[position - len(masks)]
            for m in range(len(row)):
                out[q, m] += weight * row[m]
        if total > 0:  # else: features that are not numbers
            for m in range(out.shape[1]):
                out[q, m] /= total
