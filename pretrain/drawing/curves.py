"""How training goes, on one picture: six charts over the steps of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.pretrain.drawing.charts import BLUE, INK, ORANGE, RED, WIDTH, dress, new_figure, say, to_image

Floats = NDArray[np.float64]
Record = Mapping[str, Any]
"""`step` and metrics by name; a value that is not finite may be a number, a text such as "NaN", or None."""

MOST_POINTS = 400
"""A longer curve is drawn as the mean of so many equal groups of records, over the range of each."""
COLLAPSED = 0.05
"""Feature spread, in [0, 1], below which the network says nearly the same of every place: a collapse."""


class Line(NamedTuple):
    """One metric in a chart."""

    name: str
    label: str
    colour: str


class Panel(NamedTuple):
    """One chart: its title, metrics on the left scale, and one at most on the right."""

    title: str
    left: tuple[Line, ...]
    right: Line | None = None
    scale: Literal["free", "zero", "log", "spread"] = "free"
    """What the left scale is like. zero: it begins there; spread: 0 to 1, with the alarm of a collapse."""


PANELS = (
    Panel("loss", (Line("train/loss", "loss", BLUE),)),
    Panel(
        "agreement at positive pairs (1 = equal)",
        (Line("train/static", "static", BLUE), Line("train/dynamic", "dynamic", ORANGE)),
    ),
    Panel(
        "feature spread (0 = collapsed)", (Line("train/feature_spread", "spread", BLUE),), scale="spread"
    ),
    Panel("gradient norm", (Line("train/gradient_norm", "norm", BLUE),), scale="log"),
    Panel(
        "learning rate and EMA momentum",
        (Line("train/learning_rate", "learning rate", BLUE),),
        Line("train/ema_momentum", "EMA momentum", ORANGE),
        scale="zero",
    ),
    Panel(
        "speed",
        (Line("perf/images_per_second", "images/s", BLUE),),
        Line("perf/wait_share", "share of time waiting for data", ORANGE),
        scale="zero",
    ),
)


def curves(records: Sequence[Record]) -> Image.Image:
    """Loss, agreement, spread, gradient norm, schedules and speed over the steps of a run.

    Red marks on the lower edge of a chart are records with steps that were not finite. Any number of
    records will do, and any metric may be missing from some or all of them.

    Args:
        records: metrics by name, each with its `step`; in any order.
    """
    records = sorted(records, key=lambda record: record["step"])
    steps = np.array([record["step"] for record in records], np.float64)
    bad = steps[bad_records(records)]
    figure = new_figure(WIDTH, 6)
    grid = figure.subplots(2, 3, squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.95, top=0.89, bottom=0.07, wspace=0.3, hspace=0.32)
    figure.text(0.05, 0.955, _heading(records, bad), fontsize=10, color=INK)
    for axis, panel in zip(grid.flat, PANELS, strict=True):
        _draw(axis, panel, steps, records, bad)
    return to_image(figure)


def bad_records(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Which records, in order of steps, saw steps that were not finite: by their count or by the loss.

    The count, `train/non_finite_steps`, is of the steps since the record before.
    """
    counted = np.nan_to_num(values_of(records, "train/non_finite_steps")) > 0
    losses = np.array([_number(record.get("train/loss", 0.0)) for record in records], np.float64)
    return counted | ~np.isfinite(losses)


