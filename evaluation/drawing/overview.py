"""All sequences of an evaluation on one sheet, worst first."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from hvc.evaluation.drawing.scenes import Scene
from hvc.pretrain.drawing.charts import BLUE, FAINT, INK, PAPER, SOFT

COLUMNS, CELL, MOST = 5, 300, 60
"""Cells in a row, their width in pixels, and cells on a sheet."""
_GAP, _HEAD, _LINE, _CURVE = 12, 40, 22, 44


class Cell(NamedTuple):
    """What is shown of one sequence."""

    scene: Scene
    score: float
    """Percent; what sequences are ordered by."""
    detail: str
    """Further scores in words."""
    curve: Sequence[float]
    """Percent per scored frame; may be empty."""


def overview(cells: Sequence[Cell], title: str) -> Image.Image:
    """The last frame of each sequence, where drift is largest; its scores; their curve over the frames."""
    worst = sorted(cells, key=lambda cell: (cell.score, cell.scene.name))[:MOST]
    left_out = f"   (the worst {MOST} of {len(cells)})" if len(cells) > MOST else ""
    columns = min(COLUMNS, len(worst))
    pictures = [_last_frame(cell.scene) for cell in worst]
    tall = max(picture.height for picture in pictures)
    rows = -(-len(worst) // columns)
    cell_height = 2 * _LINE + tall + _CURVE + _GAP
    width = max(_GAP + columns * (CELL + _GAP), 640)
    sheet = Image.new("RGB", (width, _HEAD + rows * cell_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _HEAD / 2), f"{title}{left_out}", INK, ImageFont.load_default(18), anchor="lm")
    for number, (cell, picture) in enumerate(zip(worst, pictures, strict=True)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (CELL + _GAP), _HEAD + row * cell_height
        _words(pen, cell, left, top)
        sheet.paste(picture, (left, top + 2 * _LINE))
        _sparkline(pen, cell.curve, left, top + 2 * _LINE + picture.height + 4)
    return sheet


def _last_frame(scene: Scene) -> Image.Image:
    picture = scene.propagated(scene.results[-1], scene.scaled(CELL))
    if picture.height > CELL:  # of a video that is higher than wide, as high as a cell is wide
        picture = picture.resize((max(1, round(picture.width * CELL / picture.height)), CELL))
    return picture


def _words(pen: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    bold, small = ImageFont.load_default(16), ImageFont.load_default(13)
    name, score = cell.scene.name, f"{cell.score:.1f}"
    room = CELL - bold.getlength(score) - 12
    while len(name) > 4 and bold.getlength(name) > room:
        name = f"{name[:-2].rstrip('…')}…"
    pen.text((left, top + _LINE / 2), name, INK, bold, anchor="lm")
    pen.text((left + CELL, top + _LINE / 2), score, INK, bold, anchor="rm")
    pen.text((left, top + 1.4 * _LINE), cell.detail, SOFT, small, anchor="lm")


def _sparkline(pen: ImageDraw.ImageDraw, values: Sequence[float], left: int, top: int) -> None:
    height = _CURVE - 12
    for share in (0, 1):
        pen.line((left, top + share * height, left + CELL - 1, top + share * height), FAINT, 1)
    if len(values) < 2:
        return
    step = (CELL - 1) / (len(values) - 1)
    points = [(left + place * step, top + height * (1 - value / 100)) for place, value in enumerate(values)]
    pen.line(points, BLUE, 2)
