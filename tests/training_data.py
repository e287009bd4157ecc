"""Sharded datasets of any size and kind, written without the sharding stage."""

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hvc.data_prep import tar
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import FileRef, Made, Manifest, Shard

Runs = Sequence[tuple[str | None, int]]
"""Consecutive samples: name of the video or None, and how many."""


def numbered(number: int, size: tuple[int, int] = (40, 32)) -> bytes:
    """A small image that tells its number (below 65,536) by its colours, see `number_of`."""
    colour = (number // 256, number % 256, 128)
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def number_of(pixels: np.ndarray) -> int:
    """What `numbered` wrote, from uint8 [..., 3] of any crop."""
    red, green, _ = (int(value) for value in pixels.reshape(-1, 3)[0])
    return 256 * red + green


def pictures(count: int, seed: int = 0) -> list[bytes]:
    """JPEGs of several sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        width, height = (int(x) for x in rng.integers(48, 120, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found


def write_dataset(
    folder: Path, images: Sequence[bytes], per_shard: int, runs: Runs = (), name: str = "made"
) -> Manifest:
    """A dataset of these images, in order."""
    folder.mkdir(parents=True)
    shards = tuple(
        _write_shard(folder, start // per_shard, start, images[start : start + per_shard])
        for start in range(0, len(images), per_shard)
    )
    made = Made(order="input", seed=0, target_mb=1, min_shards=1, max_pixels=10**8, input="0" * 64, hvc="0")
    manifest = Manifest(
        name=name,
        source="folder",
        made=made,
        samples=len(images),
        found=len(images),
        rejected=0,
        shards=shards,
        groups=_write_runs(folder, runs) if runs else None,
    ).sealed()
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest


def _write_shard(folder: Path, number: int, first: int, images: Sequence[bytes]) -> Shard:
    content, samples = bytearray(), []
    for sample, image in enumerate(images, first):
        key, ext = f"{sample:09d}", "png" if image.startswith(b"\x89PNG") else "jpg"
        places = {}
        for ending, data in sorted({ext: image, "json": b'{"path": "x"}'}.items()):
            content += tar.header(f"{key}.{ending}", len(data))
            places[ending] = (len(content), len(data), zlib.crc32(data))
            content += data + tar.padding(len(data))
        samples.append((key, places))
    content += tar.end(len(content))
    index = ShardIndex.build(samples).to_bytes()
    stem = f"shard-{number:06d}"
    (folder / f"{stem}.tar").write_bytes(content)
    (folder / f"{stem}.idx").write_bytes(index)
    return Shard(
        path=f"{stem}.tar",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        samples=len(samples),
        index=FileRef(path=f"{stem}.idx", sha256=hashlib.sha256(index).hexdigest()),
    )


def _write_runs(folder: Path, runs: Runs) -> FileRef:
    data = "".join(json.dumps(run) + "\n" for run in runs).encode()
    (folder / "groups.jsonl").write_bytes(data)
    return FileRef(path="groups.jsonl", sha256=hashlib.sha256(data).hexdigest())
