"""What is wrong or wasteful in a recipe for this data and these processes, before a run is made of it."""

from collections.abc import Iterator

import torch

from hvc.base.errors import UsageError
from hvc.pretrain.data.dataset import TrainingData, plan_run
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.model.trunk_factory import find_factory
from hvc.pretrain.output import planned_steps
from hvc.pretrain.recipe import TrainConfig


def refuse_hopeless(config: TrainConfig, data: TrainingData, device: torch.device) -> None:
    """UsageError for what could only end the run later: no run, folder or record is made of it then."""
    if config.subset is not None and config.subset > data.samples:
        raise UsageError(
            f"subset is {config.subset:,}, but {data.address} has {data.samples:,} samples; leave subset "
            "out to train on all of them, or correct data="
        )
    planned_steps(config, data)  # which refuses epochs without a batch
    if config.engine.sync_batchnorm and device.type != "cuda":
        raise UsageError(
            f"engine.sync_batchnorm needs GPUs, and this process trains on the {device.type.upper()}; "
            "leave it out, or use engine.device=cuda"
        )
    find_factory(config.architecture)


def warnings(config: TrainConfig, data: TrainingData, world_size: int) -> Iterator[str]:
    """What works but is hardly meant, with the numbers that clash; one line each."""
    order = RunOrder(plan_run(config, data))
    batch, share = config.batch_size, -(-config.batch_size // world_size)
    if batch > order.samples:
        filled = ", filled up with repeated ones" if config.remainder == "wrap" else ""
        yield f"batch_size is {batch:,}, but an epoch has {order.samples:,} samples: one batch{filled}"
    if batch < world_size:
        yield (
            f"batch_size is {batch:,} for {world_size:,} processes: {world_size - batch:,} without an "
            "image of their own, which compute for nothing"
        )
    if config.engine.accumulate > share:
        yield (
            f"engine.accumulate is {config.engine.accumulate:,}, but a process has at most {share:,} of a "
            f"batch's {batch:,} images: parts without one compute for nothing, and BatchNorm sees one "
            "image at a time"
        )
    loaders, streams = world_size * max(1, config.workers), config.stream.streams
    if config.shuffle and streams < batch and streams < loaders:
        yield (
            f"stream.streams is {streams:,}, but {loaders:,} loader processes share a batch of {batch:,}: "
            f"up to {-(-loaders // streams):,} take turns in a stream: fewer images are read at once, "
            f"in more requests; stream.streams={batch} reads whole blocks"
        )
    total = planned_steps(config, data)
    if config.schedule.warmup_steps >= total:
        yield (
            f"schedule.warmup_steps is {config.schedule.warmup_steps:,}, but the run has {total:,} steps: "
            "the learning rate never reaches its full value"
        )
    if config.frames_per_video is not None and not len(data.videos):
        yield (
            f"frames_per_video is {config.frames_per_video:,}, but the data holds single images only: "
            "every epoch takes them all"
        )
