"""What all pictures of a run share: colours, and charts that need neither a display nor global state."""

from io import BytesIO
from typing import Any

from PIL import Image

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW = "#cc79a7", "#56b4e9", "#f0e442"
"""Colours that colour-blind people tell apart, too (Okabe and Ito, Color Universal Design)."""
INK, SOFT, FAINT, PAPER = "#1d1d1b", "#73736e", "#d9d9d4", "#ffffff"
DPI = 100
WIDTH = 9.2
"""Inches. MLflow shows pictures in a run's description in their own size, beside a wide menu."""


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches, made without pyplot: pyplot keeps every figure in memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def dress(axis: Any, title: str) -> None:
    """The common look of an axis: title at the left, small numbers, a faint grid, two spines."""
    axis.set_title(title, fontsize=9, color=INK, loc="left")
    axis.tick_params(labelsize=7.5, colors=SOFT, length=2.5)
    axis.grid(color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(FAINT)


def say(axis: Any, words: str) -> None:
    """Words in the middle of an axis that has nothing to show."""
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", fontsize=9, color=SOFT)
    axis.set_xticks([])
    axis.set_yticks([])


def to_image(figure: Any) -> Image.Image:
    """The drawn figure, RGB."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})
    return Image.open(buffer).convert("RGB")
