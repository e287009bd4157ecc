"""Small real image files, made anew for each test that asks."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """`encode(format, seed=0, mode="RGB", width=96, height=64, **save_options)` -> bytes of a file."""

    def make(
        image_format: str,
        seed: int = 0,
        mode: str = "RGB",
        width: int = 96,
        height: int = 64,
        **options: object,
    ) -> bytes:
        buffer = io.BytesIO()
        picture(seed, width, height).convert(mode).save(buffer, image_format, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 JPEG files that take a moment to decode; not to be changed."""
    root = tmp_path_factory.mktemp("large")
    for i in range(60):
        picture(i, 1200, 900).save(root / f"picture {i:04d}.JPEG", quality=95)
    return root


@pytest.fixture
def pictures(tmp_path: Path, encode: Callable[..., bytes]) -> Callable[..., Path]:
    """`pictures(count, width=96, height=64)` -> a folder of so many JPEG files, in two sub-folders."""

    def make(count: int, width: int = 96, height: int = 64) -> Path:
        root = tmp_path / "pictures"
        for i in range(count):
            path = root / f"part-{i % 2}" / f"picture {i:04d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode("JPEG", i, width=width, height=height, quality=95))
        return root

    return make
