"""A sequence with its labels as a moving picture that MLflow's artifact view and every browser play."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hvc.evaluation.drawing.scenes import Scene
from hvc.evaluation.drawing.strips import spread
from hvc.pretrain.drawing.charts import BLUE, INK, PAPER

MOST_BYTES = 3_000_000
MOST_FRAMES = 80
_WIDTH, _LEAST_WIDTH = 480, 160
_FRAME_MS = 60
"""How long a frame is shown where none is left out: half the speed of a video of 30 frames a second."""
_COLOURS = 128
_LINE = 20


def write_video(
    scene: Scene, values: Mapping[int, float], measure: str, path: Path, most_bytes: int = MOST_BYTES
) -> None:
    """Write an animated GIF of at most `most_bytes`: the only moving picture that MLflow shows.

    Long sequences lose frames, not seconds; what is still too large is drawn smaller.

    Args:
        scene: the sequence.
        values: frame index -> score in percent, written below the frame.
        measure: what the values are.
        path: ends with .gif.
        most_bytes: the size of the file at most, unless 160 pixels of width are still too many.
    """
    chosen = [scene.results[place] for place in spread(len(scene.results), MOST_FRAMES)]
    milliseconds = round(_FRAME_MS * len(scene.results) / len(chosen) / 10) * 10  # GIF counts in hundredths
    width = min(_WIDTH, scene.size[0])
    while True:
        content = _encode(scene, chosen, values, measure, width, milliseconds)
        if len(content) <= most_bytes or width <= _LEAST_WIDTH:
            break
        width = max(_LEAST_WIDTH, int(0.95 * width * (most_bytes / len(content)) ** 0.5))
    path.write_bytes(content)


def _encode(
    scene: Scene,
    chosen: list[int],
    values: Mapping[int, float],
    measure: str,
    width: int,
    milliseconds: int,
) -> bytes:
    pictures = [_frame(scene, index, values, measure, width) for index in chosen]
    colours = _common_colours(pictures)
    frames = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    buffer = BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [1500]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _common_colours(pictures: list[Image.Image]) -> Image.Image:
    """One palette for all frames: with one for each, what stands still would flicker."""
    width, height = pictures[0].size
    some = [pictures[place] for place in spread(len(pictures), 6)]
    together = Image.new("RGB", (width, height * len(some)))
    for number, picture in enumerate(some):
        together.paste(picture, (0, number * height))
    return together.quantize(_COLOURS, Image.Quantize.MEDIANCUT)


def _frame(scene: Scene, index: int, values: Mapping[int, float], measure: str, width: int) -> Image.Image:
    size = scene.scaled(width)
    canvas = Image.new("RGB", (size[0], size[1] + _LINE), PAPER)
    canvas.paste(scene.propagated(index, size))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    middle = size[1] + _LINE / 2
    pen.text((4, middle), f"{scene.name}  {scene.stems[index]}", INK, font, anchor="lm")
    if index in values:
        pen.text((size[0] - 4, middle), f"{measure} {values[index]:.1f}", INK, font, anchor="rm")
    done = round(size[0] * (index + 1) / len(scene))
    pen.line((0, size[1], done, size[1]), BLUE, 2)
    return canvas
