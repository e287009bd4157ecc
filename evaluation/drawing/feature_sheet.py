"""Features of the first and the last frame of sequences in colours: what propagation has to match."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hvc.evaluation.layouts.images import read_frame
from hvc.pretrain.drawing.charts import INK, PAPER, SOFT
from hvc.pretrain.drawing.feature_colours import feature_colours, pixel_colours

WIDTH, MOST = 400, 8
_GAP, _HEAD, _LINE = 10, 40, 24
Features = Callable[[NDArray[np.uint8]], Tensor]
"""An image, uint8 RGB [H, W, 3], to its feature map [C, h, w]."""


def feature_sheet(videos: Sequence[tuple[str, Path, Path]], features: Features) -> Image.Image:
    """One row per video: first frame, its features, last frame, its features.

    The two feature maps of a row share their colours: like colours mean like features, in both frames.
    Rows do not. At most MOST videos are shown, evenly chosen.

    Args:
        videos: name, first frame and last frame.
        features: as propagation uses them.
    """
    chosen = videos[:: -(-len(videos) // MOST)]
    rows = [_row(first, last, features) for _, first, last in chosen]
    tops = [_HEAD]
    for pictures, _ in rows:
        tops.append(tops[-1] + _LINE + max(picture.height for picture in pictures) + _GAP)
    sheet = Image.new("RGB", (_GAP + 4 * (WIDTH + _GAP), tops[-1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    title = "features of the first and the last frame    (like colours in a row: like features)"
    pen.text((_GAP, _HEAD / 2), title, INK, ImageFont.load_default(18), anchor="lm")
    small = ImageFont.load_default(15)
    for (name, _, _), (pictures, share), top in zip(chosen, rows, tops, strict=False):
        words = (name, f"three main directions, {100 * share:.0f} % of the variance", "last frame", "")
        for column, (picture, word) in enumerate(zip(pictures, words, strict=True)):
            left = _GAP + column * (WIDTH + _GAP)
            pen.text((left, top + _LINE / 2), word, SOFT if column else INK, small, anchor="lm")
            sheet.paste(picture, (left, top + _LINE))
    return sheet


def _row(first: Path, last: Path, features: Features) -> tuple[list[Image.Image], float]:
    images = [read_frame(path) for path in (first, last)]
    maps = torch.stack([features(image).detach().float().cpu() for image in images])
    like = torch.cat([pixel_colours(torch.from_numpy(image)[None], *maps.shape[2:]) for image in images])
    colours, share = feature_colours(maps, like)
    size = WIDTH, max(1, round(WIDTH * images[0].shape[0] / images[0].shape[1]))
    pictures = []
    for image, colour in zip(images, colours, strict=True):
        cells = Image.fromarray((colour * 255).round().to(torch.uint8).numpy())
        pictures.append(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        pictures.append(cells.resize(size, Image.Resampling.NEAREST))
    return pictures, share
