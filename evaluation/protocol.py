"""The numbers of the label-propagation protocol."""

from typing import Literal

from pydantic import Field

from hvc.base.config import Config


class Protocol(Config):
    """How labels travel through a video; the defaults are the official HVC settings."""

    context: int = Field(default=50, ge=0)
    """Frames before the current one that may be copied from, besides the reference frame."""
    radius: float = Field(default=12, gt=0)
    """Context positions count when nearer than this to the query, in feature-map cells (8 pixels)."""
    top_k: int = Field(default=15, ge=1)
    """Positions that vote on a label, chosen jointly from reference and context."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides affinities before the softmax: smaller means that the best match decides alone."""
    input_size: int | None = Field(default=None, ge=8)
    """Shorter image side in pixels for the network; null keeps the size. Labels keep the image's size."""
    first_frame: Literal["resampled", "given"] = "resampled"
    """Labels returned for the first frame: its mask after the way through the feature grid, as the
    official code writes it, or the given mask itself. Scores ignore that frame."""
