"""Shared memory that a loader process uses again and again.

New shared pages cost more than the pixels that are copied into them (each must be found, cleared and
mapped). So a loader process keeps a few buffers, and the training process says when it has taken
the content out of one. It may also forget to: then new memory is used, as without slots.
"""

import torch
from torch import Tensor

_SPARE = 1.25
"""Buffers are made this much larger than asked, so that the next batch fits, too."""


class Slots:
    """At most `count` reusable buffers in memory that may be sent to other processes."""

    def __init__(self, count: int = 8) -> None:
        self._count = count
        self._slots: list[tuple[Tensor, Tensor]] = []

    def take(self, length: int) -> tuple[Tensor, Tensor]:
        """A free buffer uint8 [at least `length`] and its lease; the content is undefined.

        The lease, int64 [1] in shared memory, is 1 until whoever got the buffer sets it to 0.
        """
        free = [slot for slot in self._slots if not slot[1].item()]
        largest = max(free, key=lambda slot: len(slot[0]), default=None)
        if largest and len(largest[0]) >= length:
            largest[1].fill_(1)
            return largest
        made = _shared(torch.empty(int(length * _SPARE), dtype=torch.uint8)), _shared(torch.ones(1).long())
        if len(self._slots) >= self._count:
            # Nobody loses what they hold: memory lives as long as any process refers to it.
            discarded = (free or self._slots)[0]  # those that are free are too small
            self._slots = [slot for slot in self._slots if slot is not discarded]
        self._slots.append(made)
        return made


def _shared(tensor: Tensor) -> Tensor:
    return tensor.share_memory_()  # type: ignore[no-untyped-call]
