"""JPEGs by simplejpeg are Pillow's to the last bit, and so is what counts as damaged."""

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hvc.pretrain.data import decode as module
from hvc.pretrain.data.decode import UndecodableError, decode, decode_by_pillow, decode_jpeg, decode_pixels
from hvc.pretrain.data.packed import Packer
from hvc.pretrain.data.views import Crop, ViewDraw


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(width * 999 + height).integers(0, 60, (height, width))
    pixels = np.stack([x * 3 + noise, y * 2 + noise, x + y], -1) % 256
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def rgb(pixels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(*pixels.shape, 4)[..., :3]


def check(data: bytes) -> bool:
    """Both ways agree; whether simplejpeg gave anything."""
    fast = decode_jpeg(data)
    try:
        slow = np.asarray(decode_by_pillow(data))
    except UndecodableError:
        assert fast is None
        with pytest.raises(UndecodableError):
            decode(data)
        return False
    assert np.array_equal(np.asarray(decode(data)), slow)
    if fast is not None:
        assert np.array_equal(rgb(fast), slow)
    return fast is not None


SIZES = [(1, 1), (7, 5), (8, 8), (17, 33), (64, 48), (97, 71)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("progressive", [False, True])
def test_all_kinds_of_jpeg_are_pillows(size: tuple[int, int], progressive: bool) -> None:
    for subsampling in (0, 1, 2):
        for quality in (30, 95):
            options = {"subsampling": subsampling, "quality": quality, "progressive": progressive}
            assert check(jpeg(picture(*size), **options))
    assert check(jpeg(picture(*size, "L"), progressive=progressive))
    assert not check(jpeg(picture(*size, "CMYK"), progressive=progressive))


@pytest.mark.shared
def test_photos_are_pillows(shared: Path) -> None:
    for path in sorted((shared / "data" / "photos").iterdir()):
        assert check(path.read_bytes()), path


def test_what_is_damaged_is_what_pillow_says() -> None:
    rng = random.Random(5)
    sources = [jpeg(picture(64, 48), subsampling=s, progressive=p) for s in (0, 2) for p in (False, True)]
    sources.append(jpeg(picture(40, 40, "L"), comment=b"grey"))
    fast = rejected = 0
    for _ in range(3000):
        data = damaged(rng.choice(sources), rng)
        fast += check(data)
        rejected += is_rejected(data)
    assert fast > 100
    assert rejected > 100


def damaged(source: bytes, rng: random.Random) -> bytes:
    data, place = bytearray(source), rng.randrange(len(source))
    kind = rng.randrange(5)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        del data[place : place + rng.randint(1, 30)]
    elif kind == 2:
        data[place] = rng.randrange(256)
    elif kind == 3:
        data[place:place] = bytes([255, rng.randrange(0xC0, 256)])
    else:
        data[rng.randrange(min(len(data), 600))] = rng.choice([0, 1, 2, 3, 4, 8, 16, 255])
    return bytes(data) + (b"\xff\xd9" if rng.random() < 0.3 else b"")


def is_rejected(data: bytes) -> bool:
    try:
        decode_by_pillow(data)
    except UndecodableError:
        return True
    return False


def test_too_large_images_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(picture(64, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2 - 1)
    assert decode_jpeg(data) is None
    with pytest.raises(UndecodableError, match="exceeds limit"):
        decode(data)


def test_without_simplejpeg_the_same_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(picture(97, 71))
    draw = ViewDraw(Crop(5, 7, 50, 60), (0, 0, 1, 1))
    packed = []
    for library in (module.simplejpeg, None):
        monkeypatch.setattr(module, "simplejpeg", library)
        packer = Packer()
        packer.add(decode_pixels(data), (draw, draw))
        packed.append(packer.finish().pixels[:, :3].numpy())
    assert np.array_equal(*packed)
    assert isinstance(decode_pixels(data), Image.Image)


def test_packing_imports_no_pandas() -> None:
    code = """
import sys
from PIL import Image
from hvc.pretrain.data.packed import Packer
from hvc.pretrain.data.views import Crop, ViewDraw
draw = ViewDraw(Crop(0, 0, 8, 8), (0, 0, 1, 1))
packer = Packer()
packer.add(Image.new("RGB", (8, 8)), (draw, draw))
assert len(packer.finish().pixels) == 64
assert "pandas" not in sys.modules
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
