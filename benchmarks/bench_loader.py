"""The loader on one core, beside bare decoding, the official loader, webdataset and mosaicml-streaming.

All ways load the same photos in one run, in turn, several times; the medians are compared. From disk the
page cache is warm and CPU seconds of this process are compared, so that other load on the machine does
not count (waiting, which streaming does a little of, does not count either). From S3 it is time on the
clock. The process is bound to one core, the S3 server is not.

    python benchmarks/bench_loader.py [--photos DIR] [--count N] [--rounds N] [--rivals DIR] [--only GROUP]
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import photos
import rivals
import torch
from form import Figure, report
from PIL import Image

from hvc.base.stage import Provenance, never
from hvc.data_prep.shard import run as shard
from hvc.data_prep.shard_config import ShardConfig
from hvc.pretrain.data import decode as decoding
from hvc.pretrain.data import shuffle_quality
from hvc.pretrain.data.bench import read_samples, take
from hvc.pretrain.data.dataset import load_data, plan_run
from hvc.pretrain.data.decode import decode
from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.data.reader import SampleReader
from hvc.pretrain.data.stream import stream
from hvc.pretrain.recipe import TrainConfig

BATCH = 64
SHARD_MB = 32.0
DECODED_PART = 4  # one photo in so many, where every one is decoded
MILLION = 1_000_000
GROUPS = ("views", "disk", "s3", "resume", "shuffle")
Runs = dict[str, Callable[[], None]]


def main() -> None:
    """Measure all groups, or one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    photos.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", type=Path, help="folder that streaming is (or lies) installed in")
    parser.add_argument("--only", choices=GROUPS, action="append", help="prints, but keeps no results")
    parser.add_argument("--first-batch", nargs=3, metavar=("DATASET", "STEP", "WORKERS"), help="internal")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.first_batch:
        first_batch(*options.first_batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    if options.only:
        for figure in figures:
            print(figure)
    else:
        report("loader", figures, packages=("torch", "webdataset", "pillow", "simplejpeg", "boto3"))


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Figures of the wanted groups."""
    wanted = options.only or GROUPS
    images = photos.collect(options.photos, folder / "photos", options.count)
    few = images[::DECODED_PART]
    (folder / "few").mkdir()
    for path in few:
        (folder / "few" / path.name).symlink_to(path.resolve())
    note = photos.describe(images)
    make_dataset(folder / "photos", folder / "dataset")
    make_dataset(folder / "few", folder / "few-dataset")
    streaming = rivals.import_streaming(options.rivals or default_rivals())
    if streaming is None:
        note += "; mosaicml-streaming could not be installed"
    env = start_s3(folder) if "s3" in wanted else None
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # after the server, which may use the others
    figures: list[Figure] = []
    if "views" in wanted:
        figures += views(str(folder / "few-dataset"), few, options.rounds)
    if "disk" in wanted:
        figures += disk(folder, images, few, streaming, options.rounds, note)
    if env:
        figures += from_s3(folder, env, streaming, options.rounds, note)
    if "resume" in wanted:
        figures += resume(folder)
    if "shuffle" in wanted:
        figures += shuffle(str(folder / "dataset"), options.rounds)
    return figures


def default_rivals() -> Path:
    """Where streaming is kept between runs."""
    return Path(tempfile.gettempdir()) / f"hvc-rivals-{rivals.STREAMING_VERSION}"


def make_dataset(source: Path, output: Path) -> None:
    """Shard photos in the usual way."""
    entry = {"source": "folder", "address": str(source)}
    values = {"inputs": [entry], "output": str(output), "target_mb": SHARD_MB, "workers": 1}
    shard(ShardConfig.parse({**values, "check": "header"}), never, Provenance())


def recipe(address: str, **values: Any) -> TrainConfig:
    """Defaults, in this process alone."""
    return TrainConfig.parse({"data": address, "batch_size": BATCH, "workers": 0, **values})


def medians(runs: Runs, rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Median seconds of each; all take turns, and a first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, work in runs.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


# Views


def views(address: str, paths: list[Path], rounds: int) -> list[Figure]:
    """Our stream with views cut on the device and on the CPU; bare decoding; the official loader."""
    encoded = [path.read_bytes() for path in paths]
    count = len(paths)

    def bare() -> None:
        for image in encoded:
            Image.open(io.BytesIO(image)).load()

    def bare_fast() -> None:
        for image in encoded:
            fast.decode_jpeg(image, "RGB")

    def official() -> None:
        for _ in rivals.official_batches(paths, BATCH):
            pass

    fast = decoding.simplejpeg
    fast_runs: Runs = {"bare_fast": bare_fast} if fast else {}
    seconds = medians(
        {
            "bare": bare,
            **fast_runs,
            "device": lambda: epoch(address, cut_later=True),
            "device_pillow": lambda: without_simplejpeg(partial(epoch, address, cut_later=True)),
            "cpu": lambda: epoch(address),
            "normalised": lambda: epoch(address, normalise=True),
            "official": official,
        },
        rounds,
    )
    note = f"{photos.describe(paths)}, batch {BATCH}"
    mine = f"our decoder: {'simplejpeg' if fast else 'Pillow'}"
    rates = f"bare {count / seconds['bare']:.0f}/s, official {count / seconds['official']:.0f}/s"
    return [
        Figure(
            "loader.device_views_vs_decode",
            seconds["bare"] / seconds["device"],
            "x",
            "Pillow decoding the same bytes from memory",
            "> 0.85",
            f"{count / seconds['device']:.0f}/s; {mine}; {rates}; {note}",
        ),
        Figure(
            "loader.device_views_by_pillow_vs_decode",
            seconds["bare"] / seconds["device_pillow"],
            "x",
            "the same",
            note=f"{count / seconds['device_pillow']:.0f}/s; ours decodes by Pillow, as without simplejpeg",
        ),
        *against_fast(seconds, count),
        Figure(
            "loader.cpu_views_vs_official",
            seconds["official"] / seconds["cpu"],
            "x",
            "decode, two Pillow crops, tensor, normalise, collate",
            "> 1.5",
            f"{count / seconds['cpu']:.0f}/s; ours gives uint8, the device normalises",
        ),
        Figure(
            "loader.cpu_views_normalised_vs_official",
            seconds["official"] / seconds["normalised"],
            "x",
            "the same",
            "",
            f"{count / seconds['normalised']:.0f}/s; ours too makes normalised floats on the CPU",
        ),
    ]


def against_fast(seconds: dict[str, float], count: int) -> list[Figure]:
    """Beside the faster decoder alone, where it is installed."""
    if "bare_fast" not in seconds:
        return []
    value = seconds["bare_fast"] / seconds["device"]
    note = f"bare {count / seconds['bare_fast']:.0f}/s"
    reference = "simplejpeg decoding the same bytes from memory"
    return [Figure("loader.device_views_vs_simplejpeg", value, "x", reference, note=note)]


def without_simplejpeg(work: Callable[[], None]) -> None:
    """Do something as if simplejpeg were not installed."""
    before, decoding.simplejpeg = decoding.simplejpeg, None
    try:
        work()
    finally:
        decoding.simplejpeg = before


def epoch(address: str, *, cut_later: bool = False, normalise: bool = False) -> None:
    """All batches of one epoch, as the training process has them on the host."""
    config = recipe(address)
    data = load_data(config)
    steps = RunOrder(plan_run(config, data)).steps
    place = {"rank": 0, "world_size": 1, "first_step": 0, "last_step": steps}
    normaliser = Normaliser(config.views.statistics, torch.device("cpu"))
    for batch in stream(config, data, **place, cut_later=cut_later):
        take(batch)
        if normalise:
            for view in batch.views:
                normaliser(view)


# Encoded images


def ours(address: str, **values: Any) -> Iterator[bytes]:
    """All images of an epoch, shuffled, with CRC-32 checked."""
    config = recipe(address, **values)
    data = load_data(config)
    reader = SampleReader(data, config.stream)
    try:
        for image in read_samples(config, data, reader, RunOrder(plan_run(config, data)).steps):
            assert image is not None
            yield image
    finally:
        reader.close()


def drain(reader: rivals.Reader, count: int, *, decoded: bool = False) -> None:
    """Take everything from a reader; it must be everything."""
    number = 0
    for image in reader():
        number += 1
        if decoded:
            decode(image)
    assert number == count, f"{number} of {count} samples"


def disk(
    folder: Path, images: list[Path], few: list[Path], streaming: Any, rounds: int, note: str
) -> list[Figure]:
    """Encoded images from disk, and decoded ones."""
    figures = []
    for name, paths, decoded in (("dataset", images, False), ("few-dataset", few, True)):
        readers: dict[str, rivals.Reader] = {"ours": partial(ours, str(folder / name))}
        readers |= local_rivals(folder / f"rivals-{name}", paths, streaming)
        runs: Runs = {
            kind: partial(drain, reader, len(paths), decoded=decoded) for kind, reader in readers.items()
        }
        seconds = medians(runs, rounds)
        ending = "_decoded" if decoded else ""
        figures += compare(seconds, len(paths), ending, photos.describe(paths) if decoded else note)
    return figures


def local_rivals(folder: Path, paths: list[Path], streaming: Any) -> dict[str, rivals.Reader]:
    """The same images in the rivals' formats, and how they are read."""
    folder.mkdir()
    shard_bytes = int(SHARD_MB * 1e6)
    tars = rivals.write_webdataset((path.read_bytes() for path in paths), folder / "tars", shard_bytes)
    readers: dict[str, rivals.Reader] = {
        "webdataset": lambda: rivals.read_webdataset([str(t) for t in tars])
    }
    if streaming:
        target = folder / "mds"
        rivals.write_streaming(streaming, (path.read_bytes() for path in paths), target, shard_bytes)
        readers["streaming"] = lambda: rivals.read_streaming(streaming, target)
    return readers


def compare(
    seconds: dict[str, float], count: int, ending: str, note: str, mine: str = "ours"
) -> list[Figure]:
    """Ours beside each rival."""
    return [
        Figure(
            f"loader.vs_{rival}{ending}",
            seconds[rival] / seconds[mine],
            "x",
            f"{rival}, {count / seconds[rival]:,.0f} samples/s",
            "" if "decoded" in ending or "cache" in ending else "> 1",
            f"ours {count / seconds[mine]:,.0f} samples/s; {note}",
        )
        for rival in ("webdataset", "streaming")
        if rival in seconds
    ]


# S3


def start_s3(folder: Path) -> Any:
    """The tests' S3 server, or None (and why, on stderr) where it is not installed."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from services.install import S3_COMMANDS, missing_packages
    from services.s3 import S3Server

    if missing := missing_packages(S3_COMMANDS):
        sys.stderr.write(f"S3 is left out, packages are missing: {', '.join(missing)}\n")
        return None
    (folder / "s3").mkdir()
    return S3Server(folder / "s3")


def from_s3(folder: Path, server: Any, streaming: Any, rounds: int, note: str) -> list[Figure]:
    """Encoded images from a real S3 server on this machine."""
    os.environ.update(server.env)
    try:
        bucket = server.bucket("loader").removeprefix("s3://")
        client, count = server.client(), load_data(recipe(str(folder / "dataset"))).samples
        for path in sorted((folder / "dataset").iterdir()):
            client.upload_file(str(path), bucket, f"ours/{path.name}")
        images = sorted((folder / "photos").iterdir())
        if not (folder / "rivals-dataset").is_dir():
            local_rivals(folder / "rivals-dataset", images, streaming)
        for path in sorted((folder / "rivals-dataset").rglob("*.*")):
            client.upload_file(str(path), bucket, str(path.relative_to(folder)))
        runs = s3_runs(folder, bucket, streaming, count)
        seconds = medians(runs, max(rounds // 2, 2), time.perf_counter)
    finally:
        server.close()
    return [
        *compare(seconds, count, "_s3", note),
        *compare(seconds, count, "_s3_cache_cold", "cache empty", "cold"),
        *compare(seconds, count, "_s3_cache_warm", "cache full, as in later epochs", "warm"),
    ]


def s3_runs(folder: Path, bucket: str, streaming: Any, count: int) -> Runs:
    """Ours without and with cache, and the rivals."""
    address, cold = f"s3://{bucket}/ours", folder / "cold"
    rivals.webdataset_from_s3()
    tars = sorted(path.name for path in (folder / "rivals-dataset" / "tars").iterdir())
    urls = [f"s3://{bucket}/rivals-dataset/tars/{name}" for name in tars]

    def cached(cache: Path) -> None:
        drain(lambda: ours(address, stream={"cache": str(cache)}), count)

    def emptied() -> None:
        shutil.rmtree(cold, ignore_errors=True)
        cached(cold)

    runs: Runs = {
        "ours": lambda: drain(lambda: ours(address), count),
        "cold": emptied,
        "warm": lambda: cached(folder / "warm"),
        "webdataset": lambda: drain(lambda: rivals.read_webdataset(urls), count),
    }
    if streaming:
        rivals.streaming_from_s3()
        remote = f"s3://{bucket}/rivals-dataset/mds"
        local = folder / "mds-local"
        runs["streaming"] = lambda: drain(lambda: rivals.read_streaming(streaming, local, remote), count)
    return runs


# Going on in the middle


def resume(folder: Path) -> list[Figure]:
    """First batch in the middle of a dataset of a million samples, in a fresh process."""
    target = folder / "million"
    samples = make_million(folder / "dataset", target)
    step = samples // BATCH // 2
    figures = []
    for workers, name in ((0, "loader.resume_seconds"), (2, "loader.resume_seconds_2_workers")):
        command = [sys.executable, __file__, "--first-batch", str(target), str(step), str(workers)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(3)
        ]
        seconds, imports = (statistics.median(run[key] for run in runs) for key in ("seconds", "imports"))
        note = f"{samples:,} samples in {runs[0]['shards']:,} shards; imports besides: {imports:.1f} s"
        if workers == 0:
            note += (
                f"; read {runs[0]['reads']} samples, all of this batch, and {runs[0]['indexes']} indexes"
            )
        figures.append(Figure(name, seconds, "s", "", "< 2" if workers == 0 else "", note))
    return figures


def make_million(source: Path, target: Path) -> int:
    """A dataset whose shards are links to a small one's, again and again; returns its samples."""
    target.mkdir()
    manifest = load_data(recipe(str(source))).sources[0].manifest
    shards = []
    for number in range(-(-MILLION * len(manifest.shards) // manifest.samples)):
        shard = manifest.shards[number % len(manifest.shards)]
        names = [f"shard-{number:06d}.{ending}" for ending in ("tar", "idx")]
        for name, original in zip(names, (shard.path, shard.index.path), strict=True):
            os.link(source / original, target / name)
        index = shard.index.model_copy(update={"path": names[1]})
        shards.append(shard.model_copy(update={"path": names[0], "index": index}))
    samples = sum(shard.samples for shard in shards)
    values = {"shards": tuple(shards), "samples": samples, "found": samples, "rejected": 0, "duplicates": 0}
    large = manifest.model_copy(update=values).sealed()
    (target / "manifest.json").write_bytes(large.to_bytes())
    return samples


def first_batch(address: str, step: str, workers: str) -> None:
    """In a fresh process: time the first batch at a step; print that, and what was read for it, as JSON."""
    import psutil

    imports = time.time() - psutil.Process().create_time()
    config = recipe(address, workers=int(workers))
    if config.workers:
        imports += start_loaders()
    reads = watch_reads()
    start = time.perf_counter()
    data = load_data(config)
    place = {"rank": 0, "world_size": 1, "first_step": int(step), "last_step": int(step) + 100}
    batch = next(iter(stream(config, data, **place)))
    seconds = time.perf_counter() - start
    known = SampleReader(data, config.stream)
    places = set()
    for sample in batch.plan.samples.tolist():
        number, position = known.locate(sample)
        offset = int(known.indexes.places(number).offsets[position])
        places.add((str(Path(data.where(number)).resolve()), offset))
    if not config.workers:
        assert set(reads) == places, "something else than the batch's samples was read"
    requests = int(batch.counts[1])
    figures = {"seconds": seconds, "imports": imports, "shards": len(data.shards)}
    print(json.dumps(figures | {"reads": len(reads), "indexes": requests}), flush=True)
    os._exit(0)  # loader processes end with this one


def start_loaders() -> float:
    """Have the server of loader processes ready, as training has by then; seconds that took."""
    import multiprocessing

    from hvc.pretrain.data.loaders import CONTEXT, start_server

    start = time.perf_counter()
    start_server()
    process = multiprocessing.get_context(CONTEXT).Process(target=int)
    process.start()
    process.join()
    return time.perf_counter() - start


def watch_reads() -> list[tuple[str, int]]:
    """(file, offset) of all reads at a position from now on."""
    seen: list[tuple[str, int]] = []
    read = os.pread

    def pread(file: int, length: int, offset: int) -> bytes:
        seen.append((str(Path(f"/proc/self/fd/{file}").readlink()), offset))
        return read(file, length, offset)

    os.pread = pread
    return seen


# Shuffling


def shuffle(address: str, rounds: int) -> list[Figure]:
    """What the shuffled order costs beside the manifest's, and how well it mixes."""
    count = load_data(recipe(address)).samples
    seconds = medians(
        {
            "shuffled": lambda: drain(lambda: ours(address), count),
            "plain": lambda: drain(lambda: ours(address, shuffle=False), count),
        },
        rounds,
    )
    sizes = [1000] * (MILLION // 1000)
    config = recipe(address)
    mixed = shuffle_quality.Layout(sizes)
    plan = plan_run(config, load_data(config))
    order = RunOrder(type(plan)(tuple(sizes), 1024, 0, plan.shuffle)).epoch(0)
    quality = shuffle_quality.measure(order, mixed)
    uniform = shuffle_quality.measure_uniform(quality.samples, mixed)
    cost = shuffle_quality.read_cost(order, 8, 4)
    note = f"{MILLION:,} samples in shards of 1,000, batch 1,024"
    return [
        Figure(
            "loader.shuffle_cost",
            seconds["shuffled"] / seconds["plain"],
            "x",
            f"the manifest's order, {count / seconds['plain']:,.0f} samples/s",
            note=f"time from disk; shuffled {count / seconds['shuffled']:,.0f} samples/s",
        ),
        Figure(
            "loader.shuffle_neighbour_pairs",
            quality.neighbour_pairs,
            "per batch",
            f"uniform {uniform.neighbour_pairs:.3f}",
            note=note,
        ),
        Figure(
            "loader.shuffle_shard_entropy", quality.entropy, "", f"uniform {uniform.entropy:.3f}", note=note
        ),
        Figure("loader.shuffle_requests", cost.requests, "per 1,000 samples", note="8 ranks x 4 workers"),
    ]


if __name__ == "__main__":
    main()
