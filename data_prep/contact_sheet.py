"""A picture of samples spread evenly over a dataset."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import open_store
from hvc.data_prep.decoding import to_eight_bits
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.overview import Look, evenly, look_at, open_image

COLUMNS, ROWS = 8, 6
_CELL, _PICTURE, _CAPTION = 184, (168, 126), 38  # width of a cell; largest thumbnail; height below it
_HEAD, _MARGIN = 48, 12
_PAPER, _INK, _SOFT, _FRAME = "#f7f7f5", "#1d1d1b", "#73736e", "#e6e6e2"


def contact_sheet(address: str, target: Path) -> int:
    """Write the picture of a dataset to `target` (PNG or JPEG by its ending); returns how many it shows."""
    need_picture_name(target)
    store = open_store(address)
    manifest = read_manifest(store)
    if not manifest.samples:
        raise HvcError(f"{store.address}: the dataset has no samples")
    numbers = evenly(manifest, COLUMNS * ROWS)
    count = f"{len(numbers)} of {manifest.samples:,} samples"
    title = f"{manifest.name}   {count}   {len(manifest.shards)} shards   {manifest.digest[:12]}"
    sheet = draw(look_at(store, manifest, numbers), title)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target)
    except OSError as error:
        raise HvcError(f"cannot write {target}: {error.strerror or error}") from None
    return len(numbers)


def need_picture_name(target: Path) -> None:
    """UsageError unless the name ends as one of a picture that can be written."""
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"{target}: name a .png or .jpg file")


def draw(looks: Iterable[Look], title: str) -> Image.Image:
    """Thumbnails in rows, each with key, label or path, and size below."""
    looks = list(looks)
    rows = -(-len(looks) // COLUMNS)
    cell_height = _PICTURE[1] + _CAPTION + 2 * _MARGIN
    size = (COLUMNS * _CELL + 2 * _MARGIN, _HEAD + rows * cell_height + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN + 8, _MARGIN + 4), title, _INK, ImageFont.load_default(18))
    for i, look in enumerate(looks):
        _draw_cell(sheet, pen, look, _MARGIN + i % COLUMNS * _CELL, _HEAD + i // COLUMNS * cell_height)
    return sheet


def _draw_cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, look: Look, left: int, top: int) -> None:
    left, top = left + (_CELL - _PICTURE[0]) // 2, top + _MARGIN
    pen.rectangle((left, top, left + _PICTURE[0] - 1, top + _PICTURE[1] - 1), _FRAME)
    thumbnail = _thumbnail(look)
    shift = [(room - used) // 2 for room, used in zip(_PICTURE, thumbnail.size, strict=True)]
    sheet.paste(thumbnail, (left + shift[0], top + shift[1]))
    small = ImageFont.load_default(12)
    bottom = top + _PICTURE[1]
    name = look.label or look.path.rpartition("/")[2]
    pen.text((left, bottom + 5), _fit(f"{look.key}  {name}", small), _INK, small)
    size, width, height, form, _, _ = look.facts
    pen.text((left, bottom + 21), f"{width} x {height}  {_kilobytes(size)}  {form}", _SOFT, small)


def _thumbnail(look: Look) -> Image.Image:
    try:
        with open_image(look.data) as image:
            image.draft("RGB", (2 * _PICTURE[0], 2 * _PICTURE[1]))  # a JPEG is decoded at a smaller scale
            upright = to_eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except Exception as error:  # noqa: BLE001 (on damaged data decoders raise nearly everything)
        raise HvcError(f"{look.key} cannot be decoded ({error}); run `hvc verify`") from None
    upright.thumbnail(_PICTURE, Image.Resampling.LANCZOS)
    return upright


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(text.split())  # a file name may hold a line break
    if font.getlength(text) <= _PICTURE[0]:
        return text
    while text and font.getlength(text + "...") > _PICTURE[0]:
        text = text[:-1]
    return text + "..."


def _kilobytes(size: int) -> str:
    return f"{size / 1000:.0f} kB" if size >= 10_000 else f"{size / 1000:.1f} kB"
