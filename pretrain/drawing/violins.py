"""Distributions of the trunk's weights, layer by layer, as violins (after Figure 5 of the paper)."""

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hvc.pretrain.drawing.charts import BLUE, INK, ORANGE, SOFT, WIDTH, dress, new_figure, to_image

Weights = NDArray[np.float32]

MOST_WEIGHTS = 50_000
"""Of a larger layer every so manyth weight is taken, which bounds the time."""
_TRUNK = re.compile(
    r"^(?:online_encoder\.)?(?:conv1|layer(\d)\.(\d+)\.(?:conv(\d)|(downsample)\.0))\.weight$"
)
_BINS = 160
_SMOOTHING = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)


def trunk_convolutions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's convolutions by short name (`conv1`, `1.0.conv1`, ...), from the image on.

    The shortcut of a block comes after the block's own convolutions. Heads, norms and the target
    network are left out; names may have the prefix `online_encoder.` or none.
    """
    found: list[tuple[tuple[int, int, int], str, Tensor]] = []
    for key, value in state.items():
        match = _TRUNK.match(key)
        if match is None:
            continue
        layer, block, number, shortcut = match.groups()
        place = (int(layer or 0), int(block or 0), 9 if shortcut else int(number or 0))
        inside = "shortcut" if shortcut else f"conv{number}"
        found.append((place, f"{layer}.{block}.{inside}" if layer else "conv1", value))
    return {name: value for _, name, value in sorted(found, key=lambda item: item[0])}


def weight_violins(state: dict[str, Tensor], initial: dict[str, Tensor] | None = None) -> Image.Image:
    """One violin per convolution of the trunk, in order of depth: left at initialisation, right now.

    Args:
        state: weights by name, as of the online network or of its trunk; other entries are ignored.
        initial: the same at initialisation; without it both halves are those of now.
    """
    now = {name: sampled(value) for name, value in trunk_convolutions(state).items()}
    before = {name: sampled(value) for name, value in trunk_convolutions(initial or {}).items()}
    figure = new_figure(WIDTH, 4.8)
    axis: Any = figure.add_axes((0.055, 0.2, 0.935, 0.68))
    dress(axis, "weights of the trunk's convolutions, from the image on   (line: median, dots: quartiles)")
    axis.grid(visible=False, axis="x")
    limit = _limit([*now.values(), *before.values()])
    for place, (name, weights) in enumerate(now.items()):
        old = before.get(name)
        _half(axis, place, weights, limit, +1, BLUE)
        _half(axis, place, weights if old is None else old, limit, -1, BLUE if old is None else ORANGE)
    axis.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    axis.set_xlim(-0.7, max(len(now), 1) - 0.3)
    axis.set_ylim(-limit, limit)
    axis.set_xticks(range(len(now)), list(now), rotation=60, ha="right", rotation_mode="anchor")
    if before:
        for x, colour, words in ((0.055, ORANGE, "left: at initialisation"), (0.27, BLUE, "right: now")):
            figure.text(x, 0.945, words, fontsize=10, color=colour, weight="bold")
    return to_image(figure)


def sampled(weights: Tensor) -> Weights:
    """At most MOST_WEIGHTS finite weights of a layer, at even distances, always the same."""
    flat = weights.detach().reshape(-1)
    chosen = flat[:: -(-flat.numel() // MOST_WEIGHTS) or 1].to("cpu", torch.float32).numpy()
    return chosen[np.isfinite(chosen)]


def _limit(layers: list[Weights]) -> float:
    """Half the height of the chart: no layer has more than a thousandth of its weights beyond."""
    ends = [float(np.quantile(np.abs(layer), 0.999)) for layer in layers if layer.size]
    return max([*ends, 1e-6]) * 1.05


def _half(axis: Any, place: int, weights: Weights, limit: float, side: int, colour: str) -> None:
    """Half a violin, its widest point 0.42 from the middle."""
    if not weights.size:
        return
    counts, edges = np.histogram(weights.clip(-limit, limit), _BINS, (-limit, limit))
    density = np.convolve(counts, _SMOOTHING, mode="same")
    middle, width = (edges[1:] + edges[:-1]) / 2, 0.42 * density / density.max()
    shown = density > 0.002 * density.max()
    axis.fill_betweenx(
        middle[shown], place, place + side * width[shown], color=colour, alpha=0.75, linewidth=0
    )
    low, median, high = np.quantile(weights, (0.25, 0.5, 0.75))
    axis.plot([place, place + side * 0.3], [median, median], color=INK, linewidth=1)
    axis.plot([place + side * 0.07] * 2, [low, high], "o", color=INK, markersize=1.8)
