"""Frames of a sequence side by side, with their scores; the truth as a second row."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hvc.evaluation.drawing.overlays import part_palette
from hvc.evaluation.drawing.scenes import Scene, Size
from hvc.evaluation.layouts.vip import CLASSES
from hvc.pretrain.drawing.charts import FAINT, INK, PAPER, SOFT

FRAMES = 6
WIDTH = 2000
"""Pixels of a strip at most; frames are scaled down to fit, never up."""
_GAP = 6


def strip_of(scene: Scene, values: Mapping[int, float], measure: str, heading: str) -> Image.Image:
    """The first, the last and some frames between them, evenly spread over those that have results.

    Args:
        scene: the sequence.
        values: frame index -> score in percent.
        measure: what the values are, e.g. `J&F`.
        heading: the sequence and what it scores, above all.
    """
    chosen = [scene.results[place] for place in spread(len(scene.results), FRAMES)]
    width = (WIDTH - _GAP * (len(chosen) + 1)) // len(chosen)
    size = scene.scaled(width)
    rows: dict[str, list[Image.Image]] = {"propagated": [scene.propagated(index, size) for index in chosen]}
    truth = [scene.truth(index, size) for index in chosen]
    if any(truth):
        blank = Image.new("RGB", size, FAINT)
        rows["ground truth"] = [picture or blank for picture in truth]
    titles = [f"frame {scene.stems[index]}" for index in chosen]
    captions = [f"{measure} {values[index]:.1f}" if index in values else "" for index in chosen]
    return strip(rows, titles, captions, heading, scene.parts())


def spread(count: int, most: int) -> list[int]:
    """Positions of at most `most` of `count` things: the first, the last, and some evenly between them."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(most, count)).round()})


def strip(
    rows: Mapping[str, Sequence[Image.Image]],
    titles: Sequence[str],
    captions: Sequence[str],
    heading: str,
    parts: Sequence[int] = (),
) -> Image.Image:
    """Rows of pictures of one size, with titles above the first row and captions below it.

    Args:
        rows: name of a row -> n >= 1 pictures.
        titles: n short texts.
        captions: n short texts, or nothing but empty ones for no line of them.
        heading: above all.
        parts: ids of body parts to explain below all.
    """
    first = next(iter(rows.values()))
    size = first[0].size
    text = max(12, min(20, size[0] // 14))
    line = round(1.7 * text)
    captioned = line if any(captions) else _GAP
    width = max(len(first) * (size[0] + _GAP) + _GAP, round(0.62 * (text + 2) * len(heading)) + 2 * _GAP)
    legend = legend_of(parts, width) if parts else None
    height = 2 * line + size[1] + captioned + (len(rows) - 1) * (line + size[1] + _GAP)
    sheet = Image.new("RGB", (width, height + (legend.height if legend else 0)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, line / 2), heading, INK, ImageFont.load_default(text + 2), anchor="lm")
    top = 2 * line
    for number, (name, pictures) in enumerate(rows.items()):
        if number:
            font = ImageFont.load_default(text)
            pen.text((_GAP, top - line / 2), name, SOFT, font, anchor="lm")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_GAP + column * (size[0] + _GAP), top))
        if number == 0:
            _write(pen, titles, top - line / 2, size, text, SOFT)
            _write(pen, captions, top + size[1] + line / 2, size, text, INK)
        top += size[1] + (captioned if number == 0 else _GAP) + line
    if legend is not None:
        sheet.paste(legend, (0, height))
    return sheet


def _write(
    pen: ImageDraw.ImageDraw, words: Sequence[str], middle: float, size: Size, text: int, colour: str
) -> None:
    font = ImageFont.load_default(text)
    for column, word in enumerate(words):
        place = _GAP + column * (size[0] + _GAP) + size[0] / 2, middle
        pen.text(place, word, colour, font, anchor="mm")


def legend_of(parts: Sequence[int], width: int) -> Image.Image:
    """Colours and names of body parts, in as many lines as `width` pixels ask for."""
    font, box, line = ImageFont.load_default(14), 14, 24
    places, x, y = [], _GAP, _GAP
    for number in parts:
        needed = box + 6 + round(font.getlength(CLASSES[number])) + 18
        if x + needed > width and x > _GAP:
            x, y = _GAP, y + line
        places.append((number, x, y))
        x += needed
    image = Image.new("RGB", (width, y + line), PAPER)
    pen = ImageDraw.Draw(image)
    for number, left, top in places:
        colour = tuple(int(value) for value in part_palette()[number])
        pen.rectangle((left, top, left + box, top + box), colour, INK)
        pen.text((left + box + 6, top + box / 2), CLASSES[number], INK, font, anchor="lm")
    return image
