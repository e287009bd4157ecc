"""Batches of two views, streamed from a sharded dataset by byte ranges.

The order is planned in `order.py`; here samples are only read, decoded and cropped. A loader process
keeps nothing but the index files of the shards it touches.
"""

import hashlib
import io
import signal
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.images import EXTENSIONS
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import Manifest, read_manifest
from hvc.pretrain.order import RankBatch, rank_batches
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.views import View, make_view, sample_rng

Key = tuple[int, int]  # (epoch, sample)
_UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class Batch(NamedTuple):
    """One rank's share of a step, on the CPU."""

    plan: RankBatch
    views: tuple[Tensor, Tensor]  # each uint8 [B, size, size, 3]
    boxes: tuple[Tensor, Tensor]  # each float32 [B, 4], crop boxes in [0, 1]


class ShardReader:
    """Image bytes of a dataset by sample number, from a folder or from s3://."""

    def __init__(self, manifest: Manifest, address: str) -> None:
        self.manifest = manifest
        self._store = open_store(address)
        self._starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)])
        self._index = lru_cache(maxsize=64)(self._read_index)

    def image(self, sample: int) -> Image.Image:
        """The decoded RGB image; HvcError names shard and key when it cannot be read."""
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        shard, position = self.manifest.shards[number], sample - int(self._starts[number])
        index = self._index(number)
        members = index.members(position)
        place = next((members[ext] for ext in members if ext in EXTENSIONS), None)
        try:
            if place is None:
                raise ValueError("no image in it")
            data = self._store.read_range(shard.path, *place)
            with Image.open(io.BytesIO(data)) as image:
                return to_rgb(image)
        except _UNDECODABLE as error:
            if isinstance(error, HvcError):
                raise
            raise HvcError(
                f"{self._store.where(shard.path)}: sample {index.key(position)} cannot be decoded "
                f"({error}); the shard was altered after it was made, run `hvc verify`"
            ) from None

    def _read_index(self, number: int) -> ShardIndex:
        index = self.manifest.shards[number].index
        data = self._store.read(index.path)
        where = self._store.where(index.path)
        if hashlib.sha256(data).hexdigest() != index.sha256:
            raise HvcError(f"{where}: altered since the dataset was made; run `hvc verify`")
        return ShardIndex.from_bytes(data, where)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._index = lru_cache(maxsize=64)(self._read_index)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; 16-bit grey is scaled (Pillow itself would cut it off at 255)."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)
        image = Image.fromarray(grey)
    return image.convert("RGB")


class TwoViews(Dataset[tuple[View, View] | HvcError]):
    """Two crops of one sample, drawn from (seed, epoch, sample) alone.

    What is wrong with a sample comes back as a value: raised in a loader process, the message for
    the user would drown in that process's traceback.
    """

    def __init__(self, reader: ShardReader, config: TrainConfig) -> None:
        self._reader, self._seed, self._config = reader, config.seed, config.views

    def __getitem__(self, key: Key) -> tuple[View, View] | HvcError:
        epoch, sample = key
        try:
            image = self._reader.image(sample)
        except HvcError as error:
            return error
        rng = sample_rng(self._seed, epoch, sample)
        options = (self._config.size, rng, self._config.min_area)
        return make_view(image, *options), make_view(image, *options)


def collate(samples: list[tuple[View, View] | HvcError]) -> tuple[list[Tensor], list[Tensor]] | HvcError:
    """Stack samples: pixels per view [B, size, size, 3], boxes per view [B, 4]; or the first error."""
    pairs = []
    for sample in samples:
        if isinstance(sample, HvcError):
            return sample
        pairs.append(sample)
    pixels = [torch.as_tensor(np.stack([pair[n].pixels for pair in pairs])) for n in (0, 1)]
    boxes = [torch.as_tensor(np.stack([pair[n].box for pair in pairs])) for n in (0, 1)]
    return pixels, boxes


def stream(
    config: TrainConfig, manifest: Manifest, *, rank: int, world_size: int, first_step: int, last_step: int
) -> Iterator[Batch]:
    """This rank's batches from `first_step` on, over epoch ends, without reading what was consumed."""
    plan = rank_batches(
        [shard.samples for shard in manifest.shards],
        config.batch_size,
        rank,
        world_size,
        seed=config.seed,
        shuffle=config.shuffle,
        first_step=first_step,
        last_step=last_step,
    )
    pending: deque[RankBatch] = deque()

    def keys() -> Iterator[list[Key]]:
        for item in plan:
            pending.append(item)
            yield [(item.epoch, int(sample)) for sample in item.samples]

    loader = DataLoader(
        TwoViews(ShardReader(manifest, config.data), config),
        batch_sampler=keys(),
        num_workers=config.workers,
        collate_fn=collate,
        worker_init_fn=_in_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else starting a loader would draw from the run's own RNG
    )
    for loaded in loader:
        if isinstance(loaded, HvcError):
            raise loaded
        pixels, boxes = loaded
        yield Batch(pending.popleft(), (pixels[0], pixels[1]), (boxes[0], boxes[1]))


def _in_worker(_worker: int) -> None:
    # The training process decides when to stop; a worker simply ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)


def load_manifest(address: str) -> Manifest:
    """The manifest of a dataset's address; HvcError when there is none or it is empty."""
    manifest = read_manifest(open_store(address))
    if manifest.samples == 0:
        raise HvcError(f"{address}: the dataset has no samples")
    return manifest