def values_of(records: Sequence[Record], name: str) -> Floats:
    """A metric of all records [records]; NaN where it is missing or not finite."""
    values = np.array([_number(record.get(name)) for record in records], np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def grouped(
    steps: Floats, values: Floats, most: int = MOST_POINTS
) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean step, mean, least and largest value of each of at most `most` equal groups of neighbours.

    Values that are NaN are left out first.
    """
    known = ~np.isnan(values)
    steps, values = steps[known], values[known]
    if len(steps) <= most:
        return steps, values, values, values
    starts = np.linspace(0, len(steps), most, endpoint=False).astype(np.int64)
    sizes = np.diff(starts, append=len(steps))
    means = [np.add.reduceat(part, starts) / sizes for part in (steps, values)]
    return means[0], means[1], np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _heading(records: Sequence[Record], bad: Floats) -> str:
    if not records:
        return "nothing recorded yet"
    words = [f"step {int(records[-1]['step']):,}"]
    for name, label, form in (
        ("train/loss", "loss", "{:+.3f}"),
        ("train/static", "static", "{:+.3f}"),
        ("train/dynamic", "dynamic", "{:+.3f}"),
        ("perf/images_per_second", "images/s", "{:,.0f}"),
    ):
        value = _number(records[-1].get(name))
        if math.isfinite(value):
            words.append(f"{label} {form.format(value)}")
    if len(bad):
        words.append(f"not finite in {len(bad)} of {len(records):,} records (red marks)")
    return "     ".join(words)


def _draw(axis: Any, panel: Panel, steps: Floats, records: Sequence[Record], bad: Floats) -> None:
    dress(axis, panel.title)
    known = {line.name: values_of(records, line.name) for line in (*panel.left, panel.right) if line}
    if all(np.isnan(values).all() for values in known.values()):
        say(axis, "not recorded")
        return
    handles = [_draw_line(axis, line, steps, known[line.name]) for line in panel.left]
    left = np.concatenate([known[line.name] for line in panel.left])
    if panel.scale == "log" and np.nanmin(left, initial=math.inf) > 0:
        _log_scale(axis)
    if panel.scale == "zero":
        axis.set_ylim(0, 1.15 * max(float(np.nanmax(left, initial=0)), 1e-12))
    if panel.scale == "spread":
        _collapse_alarm(axis, float(np.nanmax(left)))
    if panel.right is not None and not np.isnan(known[panel.right.name]).all():
        handles.append(_draw_right(axis, panel.right, steps, known[panel.right.name]))
    if len(handles) > 1:
        axis.legend(handles=handles, fontsize=7.5, frameon=False, labelcolor=INK, loc="best")
    _few_ticks(axis)
    margin = max(0.02 * (steps[-1] - steps[0]), 0.5)
    axis.set_xlim(steps[0] - margin, steps[-1] + margin)
    if len(bad):
        axis.plot(
            bad,
            np.zeros_like(bad),
            "|",
            color=RED,
            markersize=9,
            markeredgewidth=1.5,
            clip_on=False,
            transform=axis.get_xaxis_transform(),
        )


def _collapse_alarm(axis: Any, highest: float) -> None:
    axis.set_ylim(0, max(1.0, highest))
    axis.axhspan(0, COLLAPSED, color=RED, alpha=0.15, linewidth=0)
    axis.axhline(COLLAPSED, color=RED, linewidth=1, linestyle="--")
    place = axis.get_yaxis_transform()
    axis.text(0.99, COLLAPSED + 0.02, "collapse", transform=place, ha="right", fontsize=7.5, color=RED)


def _few_ticks(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k


def _log_scale(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _draw_line(axis: Any, line: Line, steps: Floats, values: Floats) -> Any:
    x, mean, low, high = grouped(steps, values)
    if low is not high:
        axis.fill_between(x, low, high, color=line.colour, alpha=0.2, linewidth=0)
    marker = "o" if len(x) <= 30 else ""
    (handle,) = axis.plot(
        x, mean, color=line.colour, linewidth=1.5, marker=marker, markersize=3, label=line.label
    )
    return handle


def _draw_right(axis: Any, line: Line, steps: Floats, values: Floats) -> Any:
    right = axis.twinx()
    handle = _draw_line(right, line, steps, values)
    handle.set_linestyle("--")
    right.tick_params(labelsize=7.5, colors=line.colour, length=2.5)
    for side in ("top", "left", "right", "bottom"):
        right.spines[side].set_visible(False)
    if line.name == "perf/wait_share":
        right.set_ylim(0, 1)
    return handle
