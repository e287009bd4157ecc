"""Training steps on inputs that are there already: ours, a plain PyTorch loop, and what both take."""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import photos
import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.stage import Provenance, never
from hvc.data_prep.shard import run as shard
from hvc.data_prep.shard_config import ShardConfig
from hvc.demo.photos import TRAINING, open_photo
from hvc.pretrain.data.batch import Batch, Part
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.feed import Feeder
from hvc.pretrain.data.indexes import Counts
from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.data.order import RankBatch
from hvc.pretrain.data.views import ViewOptions, cut_view, draw_views
from hvc.pretrain.model.ema import EmaTarget
from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.processes import own_place
from hvc.pretrain.training.ranks import Ranks
from hvc.pretrain.training.trainer import Trainer

TOTAL_STEPS = 1000
Runs = dict[str, Callable[[], Any]]
_PHOTOS = 64


def make_batch(count: int, size: int, seed: int = 0) -> Batch:
    """A batch of `count` samples with official crops of real photographs, cut on the host."""
    rng, images = random.Random(seed), [open_photo(photo) for photo in TRAINING[:6]]
    boxes, pixels = np.empty((2, count, 4), np.float32), np.empty((2, count, size, size, 3), np.uint8)
    for number in range(count):
        image = images[number % len(images)]
        for view, draw in enumerate(draw_views((image.size, image.size), rng, ViewOptions())):
            boxes[view, number], pixels[view, number] = draw.box, cut_view(image, draw, size)
    part = Part(torch.from_numpy(pixels), boxes, None, [], np.zeros(len(Counts.NAMES), np.int64), None)
    return Batch(RankBatch(0, 0, np.arange(count), 1.0), (part,), size, 0.0)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The same with its pixels on a device already."""
    (part,) = batch.parts
    assert isinstance(part.pixels, Tensor)
    return batch._replace(parts=(part._replace(pixels=part.pixels.to(device)),))


def official_inputs(batch: Batch, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Views and boxes as the official loader gives them: floats, with a dimension for time."""
    normalise = Normaliser("imagenet", torch.device("cpu"))
    views = [normalise(view.cpu()).contiguous().unsqueeze(1).to(device) for view in batch.views]
    return views, [box.unsqueeze(1).to(device) for box in batch.boxes]


def make_dataset(folder: Path) -> str:
    """A sharded dataset of some photographs, and its address."""
    photos.collect(None, folder / "photos", _PHOTOS)
    entry = {"source": "folder", "address": str(folder / "photos")}
    values = {"inputs": [entry], "output": str(folder / "dataset"), "target_mb": 1, "workers": 1}
    shard(ShardConfig.parse(values), never, Provenance())
    return str(folder / "dataset")


def recipe(dataset: str, batch: int, size: int, **values: Any) -> TrainConfig:
    """Defaults at this size."""
    base = {"data": dataset, "batch_size": batch, "views": {"size": size}, "steps": TOTAL_STEPS}
    return TrainConfig.parse({**base, "workers": 0, **values})


@contextmanager
def ranks_of(device: torch.device) -> Iterator[Ranks]:
    """This process alone, as DeepSpeed wants it."""
    ranks = Ranks(own_place(), device, timedelta(minutes=10))
    with ranks.together():
        yield ranks


def make_trainer(config: TrainConfig, ranks: Ranks, device: torch.device) -> Trainer:
    """A trainer that nothing is tracked of."""
    return Trainer(config, load_data(config), ranks, device, None, Provenance())


def all_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all weights and buffers of both networks, by their official names."""
    tensors = trainer.online.state_dict() | trainer.ema.network.state_dict()
    return {name: value.detach().clone() for name, value in tensors.items()}


class Plain:
    """Our networks in a plain loop: fused Adam and EMA, but no engine, no guard, nothing kept or undone."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.online = OnlineNetwork(config.architecture).to(device).train()
        self.ema = EmaTarget(TargetNetwork(self.online).to(device), TOTAL_STEPS)
        self._optimiser = torch.optim.Adam(self.online.parameters(), lr=config.learning_rate, fused=True)
        side = config.views.size // 8
        self._feeder = Feeder(config, device, (side, side))

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take all weights and buffers."""
        for network in (self.online, self.ema.network):
            network.load_state_dict({name: tensors[name] for name in network.state_dict()})

    def step(self, batch: Batch) -> Tensor:
        """One training step; the loss before it, []."""
        (part,) = self._feeder.parts(batch)
        self.ema.update(self.online.ema_source())
        views = self._feeder.images(part)
        loss = self.online(views, part.pairs, [self.ema.network(view) for view in views]).total
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss.detach()


def trainer_step(trainer: Trainer, batch: Batch) -> Tensor:
    """One step of ours; the loss before it, []."""
    losses, _, _ = trainer.train_step(batch)
    trainer.step += 1
    return losses[0][0].total.detach()


def in_turn(
    runs: Runs, rounds: int, warm_up: int = 2, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each kind of step in every round; all take turns, and the first rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warm_up + rounds):
        for name, work in runs.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: times[warm_up:] for name, times in seconds.items()}


def ratio(first: list[float], second: list[float]) -> float:
    """How much longer `first` takes: median over rounds, so a round that was slow for all counts little."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def refuse_unlike(losses: dict[str, Tensor], limit: float = 1e-4) -> None:
    """HvcError unless all losses from the same weights and inputs agree: else unlike things are timed."""
    values = {name: float(loss) for name, loss in losses.items()}
    if max(values.values()) - min(values.values()) > limit:
        raise HvcError(f"the losses of the first step differ by more than {limit}: {values}")
