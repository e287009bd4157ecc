"""A sheet of small pictures in rows, each with words above it."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hvc.pretrain.drawing.charts import INK, PAPER

GAP, HEAD, CAPTION = 12, 34, 22
"""Pixels between pictures, above all of them, and above each."""
Place = tuple[int, int]
"""Left and top in a sheet, in pixels."""


class Sheet:
    """Rows of square cells below a title.

    Args:
        columns, rows: how many cells.
        cell: side of a cell in pixels.
        title: what the sheet shows.
    """

    def __init__(self, columns: int, rows: int, cell: int, title: str) -> None:
        self.cell = cell
        size = (GAP + columns * (cell + GAP), HEAD + rows * (CAPTION + cell + GAP))
        self.image = Image.new("RGB", size, PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.pen.text((GAP, HEAD / 2), title, INK, ImageFont.load_default(17), anchor="lm")

    def corner(self, column: int, row: int) -> Place:
        """Left and top of a cell; its words are above."""
        return (
            GAP + column * (self.cell + GAP),
            HEAD + row * (CAPTION + self.cell + GAP) + CAPTION,
        )

    def paste(self, picture: Image.Image, column: int, row: int, frame: str | None = None) -> None:
        """Put a picture of a cell's size in its cell, in a frame of a colour."""
        left, top = self.corner(column, row)
        if frame is not None:
            self.pen.rectangle((left - 3, top - 3, left + self.cell + 2, top + self.cell + 2), frame)
        self.image.paste(picture, (left, top))

    def write(self, words: str, column: int, row: int, colour: str = INK) -> None:
        """Words above a cell."""
        left, top = self.corner(column, row)
        place = left, top - CAPTION / 2 - 1
        self.pen.text(place, words, colour, ImageFont.load_default(14), anchor="lm")


def as_picture(pixels: Tensor, side: int) -> Image.Image:
    """uint8 [h, w, 3], or float [h, w, 3] in [0, 1] whose positions stay squares, as side x side pixels."""
    smooth = pixels.dtype == torch.uint8
    values = pixels if smooth else (pixels * 255).round().to(torch.uint8)
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(values.cpu().numpy()).resize((side, side), how)
