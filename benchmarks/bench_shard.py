"""Sharding against `tar`, bare decoding, webdataset's writer and a plain upload, side by side in one run.

The photos (real JPEGs of about 75 kB, the page cache warm) are tiles of those that installed packages
ship, or those of `--photos`. Worker processes are those of the stage, started before the clock; both sides
write to the same folder and neither waits for the disk. The uploads time the whole stage, start included.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from form import Figure, report
from PIL import Image

from hvc.base.stage import Provenance, never
from hvc.data_prep import plan
from hvc.data_prep.catalog import Catalog, Record
from hvc.data_prep.delivery import THREADS
from hvc.data_prep.folder_tree import FolderTree
from hvc.data_prep.images import Gate
from hvc.data_prep.pool import Workers
from hvc.data_prep.shard import InputConfig, ShardConfig, run
from hvc.data_prep.writer import Task, write_shard
from hvc.demo.photos import TRAINING, open_photo, plan_tiles, split_count

COUNT, RUNS, SHARD_MB = 5000, 7, 100
SIDES, QUALITIES = (375, 500, 640), (90, 94, 96)
LOAD = ("hvc.data_prep.writer", "hvc.data_prep.decoding")
PACKAGES = ("webdataset", "pillow", "boto3")
MILLIONS = 14

Times = dict[str, float]


def main() -> None:
    """Measure everything and report it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to use instead of tiles")
    parser.add_argument("--count", type=int, default=COUNT, help="how many tiles to make")
    parser.add_argument("--folder", type=Path, help="where to write (the system's temporary folder)")
    parser.add_argument("--only", default="", help="comma-separated: copy, check, s3, plan, memory")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else ["copy", "check", "s3", "plan", "memory"]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        photos = args.photos or make_photos(folder / "photos", args.count)
        (folder / "out").mkdir()
        bench = Bench(photos.absolute(), folder / "out")
        figures: list[Figure] = []
        for part in wanted:
            figures += getattr(bench, part)()
    report("shard", figures, packages=PACKAGES)


