"""Pictures of a run: pairs of views with their positive points, and features in colours."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hvc.pretrain.data.batch import Batch, Part
from hvc.pretrain.data.packed import Packed
from hvc.pretrain.data.views import Box
from hvc.pretrain.drawing.charts import BLUE, FAINT, GREEN, INK, ORANGE, PAPER, PURPLE, RED, SKY, YELLOW
from hvc.pretrain.drawing.curves import curves
from hvc.pretrain.drawing.feature_colours import feature_colours, pixel_colours
from hvc.pretrain.drawing.sheet import Place, Sheet, as_picture
from hvc.pretrain.drawing.violins import weight_violins
from hvc.pretrain.model.pairs import find_pairs
from hvc.pretrain.recipe import TrainConfig

__all__ = ["curves", "feature_maps", "positive_pairs", "weight_violins"]

CELL, SMALL_CELL = 256, 140
"""Sides of pictures in a sheet, in pixels: of views, and of features and their images."""
POINT_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, PAPER)
VIEW_COLOURS = (SKY, ORANGE)
"""Frames of view 1 and of view 2."""
MOST_POINTS = 1000
"""A large radius makes up to a million pairs; of more than so many, some are drawn."""
RADIUS = 9
"""Of a numbered disc."""


class Point(NamedTuple):
    """One point of the image: where its bins' centres lie in the two views, as shares of their sides."""

    first: tuple[float, float]
    second: tuple[float, float]


