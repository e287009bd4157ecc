"""100 million images on 64 nodes of 8 GPUs: what the code of this project costs there, run at that size.

The planner, manifest, index, sample order, reader, journal and cost model are the real ones; only images
are none (zeros out of a store that counts requests) and no network is trained. Each part runs in a process
of its own, so that its memory is its own. `docs/scale.md` quotes what this prints.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from form import Figure, report

IMAGES, MEAN_BYTES, LABEL_BYTES = 100_000_000, 110_000, 60
NODES, GPUS, WORKERS = 64, 8, 8
RANKS = NODES * GPUS
PROCESSES = RANKS * WORKERS
BATCH = 32 * RANKS
STEPS_SEEN = 1500
_HEADER = 512


def shards(target_mb: float) -> dict[str, float]:
    """The planner on 100 million records."""
    from hvc.data_prep.plan import plan_shards

    start = time.perf_counter()
    plan = plan_shards(IMAGES, IMAGES * MEAN_BYTES, target_mb)
    seconds = time.perf_counter() - start
    sizes = np.diff(plan.bounds)
    assert sizes.sum() == IMAGES
    assert sizes.max() - sizes.min() <= 1
    counted = np.bincount(plan.order // 1024, minlength=-(-IMAGES // 1024))
    assert np.all(counted[:-1] == 1024), "a record is in no shard, or in two"
    return {"shards": len(plan), "samples_per_shard": float(sizes.max()), "seconds": seconds}


def index_of(samples: int) -> Any:
    """A real index of so many samples: an image, a JSON and a class each."""
    from hvc.data_prep.index import ShardIndex

    checksum, entries, offset = zlib.crc32(bytes(MEAN_BYTES)), [], _HEADER
    for number in range(samples):
        members = {}
        for ext, length, crc in (("cls", 3, 1), ("jpg", MEAN_BYTES, checksum), ("json", LABEL_BYTES, 1)):
            members[ext] = (offset, length, crc)
            offset += -(-length // _HEADER) * _HEADER + _HEADER
        entries.append((f"{number:09d}", members))
    return ShardIndex.build(entries)


def manifest_of(target_mb: float) -> Any:
    """The manifest of the whole; all shards have the same content, and so the same index."""
    import hashlib

    from hvc.data_prep.manifest import FileRef, Made, Manifest, Shard

    count = round(IMAGES * (MEAN_BYTES + 2048) / (target_mb * 1e6))
    each, rest = divmod(IMAGES, count)
    shas = {n: hashlib.sha256(index_of(n).to_bytes()).hexdigest() for n in (each, each + 1)}
    parts = tuple(
        Shard(
            path=f"shard-{number:06d}.tar",
            bytes=(each + 1) * (MEAN_BYTES + 4096),
            sha256=f"{number:064x}",
            samples=each + (number < rest),
            index=FileRef(path=f"shard-{number:06d}.idx", sha256=shas[each + (number < rest)]),
        )
        for number in range(count)
    )
    made = Made(
        order="shuffled",
        seed=0,
        target_mb=target_mb,
        min_shards=1,
        max_pixels=10**8,
        input="0" * 64,
        hvc="0",
    )
    whole = {"name": "huge", "source": "folder", "samples": IMAGES, "found": IMAGES, "rejected": 0}
    return Manifest(**whole, made=made, shards=parts).sealed()


def manifest(target_mb: float) -> dict[str, float]:
    """Sizes of manifest and indexes, and how long they take to read."""
    from hvc.data_prep.index import ShardIndex
    from hvc.data_prep.manifest import Manifest

    made = manifest_of(target_mb)
    data = made.to_bytes()
    start = time.perf_counter()
    Manifest.from_bytes(data, "manifest.json")
    seconds = time.perf_counter() - start
    samples = made.shards[0].samples
    index = index_of(samples).to_bytes()
    begin = time.perf_counter()
    for _ in range(20):
        ShardIndex.from_bytes(index)
    return {
        "shards": len(made.shards),
        "manifest_mb": len(data) / 1e6,
        "manifest_seconds": seconds,
        "index_kb": len(index) / 1e3,
        "index_bytes_per_sample": len(index) / samples,
        "indexes_gb": len(index) * len(made.shards) / 1e9,
        "index_ms": 1e3 * (time.perf_counter() - begin) / 20,
    }


class CountingStore:
    """A store of zeros with real indexes."""

    address, retries = "s3://simulated/huge", 0

    def __init__(self, found: Any) -> None:
        self._samples = {shard.index.path: shard.samples for shard in found.shards}
        sizes = set(self._samples.values())
        self._indexes = {samples: index_of(samples).to_bytes() for samples in sizes}
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def where(self, name: str) -> str:
        """As in a bucket."""
        return f"{self.address}/{name}"

    def read(self, name: str) -> bytes:
        """An index."""
        data = self._indexes[self._samples[name]]
        self._count("index", len(data))
        return data

    def read_range(self, _name: str, _offset: int, length: int) -> bytes:
        """Images, all zeros."""
        self._count("images", length)
        return bytes(length)

    def _count(self, kind: str, size: int) -> None:
        self.requests[kind] += 1
        self.bytes[kind] += size


def order(target_mb: float, streams: int) -> dict[str, float]:
    """What one loader process of 4,096 reads for its part of some hundred steps, with the real reader."""
    from hvc.pretrain.data.bench import _Announcer
    from hvc.pretrain.data.dataset import SourceData, TrainingData, plan_run
    from hvc.pretrain.data.order import RunOrder
    from hvc.pretrain.data.reader import SampleReader
    from hvc.pretrain.data.stream import Parts, buffer_need
    from hvc.pretrain.recipe import TrainConfig

    base = _peak_mb()
    found = manifest_of(target_mb)
    store = CountingStore(found)
    data = TrainingData([SourceData(found, store, 1.0)])  # type: ignore[arg-type]
    loaded = _peak_mb()
    values = {"data": store.address, "batch_size": BATCH, "workers": 0, "stream": {"streams": streams}}
    config = TrainConfig.parse(values)
    plan = plan_run(config, data)
    steps = RunOrder(plan).steps
    start = time.perf_counter()
    RunOrder(plan).epoch(0)
    epoch_seconds = time.perf_counter() - start
    ordered = _peak_mb()
    process = PROCESSES // 3
    need = buffer_need(config, data, PROCESSES, 1)
    reader = SampleReader(data, config.stream, need)
    first = steps // 2
    seen: list[int] = []
    parts = Parts(config, data, plan, process, PROCESSES, range(first, first + STEPS_SEEN), False)
    start = time.perf_counter()
    for _, ids in parts.announced(_Announcer(data, reader)):
        for each in ids.tolist():
            reader.image_bytes(each)
            seen.append(each)
    seconds = time.perf_counter() - start
    reader.close()
    assert len(seen) == len(set(seen)) == STEPS_SEEN * BATCH // PROCESSES
    _assert_a_batch(plan, first)
    samples = len(seen)
    return {
        "steps_per_epoch": steps,
        "epoch_seconds": epoch_seconds,
        "manifest_mb": loaded - base,
        "order_mb": ordered - loaded,
        "process_mb": _peak_mb(),
        "buffer_mb": need / 1e6,
        "image_requests_per_1000": 1000 * store.requests["images"] / samples,
        "index_requests_per_1000": 1000 * store.requests["index"] / samples,
        "kb_per_sample": (store.bytes["images"] + store.bytes["index"]) / samples / 1e3,
        "samples_per_second": samples / seconds,
    }


def _assert_a_batch(plan: Any, step: int) -> None:
    """All ranks and loader processes together have the batch, each sample once."""
    from hvc.pretrain.data.order import RunOrder

    whole = RunOrder(plan)
    ids = [whole.worker_part(step, process, PROCESSES, 0, 1) for process in range(0, PROCESSES, 16)]
    batch = whole.epoch(0).batch(step)
    assert len(np.unique(batch)) == BATCH
    each = BATCH // PROCESSES
    for place, own in zip(range(0, PROCESSES, 16), ids, strict=True):
        assert np.array_equal(own, batch[place * each : (place + 1) * each])


def journal(every: int) -> dict[str, float]:
    """A record of 64 nodes: its size, its points for MLflow, and what a look at a long journal costs."""
    from hvc.pretrain.tracking.journal import JOURNAL, Journal
    from hvc.pretrain.tracking.journal_state import JournalState
    from hvc.pretrain.tracking.run_progress import progress_of
    from hvc.pretrain.tracking.system_figures import system_figures

    values = [f"train/value{n}" for n in range(13)]
    own = {"train/loss": -1.2345678, "perf/step_seconds": 0.0213, "perf/images_per_second": 767_890.5}
    own |= dict.fromkeys([*values, *(f"perf/value{n}" for n in range(5))], 0.1234567)
    kinds = (
        "memory_usage_percentage",
        "memory_usage_megabytes",
        "utilization_percentage",
        "power_usage_watts",
    )
    gpus = [f"gpu_{n}_{kind}" for n in range(GPUS) for kind in kinds]
    for node in range(NODES):
        figures = system_figures(node, Path("/"))
        figures |= {f"system/node-{node}/{name}": 12345.678 for name in gpus}
        own |= figures
    records = 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = Journal(folder / JOURNAL)
        lines.append("journal", version=1, run_key="0" * 32, adopted=False)
        tags = {"hvc.total_steps": "1000000"}
        lines.append("attempt", number=1, name="huge", experiment="hvc", tags=tags, params={}, code="c")
        start = time.perf_counter()
        for record in range(records):
            lines.append("metrics", step=every * (record + 1), values=own)
        write = (time.perf_counter() - start) / records
        size = lines.size / records
        lines.close()
        start = time.perf_counter()
        JournalState.of(folder / JOURNAL)
        state = time.perf_counter() - start
        start = time.perf_counter()
        assert progress_of(folder) is not None
        look = time.perf_counter() - start
    return {
        "points_per_record": len(own),
        "record_kb": size / 1e3,
        "write_ms": 1e3 * write,
        "restart_seconds_per_gb": state / (size * records / 1e9),
        "look_ms": 1e3 * look,
    }


def costs() -> dict[str, float]:
    """Trained parameters and operations, counted on the real network."""
    from hvc.pretrain.model.cost import cost_of

    cost = cost_of("resnet18", 256)
    assert cost is not None
    return {
        "parameters_m": cost.parameters / 1e6,
        "target_parameters_m": cost.target_parameters / 1e6,
        "gflop_per_image": cost.flops_per_image_step / 1e9,
    }


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "shards-100mb": lambda: shards(100),
    "shards-250mb": lambda: shards(250),
    "manifest-100mb": lambda: manifest(100),
    "manifest-250mb": lambda: manifest(250),
    "order-100mb-256-streams": lambda: order(100, 256),
    f"order-100mb-{BATCH}-streams": lambda: order(100, BATCH),
    f"order-250mb-{BATCH}-streams": lambda: order(250, BATCH),
    "journal": lambda: journal(10),
    "costs": costs,
}


GPU_IMAGES = 1500.0
"""Images/s that a GPU takes: 989 dense bf16 TFLOP/s of an H100 SXM at 30 % of its peak, 202 GFLOP each."""
LOG_EVERY, CHECKPOINT_EVERY = 1000, 5000
FAILURES_PER_GPU_DAY = 419 / 54 / 16_384
"""Unplanned interruptions while Llama 3 405B was trained, arXiv 2407.21783, section 3.3.4."""
WAIT_SECONDS = 300.0 + 120.0 + 120.0
"""Until a dead node is noticed, the job begins again, and training is under way."""


def derive(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """What follows for the whole cluster, by arithmetic."""
    speed = GPU_IMAGES * RANKS
    step = BATCH / speed
    values = {"images_per_second": speed, "step_ms": 1e3 * step, "epoch_seconds": IMAGES / speed}
    for name, part in found.items():
        if name.startswith("order-"):
            requests = part["image_requests_per_1000"] + part["index_requests_per_1000"]
            values[f"{name}.gets_per_second"] = requests / 1000 * speed
            values[f"{name}.gb_per_second"] = part["kb_per_sample"] * speed / 1e6
            values[f"{name}.gbit_per_second_and_node"] = 8 * part["kb_per_sample"] * speed / 1e6 / NODES
            values[f"{name}.gb_of_memory_per_node"] = part["process_mb"] * GPUS * (WORKERS + 1) / 1e3
    record = found["journal"]
    for every in (10, LOG_EVERY):
        seconds = every * step
        values[f"log_every_{every}.points_per_second"] = record["points_per_record"] / seconds
        values[f"log_every_{every}.journal_gb_per_day"] = record["record_kb"] * 86400 / seconds / 1e6
    gradient_mb = 4 * found["costs"]["parameters_m"]
    values["all_reduce_gbit_per_second_and_gpu"] = 8 * 2 * gradient_mb / 1e3 / step
    between = CHECKPOINT_EVERY * step
    failures = FAILURES_PER_GPU_DAY * RANKS
    lost = between / 2 + WAIT_SECONDS
    values |= {"checkpoint_seconds": between, "failures_per_day": failures}
    values |= {"minutes_lost_per_failure": lost / 60, "share_lost": failures * lost / 86400}
    values["gpu_hours_lost_per_failure"] = lost / 3600 * RANKS
    return values


def main() -> None:
    """Run every part in a process of its own, print and record what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), help="this one only, as JSON")
    asked = parser.parse_args()
    if asked.part:
        found = PARTS[asked.part]()
        print(json.dumps(found | {"peak_gb": _peak_mb() / 1e3}))
        return
    every: dict[str, dict[str, float]] = {}
    for part in PARTS:
        done = subprocess.run(
            [sys.executable, __file__, "--part", part], check=True, stdout=subprocess.PIPE, text=True
        )
        every[part] = json.loads(done.stdout.splitlines()[-1])
        print(part, {name: float(f"{value:.4g}") for name, value in every[part].items()}, flush=True)
    every["cluster"] = derive(every)
    figures = [
        Figure(f"scale.{part}.{name}", value, "")
        for part, values in every.items()
        for name, value in values.items()
    ]
    report("scale", figures)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
