"""Every kind of good file passes, every kind of bad file gets a reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvc.data_prep.images import ImageInfo, Reject, check


@pytest.mark.parametrize(
    ("image_format", "mode", "ext"),
    [
        ("JPEG", "RGB", "jpg"),
        ("JPEG", "L", "jpg"),
        ("JPEG", "CMYK", "jpg"),
        ("PNG", "RGBA", "png"),
        ("PNG", "P", "png"),
        ("PNG", "1", "png"),
        ("WEBP", "RGB", "webp"),
        ("BMP", "RGB", "bmp"),
        ("TIFF", "CMYK", "tif"),
        ("TIFF", "LAB", "tif"),
    ],
)
def test_good_images_of_all_kinds(encode, image_format, mode, ext):
    assert check(encode(image_format, mode=mode)) == ImageInfo(96, 64, image_format, ext)


def test_sixteen_bits_are_kept():
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 10).save(buffer, "PNG")
    assert check(buffer.getvalue()) == ImageInfo(96, 64, "PNG", "png")


def test_a_jpeg_of_several_pictures_is_a_jpeg(encode):
    more = Image.open(io.BytesIO(encode("JPEG", 1)))
    data = encode("MPO", save_all=True, append_images=[more])
    assert check(data) == ImageInfo(96, 64, "MPO", "jpg")


def png_header(width, height):
    """A PNG that promises a size and holds nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 20_000, 60_000])
def test_a_bomb_is_refused_without_decoding_it(side):
    assert check(png_header(side, side)) == Reject("more than 100000000 pixels")


def test_the_limit_is_ours_not_pillows(encode):
    data = encode("JPEG")
    assert check(data, max_pixels=96 * 64) == ImageInfo(96, 64, "JPEG", "jpg")
    assert check(data, max_pixels=96 * 64 - 1) == Reject("more than 6143 pixels")
    assert check(data, max_pixels=10) == Reject("more than 10 pixels")
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_bad_files_get_their_reason(encode):
    jpeg, png = encode("JPEG"), encode("PNG")
    assert check(b"") == Reject("empty file")
    assert check(b"just text\n") == Reject("not an image, or of an unknown format")
    assert check(encode("GIF")) == Reject("not an image, or of an unknown format")
    assert "truncated" in check(jpeg[: len(jpeg) // 2]).reason
    assert "truncated" in check(png[: len(png) // 2]).reason
    assert "32-bit float samples have no fixed range" in check(encode("TIFF", mode="F")).reason
    assert "32-bit integer" in check(encode("TIFF", mode="I")).reason
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    assert "cannot be decoded" in check(bytes(damaged)).reason


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_no_damage_raises_or_warns(encode, image_format, changes, keep):
    data = bytearray(encode(image_format))
    for place, value in changes:
        data[int(place * len(data))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = check(bytes(data[: int(keep * len(data))]), max_pixels=10**6)
    assert isinstance(answer, ImageInfo | Reject)
    if isinstance(answer, Reject):
        assert answer.reason
        assert "\n" not in answer.reason


def test_nothing_is_printed(encode, capfd):
    tiff = encode("TIFF", compression="tiff_lzw")
    for length in range(0, len(tiff), max(1, len(tiff) // 50)):
        check(tiff[:length])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
