"""Batches on their way to the device: copied and cut beside the running step, split into parts."""

from typing import NamedTuple

import torch
from torch import Tensor

from hvc.pretrain.data.batch import Batch, Pair
from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.data.order import rank_slice
from hvc.pretrain.model.pairs import Pairs, find_pairs
from hvc.pretrain.recipe import TrainConfig


class Part(NamedTuple):
    """What one forward pass takes: all of a rank's batch, or with accumulation a part of it."""

    pixels: Pair
    """uint8 [n, S, S, 3] of each view, on the device."""
    colours: Pair | None
    """float32 [n, 5] of each view, on the host."""
    pairs: Pairs
    """On the device."""
    weight: float
    """Factor on the part's mean loss so that parts add up and ranks average to the global mean."""
    images: int
    """Images that count: 0 where a sample only keeps ranks and parts in step."""


class Feeder:
    """Brings batches to the device, on a stream of its own where that is a GPU."""

    def __init__(self, config: TrainConfig, device: torch.device, map_size: tuple[int, int]) -> None:
        self._accumulate, self._radius = config.engine.accumulate, config.loss.radius
        self._device, self._map_size = device, map_size
        self._normaliser = Normaliser(config.views.statistics, device)
        self._stream = _new_stream(device) if device.type == "cuda" else None

    def parts(self, batch: Batch) -> list[Part]:
        """The batch in `accumulate` parts, on every rank as many, ready for the device's main stream."""
        if self._stream is None:
            return self._make(batch)
        with torch.cuda.stream(self._stream):
            made = self._make(batch)
        main = torch.cuda.current_stream(self._device)
        main.wait_stream(self._stream)
        for part in made:
            for tensor in (*part.pixels, part.pairs.index, part.pairs.counts):
                tensor.record_stream(main)
        return made

    def images(self, part: Part) -> list[Tensor]:
        """The two views as the network takes them, float [n, 3, S, S]."""
        colours = part.colours or (None, None)
        return [self._normaliser(view, own) for view, own in zip(part.pixels, colours, strict=True)]

    def _make(self, batch: Batch) -> list[Part]:
        views, boxes, colours = batch.views_on(self._device), batch.boxes, batch.colours
        count = len(batch.plan.samples)
        made = []
        for number in range(self._accumulate):
            own = rank_slice(count, number, self._accumulate)
            size = own.stop - own.start
            if not size:  # as a rank without a sample does: the first one again, with weight 0
                own = slice(0, 1)
            made.append(
                Part(
                    pixels=(views[0][own], views[1][own]),
                    colours=(colours[0][own], colours[1][own]) if colours else None,
                    pairs=find_pairs((boxes[0][own], boxes[1][own]), *self._map_size, self._radius).to(
                        self._device
                    ),
                    weight=batch.plan.weight * size / count,
                    images=size if batch.plan.weight else 0,
                )
            )
        return made


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
