"""How fast a dataset streams: each stage of loading by itself, then the real stream of batches.

Stages are timed one after the other in this process, on one core; the stream runs with all its loader
processes. Nothing is trained and nothing is written, but for the recipe's cache if it has one.
"""

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError
from hvc.base.storage import FolderStore
from hvc.pretrain.data import shuffle_quality
from hvc.pretrain.data.batch import Batch
from hvc.pretrain.data.bench_figures import Report, Stage, Stream
from hvc.pretrain.data.dataset import TrainingData, plan_run
from hvc.pretrain.data.decode import UndecodableError, decode
from hvc.pretrain.data.indexes import Counts
from hvc.pretrain.data.order import Ids, RunOrder
from hvc.pretrain.data.packed import Packed, merge, pack
from hvc.pretrain.data.parts import view_options
from hvc.pretrain.data.reader import CorruptSampleError, SampleReader
from hvc.pretrain.data.stream import Parts, stream
from hvc.pretrain.data.views import cut_view, draw_views, sample_rng
from hvc.pretrain.recipe import TrainConfig

_KEPT_BYTES = 32 << 20
"""Encoded images that are kept for the stages behind reading."""
_DECODED_BYTES = 128 << 20
_FAR = 10**9  # steps; nobody waits for the last


def bench(
    config: TrainConfig, data: TrainingData, seconds: float, ranks: int, say: Callable[[str], None]
) -> Report:
    """Time every stage for so many seconds; HvcError when the data cannot be read.

    Args:
        config: a recipe; what matters are its batch size, views, workers and stream.
        data: its data.
        seconds: per stage.
        ranks: training processes that share a batch; the stream is that of the first.
        say: hears which stage begins.
    """
    # Frames that are drawn for a second view are read as any other sample: one kind will do.
    single = config.model_copy(update={"views": config.views.model_copy(update={"frame_gap": None})})
    say("reading")
    read, images, bad = _read(single, data, seconds)
    say("decoding")
    decoding, decoded, undecodable = _decode(images, seconds)
    say("cutting views")
    stages = _cumulated([read, decoding, *_views(config, decoded, seconds, read.mean_bytes)])
    streams = []
    for later in (False, True):
        say(f"streaming, views {'packed for the device' if later else 'cut on the CPU'}")
        streams.append(_stream(config, data, seconds, ranks, later, read.mean_bytes))
    say("measuring the shuffle")
    return Report(
        data.address,
        data.samples,
        any(not isinstance(source.store, FolderStore) for source in data.sources),
        config.workers,
        ranks,
        bad + undecodable,
        tuple(stages),
        tuple(streams),
        tuple(_quality(config, data, ranks)),
    )


def read_samples(
    config: TrainConfig, data: TrainingData, reader: SampleReader, steps: int = _FAR
) -> Iterator[bytes | None]:
    """Encoded images of so many steps in the order of training, one rank's; None for a corrupt one."""
    parts = Parts(config, data, plan_run(config, data), 0, 1, range(steps), False)
    for _, ids in parts.announced(_Announcer(data, reader)):
        for each in ids.tolist():
            try:
                yield reader.image_bytes(each % data.samples)
            except CorruptSampleError:
                yield None


class _Announcer:
    """Tells a reader of samples, as a part maker does."""

    def __init__(self, data: TrainingData, reader: SampleReader) -> None:
        self._data, self._reader = data, reader
        self.looks_ahead = reader.looks_ahead

    def expect(self, _epoch: int, ids: Ids) -> None:
        self._reader.expect((ids % self._data.samples).tolist())

    def prefetch(self, _epoch: int, ids: Ids) -> None:
        self._reader.prefetch((ids % self._data.samples).tolist())


def _read(config: TrainConfig, data: TrainingData, seconds: float) -> tuple[Stage, list[bytes], int]:
    """The stage, some of what was read, and the number of corrupt samples."""
    kept: list[bytes] = []
    total = samples = bad = 0
    reader = SampleReader(data, config.stream)
    try:
        start = time.perf_counter()
        for image in read_samples(config, data, reader):
            if image is None:
                bad += 1
            else:
                if total < _KEPT_BYTES:
                    kept.append(image)
                samples, total = samples + 1, total + len(image)
            if time.perf_counter() - start >= seconds or bad >= data.samples:
                break
        elapsed = time.perf_counter() - start
    finally:
        reader.close()
    if not kept:
        raise HvcError(f"{data.address}: no sample of it can be read; run `hvc verify`")
    return Stage("read", samples, elapsed, total / samples), kept, bad


