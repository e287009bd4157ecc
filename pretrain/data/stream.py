"""Batches of two views, streamed from sharded datasets.

Which samples a step has is planned in `order.py`, bytes come from `reader.py`. Here loader processes
decode them, a contiguous part of each of their rank's batches each, and the rank's own process puts the
parts together again. What is wrong comes back as a value: raised in a loader process, the message for
the user would drown in that process's traceback.
"""

import logging
import os
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from typing import Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hvc.base.errors import HvcError
from hvc.base.storage import FolderStore
from hvc.pretrain.data.batch import Batch, Part
from hvc.pretrain.data.dataset import TrainingData, plan_run
from hvc.pretrain.data.fetcher import MAX_BUFFER, MAX_RANGE
from hvc.pretrain.data.loaders import CONTEXT, Watched, begin_worker
from hvc.pretrain.data.order import Ids, RunOrder, RunPlan
from hvc.pretrain.data.parts import PartMaker
from hvc.pretrain.data.reader import SampleReader
from hvc.pretrain.recipe import TrainConfig

_MOST_STEPS = 64
"""Whoever reads in order plans no more steps at once than this."""
_log = logging.getLogger(__name__)


def stream(
    config: TrainConfig,
    data: TrainingData,
    *,
    rank: int,
    world_size: int,
    first_step: int,
    last_step: int,
    cut_later: bool = False,
) -> Generator[Batch, None, None]:
    """This rank's batches from `first_step` on, over epoch ends, without reading what was consumed.

    With `cut_later` views are cut by whoever asks a batch for them, else by the loader processes.
    HvcError when a shard, index or store fails, or a loader process dies or stands still.
    """
    if rank == 0:
        warn_of_buffer(config, data, world_size)
    plan = plan_run(config, data)
    order = RunOrder(plan)
    parts = Parts(config, data, plan, rank, world_size, range(first_step, last_step), cut_later)
    loader = DataLoader(
        parts,
        batch_size=None,
        num_workers=config.workers,
        prefetch_factor=config.stream.prefetch if config.workers else None,
        multiprocessing_context=CONTEXT if config.workers else None,
        worker_init_fn=partial(begin_worker, environment=dict(os.environ)),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else starting a loader would draw from the run's own RNG
    )
    with Watched(loader, f"rank {rank}") as parts_of_steps:
        for step in range(first_step, last_step):
            received, waited = parts_of_steps.receive(max(config.workers, 1))
            for part in received:
                if isinstance(part, HvcError):
                    raise part
            yield Batch(order.batch_of(step, rank, world_size), tuple(received), config.views.size, waited)


def buffer_need(config: TrainConfig, data: TrainingData, world_size: int, workers: int) -> int:
    """Bytes that one loader process has to hold so that it reads every block from S3 in one piece.

    Those are the present windows of all streams that its columns of a batch belong to. What is used up
    in one window makes room for the next, as streams change windows in turns.
    """
    options, size = config.stream, mean_bytes(data)
    columns = -(-config.batch_size // (world_size * workers)) + 1
    if not config.shuffle:
        return 2 * options.fetch_threads * MAX_RANGE
    streams = min(options.streams, config.batch_size)
    own = min(-(-columns * streams // config.batch_size) + 1, streams)
    return own * options.window * options.block * size


def mean_bytes(data: TrainingData) -> int:
    """Bytes of a sample in the shards of the dataset where these are largest."""
    means = [sum(shard.bytes for shard in s.manifest.shards) // s.manifest.samples for s in data.sources]
    return max(means)


def steps_at_once(config: TrainConfig, data: TrainingData, columns: int) -> int:
    """Steps whose samples keep all threads busy with requests of full size where they lie together."""
    wanted = config.stream.fetch_threads * MAX_RANGE
    return min(-(-wanted // (columns * mean_bytes(data))), _MOST_STEPS)


def warn_of_buffer(config: TrainConfig, data: TrainingData, world_size: int) -> None:
    """Say so if loader processes may hold less from S3 than the order needs."""
    remote = not all(isinstance(source.store, FolderStore) for source in data.sources)
    need = buffer_need(config, data, world_size, max(config.workers, 1))
    if remote and config.stream.buffer_mb is None and need > MAX_BUFFER:
        _log.warning(
            "loader processes read at most %d MB ahead from S3, this order needs %d MB: raise "
            "stream.buffer_mb if memory allows, or use more workers or fewer stream.streams",
            MAX_BUFFER / 1e6,
            need / 1e6,
        )


class Announcer(Protocol):
    """Who is told of coming parts."""

    looks_ahead: bool
    """Whether that is of any use."""

    def expect(self, epoch: int, ids: Ids) -> None:
        """These virtual ids will be needed."""
        ...

    def prefetch(self, epoch: int, ids: Ids) -> None:
        """Of those expected these come next."""
        ...


class Parts(IterableDataset[Part | HvcError]):
    """One loader process's part of each step."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        plan: RunPlan,
        rank: int,
        world_size: int,
        steps: range,
        cut_later: bool,
    ) -> None:
        self._config, self._data, self._plan = config, data, plan
        self._rank, self._world_size, self._steps, self._cut_later = rank, world_size, steps, cut_later

    def __iter__(self) -> Iterator[Part | HvcError]:
        workers = max(self._config.workers, 1)
        need = buffer_need(self._config, self._data, self._world_size, workers)
        reader = SampleReader(self._data, self._config.stream, min(need, MAX_BUFFER))
        try:
            maker = PartMaker(self._config, self._data, reader, cut_later=self._cut_later)
            for epoch, ids in self.announced(maker):
                yield maker.part(epoch, ids)
        except HvcError as error:
            yield error
        finally:
            reader.close()

    def announced(self, maker: Announcer) -> Iterator[tuple[int, Ids]]:
        """(epoch, virtual ids) of this process's part of each step, after the reader has heard of it.

        Twice: so long before that it learns of all samples of a block before it reads the first (and of
        a short epoch's as a whole), and when the step comes near.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        order = RunOrder(self._plan)
        far: deque[tuple[int, Ids]] = deque()
        near: deque[tuple[int, Ids]] = deque()
        for step in self._steps:
            epoch = step // order.steps
            ids = order.worker_part(step, self._rank, self._world_size, worker, workers)
            if not maker.looks_ahead:
                yield epoch, ids
                continue
            maker.expect(epoch, ids)
            far.append((epoch, ids))
            horizon = order.epoch(epoch).horizon
            if not self._config.shuffle:
                horizon = max(horizon, steps_at_once(self._config, self._data, max(len(ids), 1)))
            if len(far) > 2 * horizon:
                near.append(far.popleft())
                maker.prefetch(*near[-1])
            if len(near) > horizon:
                yield near.popleft()
        for epoch, ids in far:
            maker.prefetch(epoch, ids)
        yield from near
        yield from far