def make_photos(folder: Path, count: int) -> Path:
    """Write `count` JPEGs of several sizes and qualities; the same ones each time."""
    folder.mkdir()
    shares = split_count(count, [photo.share for photo in TRAINING])
    for photo, tiles in zip(TRAINING, shares, strict=True):
        image = open_photo(photo)
        for number, box in enumerate(plan_tiles(image.size, tiles)):
            scale = SIDES[number % 3] / max(box[2] - box[0], box[3] - box[1])
            size = (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale))
            tile = image.resize(size, Image.Resampling.LANCZOS, box)
            tile.save(folder / f"{photo.name}_{number:04d}.jpg", quality=QUALITIES[number // 3 % 3])
    return folder


class Bench:
    """The photos, where to write, and what is measured with them."""

    def __init__(self, photos: Path, out: Path) -> None:
        self._photos, self._out = photos, out
        self._tree = FolderTree(str(photos))
        self._records = [Record(entry.path, entry.size) for entry in self._tree.entries()]
        self._bytes = sum(record.size for record in self._records)
        self._note = f"{len(self._records)} photos of {self._bytes / len(self._records) / 1e3:.0f} kB"
        self._names = out.parent / "names"
        self._names.write_text("".join(f"{record.path}\n" for record in self._records))
        for record in self._records:  # into the page cache
            self._tree.read(record.entry)

    def copy(self) -> list[Figure]:
        """Without a look inside: against tar and against webdataset's writer."""
        import webdataset  # noqa: F401 (before the clock starts: it loads torch)

        gate = Gate("none")
        with Workers(1, LOAD) as one, Workers(2, LOAD) as two:
            sides: dict[str, Callable[[], object]] = {
                "tar": self._tar,
                "one": partial(self._shards, one, gate),
                "two": partial(self._shards, two, gate),
                "writer": self._shard_writer,
            }
            times = self._in_turn(sides)
        speed = self._bytes / times["one"] / 1e6
        tar = f"tar cf, {self._bytes / times['tar'] / 1e6:.0f} MB/s"
        writer = f"webdataset.ShardWriter, {self._bytes / times['writer'] / 1e6:.0f} MB/s"
        return [
            Figure("shard.copy_mb_per_second", speed, "MB/s", note=f"{self._note}, 1 process"),
            Figure("shard.copy_vs_tar_1", times["tar"] / times["one"], "x", tar, "> 0.5", "1 process"),
            Figure("shard.copy_vs_tar_2", times["tar"] / times["two"], "x", tar, "> 0.9", "2 processes"),
            Figure(
                "shard.vs_shardwriter", times["writer"] / times["one"], "x", writer, "> 1.5", "1 process"
            ),
        ]

    def check(self) -> list[Figure]:
        """With every image decoded: against decoding alone."""
        with Workers(1, LOAD) as one:
            sides = {"full": partial(self._shards, one, Gate()), "decode": self._decode}
            times = self._in_turn(sides, runs=3)
        count = len(self._records)
        alone = f"Pillow alone, {count / times['decode']:.0f} images/s"
        ratio = times["decode"] / times["full"]
        return [
            Figure("shard.checked_per_second", count / times["full"], "images/s", note="1 process"),
            Figure("shard.checked_vs_decode", ratio, "x", alone, "> 0.85", "1 process"),
        ]

    def s3(self) -> list[Figure]:
        """The whole stage to S3, start and listing included: against uploads of finished files."""
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        from services.install import S3_COMMANDS, missing_packages
        from services.s3 import S3Server

        if missing_packages(S3_COMMANDS):
            print("shard.s3_vs_upload is left out: no radosgw here")
            return []
        with tempfile.TemporaryDirectory() as state:
            server = S3Server(Path(state))
            try:
                return self._uploads(server)
            finally:
                server.close()

    def plan(self) -> list[Figure]:
        """Catalog, digest and plan of millions of records, in a process of their own."""
        command = [sys.executable, __file__, "--plan"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        seconds, gigabytes = json.loads(answer)
        name, note = f"shard.plan_{MILLIONS}m", f"{MILLIONS} million records, digest included"
        return [
            Figure(f"{name}_seconds", seconds, "s", asked="< 60", note=note),
            Figure(f"{name}_gb", gigabytes, "GB", asked="< 4", note=note),
        ]

    def memory(self) -> list[Figure]:
        """The largest worker, given photos and the largest images that a worker accepts."""
        large = self._out.parent / "large"
        make_large(large)
        tree = FolderTree(str(large))
        records = [Record(entry.path, entry.size) for entry in tree.entries()] + [
            record._replace(input=1) for record in self._records[:1000]
        ]
        with Workers(2, LOAD) as workers:
            for gate in (Gate(), Gate(max_side=512)):
                tasks = [
                    Task(f"m{i}", tuple(enumerate(records)), (tree, self._tree), gate) for i in range(2)
                ]
                made = list(workers.run(partial(write_shard, folder=self._out), tasks, never))
                assert not any(record.rejects for record in made), made
            peak = max(peaks_of_children())
        note = "72 Mpx JPEG, 32 Mpx progressive, 45 Mpx PNG, 12 Mpx WebP, 63 MB BMP"
        return [Figure("shard.peak_mb", peak, "MB", asked="< 300", note=note)]

    def _in_turn(self, sides: dict[str, Callable[[], object]], runs: int = RUNS) -> Times:
        """Median seconds of each; the first round only warms up."""
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(runs + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                side()
                times[name].append(time.perf_counter() - start)
                self._empty()
        return {name: statistics.median(taken[1:]) for name, taken in times.items()}

    def _empty(self) -> None:
        shutil.rmtree(self._out)
        self._out.mkdir()

    def _shards(self, workers: Workers, gate: Gate) -> None:
        tasks = self._tasks(gate, workers.count)
        make = partial(write_shard, folder=self._out, thread=workers.count == 1)
        made = list(workers.run(make, tasks, never))
        assert sum(record.shard.samples for record in made if record.shard) == len(self._records)

    def _tasks(self, gate: Gate, multiple: int) -> list[Task]:
        shards = -(-self._bytes // (SHARD_MB * 10**6))
        shards += -shards % multiple  # so that all processes are busy to the end
        return [
            Task(plan.shard_name(i), tuple(enumerate(self._records))[i::shards], (self._tree,), gate)
            for i in range(shards)
        ]

    def _tar(self) -> None:
        target = self._out / "all.tar"
        command = ["tar", "--create", "--file", target, "--directory", self._photos]
        subprocess.run([*command, "--files-from", self._names], check=True)

    def _shard_writer(self) -> None:
        from webdataset import ShardWriter

        pattern = str(self._out / "shard-%06d.tar")
        with ShardWriter(pattern, maxsize=SHARD_MB * 10**6, verbose=0) as sink:
            for number, record in enumerate(self._records):
                data = (self._photos / record.path).read_bytes()
                sink.write({"__key__": plan.key(number), "jpg": data, "json": {"path": record.path}})

    def _decode(self) -> None:
        for record in self._records:
            with Image.open(self._photos / record.path) as image:
                image.load()

    def _uploads(self, server: "S3Server") -> list[Figure]:  # noqa: F821 (of the tests)
        import os

        os.environ.update(server.env)
        inputs = (InputConfig(source="folder", address=str(self._photos)),)
        options = {"inputs": inputs, "check": "none", "workers": 2, "target_mb": 25}
        run(ShardConfig(output=f"{self._out}/ready", **options), never, Provenance())
        ready = shutil.move(self._out / "ready", self._out.parent / "ready")
        buckets = iter(range(1000))

        def stage() -> None:
            address = server.bucket(f"stage-{next(buckets)}")
            run(ShardConfig(output=address, **options), never, Provenance())

        def plain() -> None:
            bucket = server.bucket(f"plain-{next(buckets)}").removeprefix("s3://")
            client = server.client()
            with ThreadPoolExecutor(THREADS) as threads:
                names = sorted(path.name for path in Path(ready).iterdir())
                list(threads.map(lambda name: client.upload_file(f"{ready}/{name}", bucket, name), names))

        times = self._in_turn({"stage": stage, "plain": plain}, runs=3)
        upload = f"boto3 upload_file, {THREADS} threads, {self._bytes / times['plain'] / 1e6:.0f} MB/s"
        ratio = times["plain"] / times["stage"]
        return [Figure("shard.s3_vs_upload", ratio, "x", upload, "> 0.8", "whole stage, 25 MB shards")]


def make_large(folder: Path) -> None:
    """The largest images of each kind that pass the gate."""
    folder.mkdir()
    for name, size, options in (
        ("a.jpg", (9000, 8000), {}),
        ("b.jpg", (5700, 5600), {"progressive": True, "subsampling": 0}),
        ("c.png", (7000, 6500), {"compress_level": 1}),
        ("d.webp", (4000, 3000), {"method": 0}),
        ("e.bmp", (5000, 4200), {}),
    ):
        Image.new("RGB", size, (200, 100, 50)).save(folder / name, **options)


def peaks_of_children() -> Iterator[float]:
    """Largest resident memory so far, in 10^6 bytes, of each child process."""
    import psutil

    for child in psutil.Process().children():
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        yield int(peak) * 1024 / 1e6


def plan_millions() -> None:
    """Print seconds and peak GB of planning a dataset of the size of ImageNet-21k."""
    start = time.perf_counter()
    classes, per_class = 14_000, MILLIONS * 10**6 // 14_000
    records = (
        Record(f"n{c:08d}/n{c:08d}_{i:05d}.JPEG", 100_000 + i, label=f"n{c:08d}")
        for c in range(classes)
        for i in range(per_class)
    )
    catalog = Catalog.build([(FolderTree("/"), records)])
    catalog.digest()
    shards = plan.plan_shards(len(catalog), catalog.total_bytes, 100)
    assert len(shards) > 10_000
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps([seconds, int(peak) * 1024 / 1e9]))


if __name__ == "__main__":
    plan_millions() if sys.argv[1:] == ["--plan"] else main()