def positive_pairs(batch: Batch, config: TrainConfig, rows: int = 4) -> Image.Image:
    """Where the crops lie, and the two views; a point of the image has one number and colour in both.

    Small dots are all positive pairs, numbered discs some of them that lie far apart. The image itself is
    not in a batch: it is put together from the views, each in its place.
    """
    side = config.views.size // 8
    few = _first(batch, rows)
    views, boxes = few.views, few.boxes
    rows = len(boxes[0])
    pairs = find_pairs(boxes, side, side, config.loss.radius).index
    title = "positive pairs of two views    (a number is the same point of the image)"
    sheet = Sheet(3, rows, CELL, title)
    for row in range(rows):
        query, key = pairs[1:, pairs[0] == row].tolist()
        points = [Point(_centre(q, side), _centre(k, side)) for q, k in zip(query, key, strict=True)]
        count, points = len(points), points[:: -(-len(points) // MOST_POINTS) or 1]
        pictures = [as_picture(view[row], CELL) for view in views]
        sheet.paste(_overview(pictures, [_box(box[row]) for box in boxes]), 0, row)
        for number, (picture, colour) in enumerate(zip(pictures, VIEW_COLOURS, strict=True), 1):
            sheet.paste(picture, number, row, frame=colour)
            sheet.write(f"view {number}", number, row)
        _draw_points(sheet.pen, (sheet.corner(1, row), sheet.corner(2, row)), points)
        words = f"{count:,} positive pairs" if count else why_no_pair(*(_box(box[row]) for box in boxes))
        sheet.write(words, 0, row, INK if count else RED)
    return sheet.image


def why_no_pair(first: Box, second: Box) -> str:
    """Words for an image whose two crops have no positive pair, and so no part in the loss.

    Crops may overlap and have none all the same: a small one between the bins' centres of a large one.
    """
    for axis in (0, 1):
        ends = [sorted((box[axis], box[axis + 2])) for box in (first, second)]
        if max(low for low, _ in ends) >= min(high for _, high in ends):
            return "no positive pair: no overlap"
    return "no positive pair: centres too far apart"


def _first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch: where views are cut later, the other ones need not be."""
    parts: list[Part] = []
    for part in batch.parts:
        size = min(part.boxes.shape[1], count)
        pixels, boxes = part.pixels, part.boxes[:, :size]
        cut = (
            pixels._replace(places=pixels.places[:, :size])
            if isinstance(pixels, Packed)
            else pixels[:, :size]
        )
        if size or not parts:
            parts.append(part._replace(pixels=cut, boxes=boxes))
        count -= size
    return batch._replace(parts=tuple(parts))


def feature_maps(images: Tensor, features: Tensor, reference: Tensor | None = None) -> Image.Image:
    """Images above their features, whose three main directions over all positions become colours.

    Like colours mean like features, in all images of the sheet; grey is the mean of all. Colours are
    turned to agree with those of `reference`, and these with the images' own, so they stay comparable
    from sheet to sheet. The untrained trunk's features serve well: every attempt can make them again.

    Args:
        images: uint8 [n, S, S, 3].
        features: [n, C, h, w] of these images, from the trunk as it is now.
        reference: [n, C', h, w] of the same images, from another network; shown in a row of its own.
    """
    like = pixel_colours(images, *features.shape[2:])
    rows = {"images": images}
    if reference is not None:
        like, _ = feature_colours(reference, like)
        rows["features of the untrained trunk"] = like
    now, share = feature_colours(features, like)
    rows[f"features now    (three main directions, {100 * share:.0f} % of the variance)"] = now
    title = "features in colours    (like colours: like features)"
    if not torch.isfinite(features).all():
        title = "features are not finite where the colour is black"
    sheet = Sheet(max(len(images), 3), len(rows), SMALL_CELL, title)
    for row, (name, pictures) in enumerate(rows.items()):
        sheet.write(name, 0, row)
        for column, picture in enumerate(pictures):
            sheet.paste(as_picture(picture, SMALL_CELL), column, row)
    return sheet.image


def _overview(pictures: Sequence[Image.Image], boxes: Sequence[Box]) -> Image.Image:
    """The two views in their places of the image, framed; what neither shows is grey."""
    width, height = _image_size(boxes)
    canvas = Image.new("RGB", (CELL, CELL), PAPER)
    left, top = (CELL - width) // 2, (CELL - height) // 2
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left, top, left + width - 1, top + height - 1), FAINT)
    areas = [abs((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes]
    places = [
        (
            left + round(min(x0, x1) * (width - 1)),
            top + round(min(y0, y1) * (height - 1)),
            left + round(max(x0, x1) * (width - 1)),
            top + round(max(y0, y1) * (height - 1)),
        )
        for x0, y0, x1, y1 in boxes
    ]
    for number in sorted(range(2), key=lambda one: -areas[one]):  # the smaller one on top: it is sharper
        x0, y0, x1, y1 = places[number]
        small = pictures[number].resize((x1 - x0 + 1, y1 - y0 + 1), Image.Resampling.LANCZOS)
        flipped = boxes[number][0] > boxes[number][2]
        canvas.paste(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else small, (x0, y0))
    for place, colour in zip(places, VIEW_COLOURS, strict=True):
        pen.rectangle(place, outline=colour, width=3)
    return canvas


def _image_size(boxes: Sequence[Box]) -> tuple[int, int]:
    """Width and height to draw an image in; a guess, for a batch knows boxes as shares of its sides only.

    Crops are nearly square on average, so the image is as much wider than high as they are narrower.
    """
    ratios = [abs(y1 - y0) / abs(x1 - x0) for x0, y0, x1, y1 in boxes if x0 != x1 and y0 != y1]
    aspect = min(max(math.prod(ratios) ** (1 / max(len(ratios), 1)), 0.5), 2.0)
    return (CELL, round(CELL / aspect)) if aspect >= 1 else (round(CELL * aspect), CELL)


def _box(box: Tensor) -> Box:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1


def _centre(position: int, side: int) -> tuple[float, float]:
    row, column = divmod(position, side)
    return (column + 0.5) / side, (row + 0.5) / side


def _draw_points(pen: ImageDraw.ImageDraw, corners: tuple[Place, Place], points: Sequence[Point]) -> None:
    for point in points:
        for corner, place in zip(corners, point, strict=True):
            _disc(pen, _in_cell(corner, place), 2, PAPER)
    for number, point in enumerate(far_apart(points), 1):
        for corner, place in zip(corners, point, strict=True):
            x, y = _in_cell(corner, place)
            _disc(pen, (x, y), RADIUS, POINT_COLOURS[number - 1])
            ink = PAPER if number == 1 else INK  # black does not show on the blue one
            pen.text((x, y), str(number), ink, ImageFont.load_default(13), anchor="mm")


def _in_cell(corner: Place, place: tuple[float, float]) -> Place:
    return corner[0] + round(place[0] * CELL), corner[1] + round(place[1] * CELL)


def _disc(pen: ImageDraw.ImageDraw, centre: Place, radius: int, colour: str) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour, INK)


def far_apart(points: Sequence[Point], most: int = len(POINT_COLOURS)) -> list[Point]:
    """At most so many of the points, no two of whose discs touch in either view; one at least.

    Each next one is the farthest, in the view where it is nearer, from those before it.
    """
    chosen = list(points[:1])
    least = (2 * RADIUS + 2) / CELL
    while len(chosen) < most:
        farthest = max(points, key=lambda point: min(map(partial(_apart, point), chosen)), default=None)
        if farthest is None or min(_apart(farthest, other) for other in chosen) < least:
            break
        chosen.append(farthest)
    return chosen


def _apart(one: Point, other: Point) -> float:
    return min(math.dist(one.first, other.first), math.dist(one.second, other.second))
