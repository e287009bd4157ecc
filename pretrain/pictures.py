"""Pictures of a run: what the network is shown, and how training goes."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from hvc.pretrain.batch import Batch
from hvc.pretrain.positives import positive_mask
from hvc.pretrain.recipe import TrainConfig

_LINES_PER_IMAGE = 24


def positive_pairs(batch: Batch, config: TrainConfig, rows: int = 4) -> Image.Image:
    """The first images' two views side by side, with lines between positive pairs."""
    height = width = config.views.size // 8
    positives = positive_mask(*batch.boxes, height, width, config.loss.radius)
    rows, views = min(rows, len(positives)), batch.views
    axes: Any
    figure, axes = _figure(rows, 2, 2.6)
    for row in range(rows):
        pairs = positives[row].nonzero()
        for column in range(2):
            axes[row][column].imshow(views[column][row].numpy())
            axes[row][column].set_axis_off()
        axes[row][0].set_title(f"{len(pairs)} positive pairs", fontsize=8)
        for query, key in _spread(pairs).tolist():
            _draw_pair(figure, axes[row], divmod(query, width), divmod(key, width))
    return _to_image(figure)


def _spread(pairs: torch.Tensor) -> torch.Tensor:
    if len(pairs) <= _LINES_PER_IMAGE:
        return pairs
    return pairs[torch.linspace(0, len(pairs) - 1, _LINES_PER_IMAGE).long()]


def _draw_pair(figure: Any, axes: Any, query: tuple[int, int], key: tuple[int, int]) -> None:
    from matplotlib.patches import ConnectionPatch

    ends = [(8 * column + 4, 8 * row + 4) for row, column in (query, key)]
    line = ConnectionPatch(
        xyA=ends[0],
        xyB=ends[1],
        coordsA="data",
        coordsB="data",
        axesA=axes[0],
        axesB=axes[1],
        color="#ffd166",
        linewidth=0.7,
        alpha=0.8,
    )
    figure.add_artist(line)
    for axis, (x, y) in zip(axes, ends, strict=True):
        axis.plot(x, y, "o", color="#ef476f", markersize=2)


def feature_maps(views: torch.Tensor, features: torch.Tensor) -> Image.Image:
    """Views above their feature maps, whose three main directions over all positions become RGB.

    Args:
        views: uint8 [B, S, S, 3].
        features: [B, C, h, w] of the same views.
    """
    count, channels, height, width = features.shape
    rows = features.float().permute(0, 2, 3, 1).reshape(-1, channels)
    centred = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    colours = centred @ directions[:3].T
    low, high = colours.quantile(0.01, dim=0), colours.quantile(0.99, dim=0)
    scaled = ((colours - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    maps = scaled.view(count, height, width, 3).numpy()
    axes: Any
    figure, axes = _figure(2, count, 1.9)
    for column in range(count):
        axes[0][column].imshow(views[column].numpy())
        axes[1][column].imshow(maps[column], interpolation="nearest")
        for row in range(2):
            axes[row][column].set_axis_off()
    return _to_image(figure)


def curves(records: Sequence[Mapping[str, float]]) -> Image.Image:
    """Loss, agreement terms and speed over the steps of a run."""
    panels = {
        "loss": ["train/loss"],
        "agreement at positive pairs": ["train/static", "train/dynamic"],
        "images/s": ["perf/images_per_second"],
    }
    axes: Any
    figure, axes = _figure(1, len(panels), 3.4)
    steps = [record["step"] for record in records]
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            axis.plot(steps, [record.get(name, np.nan) for record in records], label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=7)
    return _to_image(figure)


def _figure(rows: int, columns: int, cell: float) -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(cell * columns, cell * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _to_image(figure: Any) -> Image.Image:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
