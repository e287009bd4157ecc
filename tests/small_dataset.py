"""A small dataset with every kind of file that the manifest knows."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from training_data import write_dataset

from hvc.data_prep.manifest import FileRef, Manifest

RUNS = (("one", 5), (None, 2), ("two", 4))
"""Samples that belong to a video."""

SAMPLES = sum(count for _, count in RUNS)
PER_SHARD = 4


@dataclass
class SmallDataset:
    """Where it lies, and what was put in."""

    folder: Path
    manifest: Manifest
    images: list[bytes]
    """Content of the samples' images, in order."""

    def files(self) -> dict[str, bytes]:
        """Name -> content."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def picture(seed: int, image_format: str = "JPEG", size: tuple[int, int] = (48, 32)) -> bytes:
    """A small image file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, image_format)
    return buffer.getvalue()


def make_small_dataset(folder: Path) -> SmallDataset:
    """Eleven samples in three shards, two videos, one reject, one duplicate."""
    images = [picture(i, "PNG" if i == 3 else "JPEG") for i in range(SAMPLES)]
    manifest = write_dataset(folder, images, PER_SHARD, RUNS, "small")
    rejects = _write_line(folder / "rejects.jsonl", {"path": "bad.jpg", "reason": "empty file"})
    same = _write_line(folder / "duplicates.jsonl", {"path": "again.jpg", "same_as": "image 0.jpg"})
    lists = {"rejected": 1, "rejects": rejects, "duplicates": 1, "duplicates_list": same}
    manifest = manifest.model_copy(update={**lists, "found": SAMPLES + 2}).sealed()
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return SmallDataset(folder, manifest, images)


def _write_line(path: Path, line: object) -> FileRef:
    path.write_text(json.dumps(line) + "\n")
    return FileRef(path=path.name, sha256=sha256(path.read_bytes()))


def resealed(folder: Path) -> None:
    """Rewrite the manifest so that sizes and hashes are those of the files as they are now."""
    path = folder / "manifest.json"
    plain = json.loads(path.read_bytes())
    references = [plain[key] for key in ("rejects", "duplicates_list", "groups") if plain.get(key)]
    for shard in plain["shards"]:
        content = (folder / shard["path"]).read_bytes()
        shard.update(bytes=len(content), sha256=sha256(content))
        references.append(shard["index"])
    for reference in references:
        reference["sha256"] = sha256((folder / reference["path"]).read_bytes())
    path.write_bytes(Manifest.model_validate({**plain, "digest": ""}).sealed().to_bytes())


def with_counts_and_digest(plain: dict[str, object]) -> dict[str, object]:
    """The plain data of a manifest, with sums and digest made to fit, where that can be done."""
    try:
        shards = plain["shards"]
        plain["samples"] = sum(shard["samples"] for shard in shards)
        plain["found"] = plain["samples"] + plain["rejected"] + plain["duplicates"]
        hashes = [[shard["sha256"], shard["samples"]] for shard in shards]
        values = [plain["format"], plain["version"], plain["samples"], hashes]
        plain["digest"] = sha256(json.dumps(values, separators=(",", ":")).encode())
    except (KeyError, TypeError):
        return plain  # it was changed too much; that is a case, too
    return plain
