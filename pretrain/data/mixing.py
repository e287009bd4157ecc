"""How an epoch is shuffled, so that it mixes well and is still read in few large pieces.

The selected samples are cut into *blocks*, runs inside one shard, and the blocks are permuted. This base
order is cut into *streams*, and every batch takes the same few columns from each stream. Inside a stream
samples are mixed in *windows* of a few blocks. A part of the columns thus touches few streams, and of
these only the blocks of the present window. Windows are made when they are needed: starting at a step in
the middle costs nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.pretrain.data.permutation import Purpose, interleaved, permutation, raw_bits

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Shuffle:
    """How an epoch is mixed; the defaults are chosen by `shuffle_quality.py`."""

    block: int = 16
    """Samples that lie together in a shard and are read together."""
    window: int = 4
    """Blocks of a stream that are mixed with each other."""
    streams: int = 256
    """Places of the dataset that a batch is taken from, at most one per sample of a batch."""


class _Window(NamedTuple):
    start: int  # position in the base order
    stop: int
    entries: Ids


class Streams:
    """The shuffled entries 0 .. n-1 of an epoch, cut into batches.

    Args:
        edges: int64, ascending from 0 to n: where shards end. No block crosses an edge.
        batch_size: samples of a full batch; the last batch has the n % batch_size that remain.
        shuffle: how to mix.
        seed: of the run.
        epoch: number of the epoch.
    """

    def __init__(self, edges: Ids, batch_size: int, shuffle: Shuffle, seed: int, epoch: int) -> None:
        count = int(edges[-1])
        self._key, self._window = (seed, epoch), shuffle.window
        streams = min(shuffle.streams, batch_size)
        # A dataset too small for full blocks in every stream's window is cut finer, down to single samples.
        size = max(1, min(shuffle.block, count // (streams * shuffle.window)))
        self._first = block_starts(edges, size)
        self._order = permutation(len(self._first), Purpose.BLOCKS, seed, epoch)
        lengths = np.diff(self._first, append=count)
        self._begin = np.concatenate([[0], np.cumsum(lengths[self._order])])
        # columns[c] .. columns[c+1] of a full batch belong to stream c, tail[c] .. of the last short one
        self._full_steps, rest = divmod(count, batch_size)
        self._columns, self._tail = _cuts(batch_size, streams), _cuts(rest, streams)
        bounds = np.asarray(self._columns) * self._full_steps + np.asarray(self._tail)
        self._bounds: list[int] = bounds.tolist()
        self._head: list[int] = (np.searchsorted(self._begin, bounds, side="right") - 1).tolist()
        self._open: dict[int, _Window] = {}
        # Steps that a window is spread over; one more as it begins in the middle of a batch.
        self.horizon = -(-shuffle.window * size // (batch_size // streams)) + 1

    def part(self, step: int, start: int, stop: int) -> Ids:
        """Entries of columns start .. stop-1 of a step."""
        full = step < self._full_steps
        columns = self._columns if full else self._tail
        pieces: list[Ids] = []
        stream = int(np.searchsorted(columns, start, side="right")) - 1
        while start < stop:
            end = min(stop, columns[stream + 1])
            if start < end:
                done = step * (self._columns[stream + 1] - self._columns[stream])
                shift = self._bounds[stream] + done - columns[stream]
                self._take(stream, start + shift, end + shift, pieces)
            start, stream = end, stream + 1
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def blocks_of(self, entries: Ids) -> Ids:
        """Number of the block that each entry lies in."""
        return np.searchsorted(self._first, entries, side="right") - 1

    def _take(self, stream: int, start: int, stop: int, pieces: list[Ids]) -> None:
        """Entries at positions start .. stop-1 of the base order after mixing, appended to `pieces`."""
        while start < stop:
            window = self._open.get(stream)
            if window is None or not window.start <= start < window.stop:
                window = self._open[stream] = self._mix(stream, start)
            end = min(stop, window.stop)
            pieces.append(window.entries[start - window.start : end - window.start])
            start = end

    def _mix(self, stream: int, position: int) -> _Window:
        """The window of a stream that holds a position of the base order.

        Streams change windows in turns (the first window of some is shorter), so that reading is even.
        """
        head = self._head[stream] - stream % self._window
        block = int(np.searchsorted(self._begin, position, side="right")) - 1
        number = (block - head) // self._window
        low = max(head + number * self._window, 0)
        high = min(head + (number + 1) * self._window, len(self._order))
        start = max(int(self._begin[low]), self._bounds[stream])
        stop = min(int(self._begin[high]), self._bounds[stream + 1])
        places = np.arange(start, stop)
        blocks = low + np.searchsorted(self._begin[low + 1 : high], places, side="right")
        entries = self._first[self._order[blocks]] + places - self._begin[blocks]
        bits = raw_bits(2 * len(places), Purpose.WINDOW, *self._key, stream, number)
        return _Window(start, stop, entries[interleaved(blocks, bits)])


def block_starts(edges: Ids, size: int) -> Ids:
    """First entries of runs of at most `size` that cross no edge; edges ascend from 0."""
    lengths = np.diff(edges)
    counts = -(-lengths // size)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(edges[:-1], counts) + number * size


def _cuts(count: int, parts: int) -> list[int]:
    share, rest = divmod(count, parts)
    return [part * share + min(part, rest) for part in range(parts + 1)]
