"""Every kind of good file passes, every kind of bad file gets a reason."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hvc.data_prep import decoding
from hvc.data_prep.images import Gate, ImageInfo, Reject, check


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
    assert check(data, Gate(max_pixels=96 * 64)) == ImageInfo(96, 64, "JPEG", "jpg")
    assert check(data, Gate(max_pixels=96 * 64 - 1)) == Reject("more than 6143 pixels")
    assert check(data, Gate(max_pixels=10)) == Reject("more than 10 pixels")
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
        answer = check(bytes(data[: int(keep * len(data))]), Gate(max_pixels=10**6))
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


def opened(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    return image


NONE, HEADER = Gate(check="none"), Gate(check="header")


@pytest.mark.parametrize(
    ("image_format", "ext"),
    [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")],
)
def test_each_check_looks_as_far_as_it_says(encode, image_format, ext):
    data = encode(image_format)
    cut = data[: len(data) * 2 // 3]
    assert check(data, NONE) == ImageInfo(None, None, image_format, ext)
    assert check(data, HEADER) == check(data) == ImageInfo(96, 64, image_format, ext)
    assert check(cut, NONE) == check(data, NONE)
    if image_format not in ("WEBP", "TIFF"):  # which Pillow refuses to open at all when cut short
        assert check(cut, HEADER) == check(data, HEADER)
    assert isinstance(check(cut), Reject)
    assert check(data[:18] + b"\xff" * 100, HEADER).reason.startswith("cannot be decoded")


@pytest.mark.parametrize("gate", [NONE, HEADER, Gate()])
def test_what_is_no_image_passes_no_check(gate, encode):
    assert check(b"", gate) == Reject("empty file")
    for data in (b"text", b"BM\0 of a text", b"RIFF\0\0\0\0AVI ", encode("GIF"), b"\xff\xd8", b"II*"):
        assert check(data, gate) == Reject("not an image, or of an unknown format")


def test_a_check_without_a_look_inside_loads_no_pillow():
    program = (
        "import sys; from hvc.data_prep.images import Gate, check; "
        "print(check(b'\\xff\\xd8\\xff', Gate('none')).ext, 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["jpg", "False"]


def test_limits_hold_for_the_header_too(encode):
    assert check(encode("PNG"), Gate("header", max_pixels=6143)) == Reject("more than 6143 pixels")
    assert "32-bit float" in check(encode("TIFF", mode="F"), HEADER).reason


@pytest.mark.parametrize("progressive", [False, True])
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_a_jpeg_decoded_at_an_eighth_is_judged_as_if_decoded_whole(encode, progressive, changes, keep):
    data = bytearray(encode("JPEG", progressive=progressive))
    for place, value in changes:
        data[int(place * len(data))] = value
    data = bytes(data[: int(keep * len(data))])
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            large = image.width * image.height > 10**6
            if not large:
                image.load()
        good = not large
    except Exception:  # noqa: BLE001
        good = False
    assert isinstance(check(data, Gate(max_pixels=10**6)), ImageInfo) is good


def with_orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_on_their_side_are_noted_and_turned_only_when_encoded_anew(
    encode, image_format, orientation
):
    data = encode(image_format, 3, exif=with_orientation(orientation))
    info = check(data)
    assert (info.width, info.height, info.orientation, info.data) == (96, 64, orientation, None)
    new = check(data, Gate(quality=95))
    upright = ImageOps.exif_transpose(opened(data)).convert("RGB")
    assert (new.width, new.height) == upright.size == opened(new.data).size
    assert (new.orientation, new.ext) == (1, "jpg")
    difference = np.asarray(opened(new.data), float) - np.asarray(upright, float)
    assert np.abs(difference).mean() < 6
    assert not opened(new.data).getexif()


def test_tiff_orientation_is_what_pillow_makes_of_it(encode):
    data = encode("TIFF", tiffinfo={0x0112: 6})
    assert check(data) == check(data, HEADER) == ImageInfo(64, 96, "TIFF", "tif")


def test_damaged_exif_does_not_matter(encode):
    data = encode("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert check(data) == ImageInfo(96, 64, "JPEG", "jpg")
    assert check(encode("JPEG", exif=with_orientation(77))).orientation == 1


def test_of_animations_the_first_picture_counts(encode):
    more = [Image.open(io.BytesIO(encode("PNG", seed))) for seed in (1, 2)]
    for image_format in ("WEBP", "PNG", "TIFF"):
        data = encode(image_format, save_all=True, append_images=more)
        assert check(data) == ImageInfo(96, 64, image_format, image_format.lower()[:4].replace("ff", "f"))
        first = opened(check(data, Gate(quality=95)).data)
        expected = opened(encode("PNG"))
        assert np.abs(np.asarray(first, float) - np.asarray(expected, float)).mean() < 8


@pytest.mark.parametrize(
    ("image_format", "mode", "new_mode"),
    [
        ("JPEG", "RGB", "RGB"),
        ("JPEG", "L", "L"),
        ("JPEG", "CMYK", "RGB"),
        ("PNG", "RGBA", "RGB"),
        ("PNG", "LA", "L"),
        ("PNG", "P", "RGB"),
        ("PNG", "1", "L"),
        ("TIFF", "LAB", "RGB"),
    ],
)
def test_encoding_anew_keeps_what_training_sees(encode, image_format, mode, new_mode):
    data = encode(image_format, 5, mode=mode)
    info = check(data, Gate(quality=95))
    new = opened(info.data)
    assert (info.width, info.height, info.format, info.ext) == (96, 64, "JPEG", "jpg")
    assert (new.format, new.mode, new.size) == ("JPEG", new_mode, (96, 64))
    difference = np.asarray(new.convert("RGB"), float) - np.asarray(opened(data).convert("RGB"), float)
    assert np.abs(difference).mean() < (25 if mode in ("1", "P") else 8)  # dithered dots don't suit JPEG


def test_sixteen_bits_are_scaled_when_encoded_anew():
    grey = np.linspace(0, 65535, 64 * 96).astype(np.uint16).reshape(64, 96)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    new = opened(check(buffer.getvalue(), Gate(quality=95)).data)
    assert np.abs(np.asarray(new, float) - grey / 257).max() < 8


def test_only_larger_images_are_made_smaller(encode):
    small, large = encode("PNG", width=100, height=60), encode("JPEG", width=300, height=200)
    gate = Gate(max_side=100)
    assert check(small, gate) == ImageInfo(100, 60, "PNG", "png")
    info = check(large, gate)
    assert (info.width, info.height, opened(info.data).size) == (100, 67, (100, 67))
    assert check(encode("JPEG", width=900, height=3), gate).height == 1
    expected = opened(large).resize((100, 67), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(opened(info.data), float) - np.asarray(expected, float)).mean() < 5
    fine, coarse = (len(check(large, Gate(max_side=100, quality=q)).data) for q in (98, 30))
    assert coarse < len(info.data) < fine
    assert check(large, Gate("none", max_side=100)).data == info.data
    assert "truncated" in check(large[: len(large) // 2], Gate("none", max_side=100)).reason
    assert check(small, Gate(max_side=100, quality=50)).data is None


def test_encoding_anew_drops_profile_and_comment_and_gives_the_same_bytes_again(encode):
    data = encode("JPEG", icc_profile=b"profile" * 50, comment=b"by me", dpi=(300, 300))
    one, two = (check(data, Gate(quality=90)).data for _ in range(2))
    assert one == two
    assert b"profile" not in one
    assert b"by me" not in one


@pytest.mark.parametrize(
    ("image_format", "mode", "side", "options", "good"),
    [
        ("JPEG", "RGB", 3000, {}, True),
        ("JPEG", "RGB", 800, {"progressive": True, "subsampling": 2}, True),
        ("JPEG", "RGB", 800, {"progressive": True, "subsampling": 0}, False),
        ("PNG", "RGB", 700, {}, True),
        ("PNG", "RGB", 730, {}, False),
        ("PNG", "L", 1300, {}, True),
        ("WEBP", "RGB", 340, {}, True),
        ("WEBP", "RGB", 370, {}, False),
        ("TIFF", "RGB", 600, {"compression": "tiff_adobe_deflate"}, True),
        ("TIFF", "RGB", 600, {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 600}}, False),
    ],
)
def test_what_takes_too_much_memory_is_refused_before_it_is_decoded(
    encode, monkeypatch, image_format, mode, side, options, good
):
    data = encode(image_format, mode=mode, width=side, height=side, **options)
    monkeypatch.setattr(decoding, "_MEMORY", 2_000_000 + len(data))
    answer = check(data)
    assert isinstance(answer, ImageInfo) is good, answer
    if not good:
        assert "a worker may use 2 MB" in answer.reason
        assert isinstance(check(data, HEADER), ImageInfo)


def test_filters_of_warnings_that_others_set_change_nothing(encode):
    odd = encode("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    side = 9470  # more than Pillow warns of, less than our limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(check(odd), ImageInfo)
        assert isinstance(check(png_header(side, side), HEADER), ImageInfo)