def _decode(images: list[bytes], seconds: float) -> tuple[Stage, list[Image.Image], int]:
    """The stage, some decoded images, and how many cannot be decoded."""
    kept: list[Image.Image] = []
    good: list[bytes] = []
    total = 0
    for data in images:
        try:
            image = decode(data)
        except UndecodableError:
            continue
        good.append(data)
        if total < _DECODED_BYTES:
            kept.append(image)
            total += 4 * image.width * image.height
    if not good:
        raise HvcError("none of the images can be decoded; run `hvc verify`, then shard them again")
    mean = sum(len(data) for data in good) / len(good)
    return _timed("decode", decode, good, seconds, mean), kept, len(images) - len(good)


def _views(config: TrainConfig, images: list[Image.Image], seconds: float, mean: float) -> list[Stage]:
    size, options = config.views.size, view_options(config.views)
    drawn = [
        draw_views((image.size, image.size), sample_rng(config.seed, 0, number), options)
        for number, image in enumerate(images)
    ]
    items = list(zip(images, drawn, strict=True))
    return [
        _timed(
            "cut views",
            lambda item: [cut_view(item[0], draw, size) for draw in item[1]],
            items,
            seconds,
            mean,
        ),
        _timed("pack views", lambda item: pack([item[0]], [item[1]]), items, seconds, mean),
    ]


def _timed(name: str, work: Callable[[Any], Any], items: list[Any], seconds: float, mean: float) -> Stage:
    """Do it with every item in turn until the time is over."""
    start = time.perf_counter()
    for count, item in enumerate(itertools.cycle(items), 1):
        work(item)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return Stage(name, count, elapsed, mean)
    raise AssertionError("there are items")


def _cumulated(stages: list[Stage]) -> list[Stage]:
    """The same with the speed of reading, decoding and each way of handling views together."""
    read, decoding, cut, packing = stages
    chains = [[read], [read, decoding], [read, decoding, cut], [read, decoding, packing]]
    rates = [1 / sum(1 / stage.rate for stage in chain) for chain in chains]
    return [
        Stage(stage.name, stage.samples, stage.seconds, stage.mean_bytes, rate)
        for stage, rate in zip(stages, rates, strict=True)
    ]


def _stream(
    config: TrainConfig, data: TrainingData, seconds: float, ranks: int, later: bool, mean: float
) -> Stream:
    options: dict[str, int] = {"rank": 0, "world_size": ranks, "first_step": 0, "last_step": _FAR}
    start = time.perf_counter()
    batches = stream(config, data, **options, cut_later=later)
    try:
        next(batches)
        begin = time.perf_counter()
        samples, counts = 0, np.zeros(len(Counts.NAMES), np.int64)
        for batch in batches:
            samples += len(batch.plan.samples)
            counts += batch.counts
            take(batch)
            elapsed = time.perf_counter() - begin
            if elapsed >= seconds:
                break
        memory = _memory()
    finally:
        batches.close()
    stage = Stage(f"stream, {'packed' if later else 'cut'}", samples, elapsed, mean)
    return Stream(stage, begin - start, memory / 1e6, *_cost(counts, elapsed))


def take(batch: Batch) -> None:
    """What the training process does to a batch on the host: packed parts become one."""
    packed = [part.pixels for part in batch.parts if isinstance(part.pixels, Packed)]
    if packed:
        merge(packed)


def _cost(counts: NDArray[np.int64], seconds: float) -> tuple[float, int, float | None]:
    """Requests per second, retries, and the cache's hit rate."""
    values: dict[str, int] = dict(zip(Counts.NAMES, counts.tolist(), strict=True))
    asked = values["cache_hits"] + values["cache_misses"]
    return values["requests"] / seconds, values["retries"], values["cache_hits"] / asked if asked else None


def _memory() -> int:
    """Bytes of the largest loader process, or of this one if it loads itself."""
    processes = [child.pid for child in multiprocessing.active_children()] or [None]
    return max(int(psutil.Process(pid).memory_full_info().pss) for pid in processes)


def _quality(config: TrainConfig, data: TrainingData, ranks: int) -> list[str]:
    order = RunOrder(plan_run(config, data)).epoch(0)
    layout = shuffle_quality.Layout(data.shard_sizes.tolist(), data.videos)
    return shuffle_quality.report(order, layout, ranks=ranks, workers=max(config.workers, 1))
