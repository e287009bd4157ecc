"""The other ways to load images that `bench_loader.py` measures beside ours, each as its authors show it.

Every reader is a generator of encoded images, in one process: a caller that decodes does so alike for all.
"""

import importlib
import io
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hvc.pretrain.data.views import Crop, draw_crop, sample_rng

STREAMING_VERSION = "0.13.0"
# Without their dependencies, which would bring another torch: what streaming imports, and no more.
_STREAMING = (
    f"mosaicml-streaming=={STREAMING_VERSION}",
    *("Brotli", "python-snappy", "cramjam", "zstd", "xxhash", "catalogue", "torchvision==0.28.0"),
    *("transformers<5", "huggingface_hub<1", "safetensors", "tokenizers==0.22.1", "regex", "hf_xet"),
)
_OPERATORS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

Reader = Callable[[], Iterator[bytes]]


# webdataset


def write_webdataset(images: Iterable[bytes], folder: Path, shard_bytes: int) -> list[Path]:
    """Tars that hold nothing but images, the least that webdataset has to read."""
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxsize=shard_bytes, verbose=0) as writer:
        for number, image in enumerate(images):
            writer.write({"__key__": f"{number:09d}", "jpg": image})
    return sorted(folder.iterdir())


def read_webdataset(urls: list[str]) -> Iterator[bytes]:
    """All images in the order of the tars: without shuffle buffer, which would only cost it time."""
    import webdataset

    data = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    return (sample["jpg"] for sample in data)


def webdataset_from_s3() -> None:
    """Let webdataset open s3:// itself: one GET per tar, streamed in process."""
    import boto3

    client = boto3.client("s3")

    def open_object(url: str, _mode: str = "rb", _size: int = 8192, **_other: Any) -> Any:
        place = urlparse(url)
        body = client.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"]
        return io.BufferedReader(body, 1 << 20)

    # Of this name the package has a function, too, which hides the module.
    importlib.import_module("webdataset.gopen").gopen_schemes["s3"] = open_object


# mosaicml-streaming


def import_streaming(folder: Path) -> Any:
    """The package, from a folder of its own, made when missing; None (and why, on stderr) if that fails."""
    if not (folder / "streaming").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*command, *_STREAMING], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(f"mosaicml-streaming is left out, it cannot be installed: {done.stderr}\n")
            return None
    sys.path.append(str(folder))  # behind our own packages
    # torchvision's compiled half does not fit every torch; its import wants two operators all the same.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("", "q"):
        if not hasattr(torch.ops.torchvision, f"{name}nms"):
            library.define(name + _OPERATORS)
    _libraries.append(library)
    try:
        return importlib.import_module("streaming")
    except Exception as error:  # noqa: BLE001 (a stranger's import may raise anything)
        sys.stderr.write(f"mosaicml-streaming is left out, it cannot be imported: {error}\n")
        return None


_libraries: list[torch.library.Library] = []  # what they define goes with them


def write_streaming(streaming: Any, images: Iterable[bytes], folder: Path, shard_bytes: int) -> None:
    """The images as shards of its own format, without compression."""
    with streaming.MDSWriter(out=str(folder), columns={"image": "bytes"}, size_limit=shard_bytes) as writer:
        for image in images:
            writer.write({"image": image})


def read_streaming(
    streaming: Any, local: Path, remote: str | None = None, *, shuffle: bool = True, batch_size: int = 64
) -> Iterator[bytes]:
    """All images; with `remote` its shards are downloaded into `local`, emptied first."""
    if remote:
        shutil.rmtree(local, ignore_errors=True)
    streaming.base.util.clean_stale_shared_memory()  # a killed run leaves some
    data = streaming.StreamingDataset(
        local=str(local), remote=remote, shuffle=shuffle, batch_size=batch_size, num_canonical_nodes=1
    )
    return (sample["image"] for sample in data)


def streaming_from_s3() -> None:
    """It has a variable of its own for the server."""
    if address := os.environ.get("AWS_ENDPOINT_URL_S3"):
        os.environ["S3_ENDPOINT_URL"] = address


# The official loader


class OfficialDataset(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """What the official code does for an image: open, two random resized crops, tensor, normalise."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self._paths, self._size = paths, size
        self._mean = torch.tensor((0.4914, 0.4822, 0.4465)).view(3, 1, 1)
        self._std = torch.tensor((0.2023, 0.1994, 0.2010)).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with Image.open(self._paths[number]) as file:
            image = file.convert("RGB")
        rng = sample_rng(0, 0, number)
        crops = [draw_crop(*image.size, rng) for _ in range(2)]
        first, second = (self._view(image, crop) for crop in crops)
        boxes = [torch.tensor(crop, dtype=torch.float32) for crop in crops]
        return first, second, boxes[0], boxes[1]

    def _view(self, image: Image.Image, crop: Crop) -> Tensor:
        region = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
        view = region.resize((self._size, self._size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(view, np.uint8, copy=True))
        tensor = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        return tensor.clone().sub_(self._mean).div_(self._std)


def official_batches(paths: list[Path], batch_size: int, size: int = 256) -> Iterator[Any]:
    """Batches of the official loader, in this process."""
    return iter(DataLoader(OfficialDataset(paths, size), batch_size=batch_size, num_workers=0))


def first(samples: Iterator[bytes], count: int) -> list[bytes]:
    """The first images of a reader."""
    return list(itertools.islice(samples, count))
