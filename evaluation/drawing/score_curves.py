"""Scores of a sequence over its frames, and of each of its objects."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from hvc.evaluation.metrics.measures import label, scored_frames
from hvc.pretrain.drawing.charts import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    SOFT,
    WIDTH,
    dress,
    new_figure,
    to_image,
)

Curves = Mapping[str, Sequence[float]]
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
_MOST_OBJECTS = 24
_MOST_LINES = 6


def score_curves(
    name: str, curves: Curves, results: Sequence[int], objects: Mapping[str, Mapping[str, float]]
) -> Image.Image:
    """Curves over frames at the left; at the right, for more than one object, what each scores.

    Args:
        name: the sequence.
        curves: measure -> percent per scored frame; a measure `j/3` is that of object 3, drawn thin.
        results: indices of the frames that have results.
        objects: id -> measure -> percent.
    """
    many = len(objects) > 1
    shown = dict(list(objects.items())[:_MOST_OBJECTS])
    figure = new_figure(WIDTH, max(2.8, 0.9 + 0.3 * len(shown)) if many else 2.8)
    figure.text(0.05, 0.955, name, fontsize=10, color=INK, va="top")
    height = figure.get_figheight()
    bottom, top = 0.42 / height, 1 - 0.62 / height
    axis: Any = figure.add_axes((0.05, bottom, 0.57 if many else 0.93, top - bottom))
    _draw_curves(axis, curves, results)
    if many:
        side: Any = figure.add_axes((0.7, bottom, 0.28, top - bottom))
        _draw_objects(side, shown, len(objects))
    return to_image(figure)


def _draw_curves(axis: Any, curves: Curves, results: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    means = {measure: values for measure, values in curves.items() if "/" not in measure}
    thin_ones = "" if len(means) == len(curves) else "    (thin: single objects)"
    dress(axis, f"percent per frame, mean over objects{thin_ones}")
    colours = dict(zip(means, _COLOURS * len(means), strict=False))
    for measure, values in curves.items():
        parent = measure.split("/")[0]
        thin = measure not in means
        axis.plot(
            scored_frames(len(values), results),
            values,
            color=colours.get(parent, SOFT),
            linewidth=0.7 if thin else 1.8,
            alpha=0.55 if thin else 1,
            label="_" if thin else f"{label(measure)}   mean {_mean(values):.1f}",
        )
    axis.set_ylim(-2, 102)
    axis.set_xlim(-0.5, results[-1] + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_xlabel("frame", fontsize=7.5, color=SOFT, labelpad=1)
    if 0 < len(means) <= _MOST_LINES:
        axis.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="best")


def _draw_objects(axis: Any, objects: Mapping[str, Mapping[str, float]], count: int) -> None:
    missing = f"   ({len(objects)} of {count})" if len(objects) < count else ""
    dress(axis, f"percent per object{missing}")
    measures = list(dict.fromkeys(measure for scores in objects.values() for measure in scores))[:2]
    thickness = 0.8 / max(len(measures), 1)
    for number, measure in enumerate(measures):
        places = [row + (number - (len(measures) - 1) / 2) * thickness for row in range(len(objects))]
        values = [scores.get(measure, 0.0) for scores in objects.values()]
        axis.barh(places, values, 0.9 * thickness, color=_COLOURS[number], label=label(measure))
        for place, value in zip(places, values, strict=True):
            axis.text(value + 1, place, f"{value:.0f}", fontsize=7, color=INK, va="center")
    axis.set_yticks(range(len(objects)), list(objects), fontsize=7.5)
    axis.set_ylim(len(objects) - 0.4, -0.6)
    axis.set_xlim(0, 112)
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.grid(visible=False, axis="y")
    axis.legend(
        fontsize=7.5, frameon=False, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=2
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
