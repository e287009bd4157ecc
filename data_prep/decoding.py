"""What the quality gate does with Pillow: open, decode completely, encode anew."""

import ctypes
import io
import warnings

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from hvc.data_prep.images import FORMATS, QUALITY, Gate, ImageInfo, Reject

_RANGELESS = {"I": "32-bit integer", "F": "32-bit float"}  # Pillow's modes
_GREY = frozenset({"1", "L", "LA", "La"})

_MEMORY = 200_000_000  # bytes for a file and its decoder together: a worker has 300 MB for everything
_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # bytes; else 4
_MUCH = 32_000_000  # bytes from which on it pays to tidy up first
_WEBP_CODEC = 12  # bytes per pixel that its decoder holds beside the raster
_TIFF_CODEC = 8  # at most, per pixel of a strip or row of tiles
_ROWS_PER_STRIP, _TILE_LENGTH = 278, 323  # tags of TIFF

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def examine(data: bytes, image_format: str, gate: Gate) -> ImageInfo | Reject:
    """Put an image whose bytes begin like `image_format` through the gate; see `images.check`."""
    # What Pillow warns of (odd EXIF, large images) is judged here or harmless. Said again each time,
    # as others may reset the filters; a context per image would cost more and is not thread-safe.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
            return _judge(image, data, gate)
    except UnidentifiedImageError:
        return Reject("cannot be decoded: its header is damaged")
    except Image.DecompressionBombError:
        return Reject(_too_many(gate))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (on damaged data decoders raise nearly everything)
        return Reject(f"cannot be decoded: {_one_line(error)}")


def _judge(image: ImageFile.ImageFile, data: bytes, gate: Gate) -> ImageInfo | Reject:
    size, image_format = image.size, image.format or ""
    if size[0] * size[1] > gate.max_pixels:
        return Reject(_too_many(gate))
    if image.mode in _RANGELESS:
        return Reject(f"{_RANGELESS[image.mode]} samples have no fixed range to show as colours")
    anew = gate.reencodes(max(size))
    if anew or gate.check == "full":
        _plan_decoding(image, gate, anew)
        need = len(data) + _decoder_bytes(image, size, data, anew)
        if need > _MEMORY:
            return Reject(
                f"decoding it takes {need // 1_000_000} MB, a worker may use {_MEMORY // 1_000_000} MB: "
                "make the image smaller, or shard with check=header"
            )
        if need > _MUCH:
            _release_free_memory()
        image.load()
    orientation = _orientation(image)  # only now: a PNG may have its EXIF after the pixels
    if anew:
        return _encoded_anew(image, size, orientation, gate)
    return ImageInfo(*size, image_format, FORMATS[image_format], orientation)


def _plan_decoding(image: ImageFile.ImageFile, gate: Gate, anew: bool) -> None:
    """Have a JPEG decoded at the smallest scale that serves; other formats know no scales.

    Libjpeg reads every bit of the file at any scale, so a check finds the same damage at an eighth,
    sooner and with a fraction of the memory.
    """
    if not anew:
        image.draft(None, (1, 1))
    elif gate.max_side is not None:
        image.draft(None, _fitted(image.size, 2 * gate.max_side))


def _decoder_bytes(image: ImageFile.ImageFile, size: tuple[int, int], data: bytes, anew: bool) -> int:
    """About how much memory decoding takes; `size` is the file's, `image` may give a smaller raster."""
    raster = image.width * image.height * _PER_PIXEL.get(image.mode, 4)
    if anew and (image.mode not in ("L", "RGB") or _orientation(image) != 1):
        raster *= 2  # to change it, a second one is made
    return raster + _codec_bytes(image, size, data)


def _codec_bytes(image: ImageFile.ImageFile, size: tuple[int, int], data: bytes) -> int:
    """What the decoder itself holds of an image of `size` beside the raster, if it is much."""
    width, height = size
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _has_several_scans(image, data):
        parts = [(layer[1], layer[2]) for layer in image.layer]  # samples down and across per unit
        unit = max(down for down, _ in parts) * max(across for _, across in parts)
        return sum(2 * width * height * down * across // unit for down, across in parts)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        return width * min(height, tags.get(_TILE_LENGTH, tags.get(_ROWS_PER_STRIP, height))) * _TIFF_CODEC
    return width * height * _WEBP_CODEC if image.format == "WEBP" else 0


def _has_several_scans(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Whether libjpeg must keep all coefficients (16 bits each): progressive, or one scan per colour."""
    if image.info.get("progressive"):
        return True
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[at + 4 : at + 5] != bytes([image.layers])


def _release_free_memory() -> None:
    """Give back what earlier images left behind: the C library keeps freed memory in gaps of its heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


def _encoded_anew(
    image: Image.Image, size: tuple[int, int], orientation: int, gate: Gate
) -> ImageInfo | Reject:
    """The image upright, in 8-bit grey or RGB, no larger than asked for, without EXIF or profile.

    Training applies no colour profile, so none is kept.
    """
    image = to_eight_bits(image)
    if gate.max_side is not None:
        image = image.resize(_fitted(size, gate.max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    image.info = {}  # else its comment would be written
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY if gate.quality is None else gate.quality)
    data = buffer.getvalue()
    return ImageInfo(*image.size, "JPEG", FORMATS["JPEG"], data=data, turned=orientation)


def fit_mask(data: bytes, size: tuple[int, int], turned: int) -> bytes | Reject:
    """A PNG mask for an image that was turned (EXIF number) and scaled to `size`; ids and palette stay."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as mask:
            mask.load()
            fitted = mask.transpose(_UPRIGHT[turned]) if turned in _UPRIGHT else mask.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Reject(f"cannot be decoded: {_one_line(error)}")
    fitted = fitted.resize(size, Image.Resampling.NEAREST)
    fitted.info = {}
    buffer = io.BytesIO()
    fitted.save(buffer, "PNG")
    return buffer.getvalue()


def to_eight_bits(image: Image.Image) -> Image.Image:
    """8-bit grey (L) or RGB of any mode; 16-bit grey is scaled (Pillow itself would cut it off at 255)."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    mode = "L" if image.mode in _GREY else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size with the longer edge `side` pixels, of the same shape; never larger."""
    longest = max(size)
    if longest <= side:
        return size
    width, height = (max(1, round(edge * side / longest)) for edge in size)
    return width, height


def _orientation(image: Image.Image) -> int:
    """EXIF's number 1-8; 1 where there is none, it is damaged, or Pillow has applied it (TIFF)."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 (on damaged EXIF Pillow raises nearly everything)
        return 1
    return value if value in _UPRIGHT else 1


def _too_many(gate: Gate) -> str:
    return f"more than {gate.max_pixels} pixels"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
